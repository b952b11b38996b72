package plan_test

import (
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// stock is a second Service of the second tenant, for the edge to send to.
const stock = `{apiVersion: v1, kind: Service, metadata: {name: stock, namespace: NS, uid: s-stock}, spec: {clusterIP: 10.96.0.2, selector: {app: stock}, ports: [{port: 80}]}}
---
`

// TestAWarningDoesNotHideAnError: one policy refuses the gateway at a Service that is wired since long, and at one that is to be.
func TestAWarningDoesNotHideAnError(t *testing.T) {
	s := inTenants(t, tenant, []string{unwired, wired}, stock+
		atPods+`{action: DENY, targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: waypoint}], rules: [{from: [{source: {principals: [cluster.local/ns/edge/sa/gateway]}}]}]}}`)
	s.Edge.Spec.Backends.Services = append(s.Edge.Spec.Backends.Services, v1alpha1.ServiceRef{Namespace: "b", Name: "stock"})
	s.Edge.Status.Plan.Steps = []v1alpha1.Step{{ID: plan.VerbConfirm + " Service b/orders", State: v1alpha1.StepDone}}
	asked(s)
	p := plan.Make(s)
	list := said(p, v1alpha1.FindingNotAdmitted)
	if len(list) != 2 || list[0].Severity != v1alpha1.SeverityError || !strings.Contains(list[0].Message, "b/stock") || list[1].Severity != v1alpha1.SeverityWarning {
		t.Errorf("it finds %+v", list)
	}
	if w := stepsOf(p, "Service b/stock")[plan.VerbWire]; w.State != v1alpha1.StepHeld || w.Write != nil {
		t.Errorf("it is wired: %+v", w)
	}
	if p.Blocked() || !p.Holds("b/stock") || p.Holds("b/orders") {
		t.Errorf("blocked: %t", p.Blocked())
	}
}
