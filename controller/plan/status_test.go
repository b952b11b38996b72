package plan_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// The API server takes 32768 bytes of a condition's message, and refuses the whole status for one more.
func TestMessagesOfConditionsAreCut(t *testing.T) {
	long := strings.Repeat("é", 20000)
	p := &plan.Plan{Findings: []v1alpha1.Finding{{Code: v1alpha1.FindingRefused, Severity: v1alpha1.SeverityError, Message: "a" + long}}}
	for _, c := range p.Status(&v1alpha1.AmbientEdge{}).Conditions {
		if len(c.Message) > 32768 || len(c.Message) < 32760 || !utf8.ValidString(c.Message) || !strings.HasSuffix(c.Message, "…") {
			t.Errorf("the message of %s has %d bytes, and ends in %q", c.Type, len(c.Message), c.Message[len(c.Message)-8:])
		}
	}
}

func TestManyPoliciesAreCutToTheFirst(t *testing.T) {
	s := world(t, "undo-halts-for-a-policy")
	first := s.Policies[0]
	for i := range 150 {
		s.Policies = append(s.Policies, &securityv1.AuthorizationPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: first.Namespace, Name: fmt.Sprintf("x%s%03d", strings.Repeat("x", 240), i)}, Spec: *first.Spec.DeepCopy(),
		})
	}
	for _, f := range plan.Make(s).Findings {
		if f.Code == v1alpha1.FindingUndoHalted && strings.Contains(f.Message, first.Name) && strings.HasSuffix(f.Message, ", and 135 more") {
			return
		}
	}
	t.Error("no finding says so")
}

// world is the input of a case in testdata.
func world(t *testing.T, name string) *plan.Snapshot {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	input, _, _ := strings.Cut(string(text), separator)
	return snapshot(t, input)
}
