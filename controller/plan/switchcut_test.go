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

// TestWhoConsentsInPartIsToldOfASwitch: his Service leads to a waypoint of his own, which the gateway goes past until a switch is set for it as a whole.
func TestWhoConsentsInPartIsToldOfASwitch(t *testing.T) {
	const (
		grant   = "---\n{apiVersion: gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, metadata: {name: edges, namespace: b}, spec: {from: [{group: isthmus.dev, kind: AmbientEdge, namespace: edge}], to: [{group: \"\", kind: Service}]}}\n"
		policy  = "---\n{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: p, namespace: b}, spec: {action: DENY, "
		gateway = `rules: [{from: [{source: {principals: [cluster.local/ns/envoy-gateway-system/sa/envoy-edge-http-c2728516]}}]}]}}`
		theirs  = `rules: [{from: [{source: {principals: [cluster.local/ns/b/sa/theirs]}}]}]}}`
		service = `targetRefs: [{kind: Service, group: "", name: stock}], `
		led     = `labels: {istio.io/use-waypoint: theirs}}, spec: {selector: {app: stock}, clusterIP: "10.96.0.8"}, status: {conditions: [{type: istio.io/WaypointBound, status: "True"}]}}`
		set     = "---\n{apiVersion: gateway.envoyproxy.io/v1alpha1, kind: BackendTrafficPolicy, metadata: {name: theirs, namespace: edge}, spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: http}], routingType: Service}}\n"
	)
	for name, c := range map[string]struct {
		more, led, where string // where it is refused; empty: nowhere
	}{
		"its waypoint denies the gateway":                     {policy + service + gateway, led, "at waypoint b/theirs, requests of Gateway edge/http to Service b/stock"},
		"its pods deny its waypoint":                          {policy + theirs, led, "at its pods, requests of Gateway edge/http to Service b/stock"},
		"its waypoint denies another":                         {policy + service + theirs, led, ""},
		"its pods deny the gateway, now as then":              {policy + gateway, led, ""},
		"it leads to no waypoint":                             {policy + service + gateway, `labels: {istio.io/use-waypoint: theirs}}, spec: {selector: {app: stock}, clusterIP: "10.96.0.8"}}`, ""},
		"the gateway goes there already, and was turned away": {policy + service + gateway + "\n" + set, led, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := snapshot(t, golden(t, "gateway-switch-beside-a-silent-waypoint",
				"waypoint: {policy: Use, name: waypoint}", "waypoint: {policy: Create, name: waypoint}",
				`{name: b, labels: {istio.io/dataplane-mode: ambient}, annotations: {isthmus.dev/edges: edge/public}}`, `{name: b, labels: {istio.io/dataplane-mode: ambient}}`,
				`{name: waypoint, namespace: b, `, `{name: theirs, namespace: b, `, `test/why: "connection refused"`, `test/answers: "yes"`,
				`{name: stock, namespace: b, uid: s2}, spec: {selector: {app: stock}, clusterIP: "10.96.0.8"}}`, `{name: stock, namespace: b, uid: s2, `+c.led,
			)+grant+c.more)
			p := plan.Make(s)
			list := said(p, v1alpha1.FindingNotAdmitted)
			if c.where == "" {
				if len(list) > 0 {
					t.Errorf("it finds %+v", list)
				}
				return
			}
			if len(list) != 1 || list[0].Severity != v1alpha1.SeverityWarning || !strings.HasPrefix(list[0].Message, c.where+" are let through now, and will be refused when it sends to Services' addresses") {
				t.Errorf("it finds %+v", p.Findings)
			}
			if w := stepsOf(p, "BackendTrafficPolicy edge/isthmus-http")[plan.VerbSwitch]; w.Write == nil {
				t.Errorf("the switch is %s: %s", w.State, w.Reason)
			}
		})
	}
}
