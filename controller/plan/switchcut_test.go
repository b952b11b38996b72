package plan_test

import (
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// TestASwitchLeadsNobodyToAWaypointThatRefusesIt: a Service may lead to its waypoint before the gateway follows, which reaches the pods so far. Once it
// followed, what got lost is mended, as policies may refuse on purpose.
func TestASwitchLeadsNobodyToAWaypointThatRefusesIt(t *testing.T) {
	const deny = "---\n{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: p, namespace: NS}, spec: {action: DENY, targetRefs: [{kind: Service, group: \"\", name: SVC}], rules: [{}]}}\n"
	for name, c := range map[string]struct {
		of, service, object string
		edits               []string
		state               v1alpha1.StepState
	}{
		"of a gateway": {"gateway-switch-beside-a-silent-waypoint", "b/stock", "BackendTrafficPolicy edge/isthmus-http", []string{
			`test/why: "connection refused"`, `test/answers: "yes"`,
			`{name: stock, namespace: b, uid: s2}, spec: {selector: {app: stock}, clusterIP: "10.96.0.8"}}`,
			`{name: stock, namespace: b, uid: s2, labels: {istio.io/use-waypoint: waypoint}}, spec: {selector: {app: stock}, clusterIP: "10.96.0.8"}, status: {conditions: [{type: istio.io/WaypointBound, status: "True"}]}}`,
		}, v1alpha1.StepLater},
		"of a Service": {"traefik-switch", "shop/orders", "Service shop/orders", nil, v1alpha1.StepHeld},
	} {
		t.Run(name, func(t *testing.T) {
			ns, svc, _ := strings.Cut(c.service, "/")
			planned := func(more string, done ...string) *plan.Plan {
				s := snapshot(t, golden(t, c.of, c.edits...)+more)
				for _, id := range done {
					s.Edge.Status.Plan.Steps = append(s.Edge.Status.Plan.Steps, v1alpha1.Step{ID: id, State: v1alpha1.StepDone})
				}
				return plan.Make(s)
			}
			denied := strings.NewReplacer("NS", ns, "SVC", svc).Replace(deny)
			confirmed := plan.VerbConfirm + " Service " + c.service
			for _, done := range [][]string{nil, {confirmed}} {
				p := planned(denied, done...)
				if w := stepsOf(p, c.object)[plan.VerbSwitch]; w.Write != nil || w.State != c.state {
					t.Errorf("done was %v, and the switch is %s: %s, %+v", done, w.State, w.Reason, w.Write)
				}
				if f := first(p, v1alpha1.FindingNotAdmitted); f.Severity != v1alpha1.SeverityError || !p.Holds(c.service) {
					t.Errorf("done was %v, and it finds %+v", done, p.Findings)
				}
			}
			if w := stepsOf(planned(""), c.object)[plan.VerbSwitch]; w.Write == nil {
				t.Errorf("nobody refuses it, and the switch is %s: %s", w.State, w.Reason)
			}
			p := planned(denied, confirmed, plan.VerbSwitch+" "+c.object)
			if w := stepsOf(p, c.object)[plan.VerbSwitch]; w.Write == nil || first(p, v1alpha1.FindingNotAdmitted).Severity != v1alpha1.SeverityWarning {
				t.Errorf("it was set, and is not mended: %s: %s; %+v", w.State, w.Reason, p.Findings)
			}
		})
	}
}
