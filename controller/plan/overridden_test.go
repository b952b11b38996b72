package plan_test

import (
	"testing"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// TestAPolicyForARouteOfNobodyStopsNobody: whoever may name a Gateway in a route may have a policy for that.
func TestAPolicyForARouteOfNobodyStopsNobody(t *testing.T) {
	const (
		consent = `name: b, labels: {istio.io/dataplane-mode: ambient}, annotations: {isthmus.dev/edges: edge/public}`
		to      = `backendRefs: [{name: stock, port: 80}]`
		target  = `targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: stock}]`
		mine    = "{name: mine, namespace: b}"
	)
	for name, c := range map[string]struct {
		edits    []string
		severity v1alpha1.Severity
		blocked  bool
	}{
		"a route to one of its backends":         {nil, v1alpha1.SeverityError, false},
		"a route to nothing":                     {[]string{to, "backendRefs: []"}, v1alpha1.SeverityWarning, false},
		"a route to one that is not told of":     {[]string{consent, "name: b"}, "", false},
		"a route to nothing, and a listener too": {[]string{to, "backendRefs: []", mine, "{name: mine, namespace: edge}", target, "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: http, sectionName: web}]"}, v1alpha1.SeverityError, true},
	} {
		t.Run(name, func(t *testing.T) {
			p := plan.Make(snapshot(t, golden(t, "gateway-switch-and-a-policy-for-a-route", c.edits...)))
			f := first(p, v1alpha1.FindingOverridden)
			if f.Severity != c.severity || p.Blocked() != c.blocked {
				t.Errorf("blocked: %t, and it finds %+v", p.Blocked(), p.Findings)
			}
			if w := stepsOf(p, "BackendTrafficPolicy edge/isthmus-http")[plan.VerbSwitch]; (w.Write == nil) != c.blocked {
				t.Errorf("the switch is %s: %s", w.State, w.Reason)
			}
		})
	}
}
