package plan_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// TestOffTellsNothingOfPoliciesButWhatHoldsBack: Check is what nothing is. Off leaves out what policies do that stand, and goes by it all the same: what is an
// error stays one, and steps are the same.
func TestOffTellsNothingOfPoliciesButWhatHoldsBack(t *testing.T) {
	for name, c := range map[string]struct {
		code     string
		severity v1alpha1.Severity
	}{
		"gateway-is-refused-when-all-is-done":     {v1alpha1.FindingNotAdmitted, v1alpha1.SeverityWarning},
		"policies-begin-to-refuse-others":         {v1alpha1.FindingBegins, v1alpha1.SeverityWarning},
		"gateway-is-not-admitted-at-the-waypoint": {v1alpha1.FindingNotAdmitted, v1alpha1.SeverityError},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile("testdata/" + name + ".yaml")
			if err != nil {
				t.Fatal(err)
			}
			input, _, _ := strings.Cut(string(text), separator)
			in := func(mode v1alpha1.AuthorizationMode) (*plan.Plan, *v1alpha1.AmbientEdge) {
				s := snapshot(t, input)
				if s.Edge.Spec.Authorization = nil; mode != "" {
					s.Edge.Spec.Authorization = &v1alpha1.Authorization{Mode: mode}
				}
				return plan.Make(s), s.Edge
			}
			p, e := in("")
			checked, ce := in(v1alpha1.AuthorizationCheck)
			if a, b := describe(p, e), describe(checked, ce); a != b {
				t.Errorf("Check is another plan than none:\n%s\n%s", a, b)
			}
			its := func(f v1alpha1.Finding) bool { return f.Code == c.code && f.Severity == c.severity }
			if !slices.ContainsFunc(p.Findings, its) {
				t.Fatalf("this world is about nothing: %s", describe(p, e))
			}
			off, _ := in(v1alpha1.AuthorizationOff)
			if told := slices.ContainsFunc(off.Findings, its); told != (c.severity == v1alpha1.SeverityError) {
				t.Errorf("with Off it is told: %t", told)
			}
			if off.Digest != p.Digest || len(off.Writes()) != len(p.Writes()) {
				t.Error("with Off other steps are taken")
			}
			if n := len(slices.DeleteFunc(slices.Clone(p.Findings), func(f v1alpha1.Finding) bool {
				return strings.HasPrefix(f.Code, "ISM20") && f.Severity != v1alpha1.SeverityError
			})); len(off.Findings) < n {
				t.Errorf("with Off there are %d findings, and %d are to stay", len(off.Findings), n)
			}
		})
	}
}
