package plan_test

import (
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// tenantsWorld is a gateway in the mesh before the Services of two tenants, in namespaces a and b. Tests replace what is in it.
const tenantsWorld = `
apiVersion: isthmus.dev/v1alpha1
kind: AmbientEdge
metadata: {name: public, namespace: edge}
spec:
  workloadRefs: [{kind: Deployment, name: gateway}]
  mode: Manage
  backends: {services: [{namespace: a, name: orders}, {namespace: b, name: orders}]}
  waypoint: {policy: Use, name: waypoint}
---
{apiVersion: v1, kind: Namespace, metadata: {name: edge, uid: n1, labels: {istio.io/dataplane-mode: ambient}, managedFields: [{manager: isthmus.dev/edge.public, operation: Apply, fieldsType: FieldsV1, fieldsV1: {f:metadata: {f:labels: {f:istio.io/dataplane-mode: {}}}}}]}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: gateway, namespace: edge}, spec: {selector: {matchLabels: {app: gateway}}, template: {metadata: {labels: {app: gateway}}}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: gateway-1, namespace: edge, labels: {app: gateway}, annotations: {ambient.istio.io/redirection: enabled}}, spec: {serviceAccountName: gateway}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: istio-waypoint}, spec: {controllerName: istio.io/mesh-controller}}
`

// tenant is what there is of one, as NS.
const tenant = `---
{apiVersion: v1, kind: Namespace, metadata: {name: NS, labels: {istio.io/dataplane-mode: ambient}, annotations: {isthmus.dev/edges: "edge/public"}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: orders-1, namespace: NS, labels: {app: orders}, annotations: {ambient.istio.io/redirection: enabled}}, spec: {serviceAccountName: orders}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: waypoint, namespace: NS, uid: w-NS, labels: {istio.io/waypoint-for: service}, annotations: {test/answers: "yes"}}, spec: {gatewayClassName: istio-waypoint}, status: {addresses: [{value: 10.96.0.9}], conditions: [{type: Programmed, status: "True"}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: orders, namespace: NS, uid: s-NS}, spec: {clusterIP: 10.96.0.1, selector: {app: orders}, ports: [{port: 80}]}}
`

// wired is what becomes of its Service.
const (
	unwired = `uid: s-NS}, spec: {clusterIP: 10.96.0.1, selector: {app: orders}, ports: [{port: 80}]}}`
	wired   = `uid: s-NS, labels: {istio.io/use-waypoint: waypoint}, managedFields: [{manager: isthmus.dev/edge.public, operation: Apply, fieldsType: FieldsV1, fieldsV1: {f:metadata: {f:labels: {f:istio.io/use-waypoint: {}}}}}]},
 spec: {clusterIP: 10.96.0.1, selector: {app: orders}, ports: [{port: 80}]}, status: {conditions: [{type: istio.io/WaypointBound, status: "True"}]}}`
)

// inTenants is a world whose second tenant is otherwise: pairs of texts in place of others, and objects beside. NS is its namespace.
func inTenants(t *testing.T, first string, otherwise []string, more string) *plan.Snapshot {
	t.Helper()
	second := tenant
	for i := 0; i+1 < len(otherwise); i += 2 {
		if !strings.Contains(second, otherwise[i]) {
			t.Fatalf("there is no %q", otherwise[i])
		}
		second = strings.ReplaceAll(second, otherwise[i], otherwise[i+1])
	}
	if more != "" {
		second += "---\n" + more + "\n"
	}
	return snapshot(t, tenantsWorld+strings.ReplaceAll(first, "NS", "a")+strings.ReplaceAll(second, "NS", "b"))
}

// fault is something that is wrong with one tenant.
type fault struct {
	code      string
	otherwise []string
	more      string
	spec      func(e *v1alpha1.AmbientEdge)
}

const atPods = `{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: p, namespace: NS}, spec: `

func creates(e *v1alpha1.AmbientEdge) { e.Spec.Waypoint.Policy = v1alpha1.WaypointCreate }

func faults() map[string]fault {
	return map[string]fault{
		"its Service is headless":                    {code: v1alpha1.FindingHeadless, otherwise: []string{"clusterIP: 10.96.0.1", "clusterIP: None"}},
		"its Service is a name":                      {code: v1alpha1.FindingHeadless, otherwise: []string{"clusterIP: 10.96.0.1", "type: ExternalName, externalName: x"}},
		"its Service is not there":                   {code: v1alpha1.FindingNoBackend, otherwise: []string{"metadata: {name: orders, namespace: NS, uid: s-NS}", "metadata: {name: another, namespace: NS, uid: s-NS}"}},
		"its waypoint is not there":                  {code: v1alpha1.FindingNoWaypoint, otherwise: []string{"name: waypoint, namespace: NS", "name: another, namespace: NS"}},
		"its waypoint is for workloads":              {code: v1alpha1.FindingNoWaypoint, otherwise: []string{"waypoint-for: service", "waypoint-for: workload"}},
		"its waypoint is of a class of others":       {code: v1alpha1.FindingForeignValue, otherwise: []string{"gatewayClassName: istio-waypoint", "gatewayClassName: nginx"}, spec: creates},
		"no waypoint is named":                       {code: v1alpha1.FindingNoWaypoint, spec: func(e *v1alpha1.AmbientEdge) { e.Spec.Waypoint.Name = "" }},
		"a policy at its pods would be void":         {code: v1alpha1.FindingVoided, more: atPods + `{action: DENY, rules: [{from: [{source: {principals: [cluster.local/ns/batch/sa/job]}}]}]}}`},
		"a policy at its pods knows no waypoint":     {code: v1alpha1.FindingVoided, more: atPods + `{rules: [{from: [{source: {principals: [cluster.local/ns/edge/sa/gateway]}}]}]}}`},
		"a policy at its waypoint refuses":           {code: v1alpha1.FindingNotAdmitted, more: atPods + `{targetRefs: [{kind: Service, group: "", name: orders}], rules: [{from: [{source: {principals: [cluster.local/ns/batch/sa/job]}}]}]}}`},
		"a policy of the waypoint it leaves ends":    {code: v1alpha1.FindingPathChange, otherwise: []string{"istio.io/dataplane-mode: ambient}", "istio.io/dataplane-mode: ambient, istio.io/use-waypoint: theirs}"}, more: "{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: theirs, namespace: NS}, spec: {gatewayClassName: istio-waypoint}}\n---\n" + atPods + `{action: DENY, targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: theirs}], rules: [{from: [{source: {namespaces: [batch]}}]}]}}`},
		"somebody leads its Service elsewhere":       {code: v1alpha1.FindingForeignValue, otherwise: []string{"uid: s-NS}", `uid: s-NS, labels: {istio.io/use-waypoint: theirs}, managedFields: [{manager: helm, operation: Update, fieldsType: FieldsV1, fieldsV1: {f:metadata: {f:labels: {f:istio.io/use-waypoint: {}}}}}]}`}},
		"its waypoint is silent":                     {otherwise: []string{`test/answers: "yes"`, `test/why: "connection refused"`}},
		"its waypoint is not programmed":             {otherwise: []string{`conditions: [{type: Programmed, status: "True"}]`, "conditions: []"}},
		"its waypoint is to be made, and is not yet": {otherwise: []string{"name: waypoint, namespace: NS", "name: another, namespace: NS"}, spec: creates},
	}
}

// TestOneTenantDoesNotStopAnother: whatever is wrong with one backend, the other is wired as if it were alone, stays so, and is mended.
func TestOneTenantDoesNotStopAnother(t *testing.T) {
	for name, f := range faults() {
		t.Run(name, func(t *testing.T) {
			planned := func(first string) (*plan.Plan, v1alpha1.AmbientEdgeStatus) {
				s := inTenants(t, first, f.otherwise, f.more)
				if f.spec != nil {
					f.spec(s.Edge)
				}
				if name == "no waypoint is named" {
					s.Namespaces[1].Labels[plan.LabelUseWaypoint] = "waypoint"
					s.Services[0].Labels, s.Services[0].ManagedFields = nil, nil
				}
				asked(s)
				p := plan.Make(s)
				return p, p.Status(s.Edge)
			}
			p, st := planned(tenant)
			first := stepsOf(p, "Service a/orders")
			if w := first[plan.VerbWire]; w.State != v1alpha1.StepNext && w.State != v1alpha1.StepDone || w.State == v1alpha1.StepNext && w.Write == nil {
				t.Errorf("the other's Service is not led to its waypoint: %+v\n%+v", w, p.Findings)
			}
			second := stepsOf(p, "Service b/orders")
			for verb, s := range second {
				if s.Write != nil {
					t.Errorf("%s of the Service that is held back is written", verb)
				}
			}
			if f.code != "" {
				held(t, p, st, f.code)
			}

			p, st = planned(strings.Replace(tenant, unwired, wired, 1))
			for verb, s := range stepsOf(p, "Service a/orders") {
				if s.State != v1alpha1.StepDone && verb != plan.VerbLock {
					t.Errorf("what was wired is %s: %s", s.State, s.Reason)
				}
			}
			if path := backend(st, "a/orders").Path; path != "gateway > waypoint a/waypoint > pods of a/orders" {
				t.Errorf("the path is %q", path)
			}
			if c := meta.FindStatusCondition(st.Conditions, v1alpha1.ConditionReady); c.Status == "True" {
				t.Errorf("Ready is %+v", c)
			}
		})
	}
}

// asked has the waypoints of Services serve them.
func asked(s *plan.Snapshot) {
	s.Served = map[types.NamespacedName]plan.WaypointFact{}
	for _, q := range plan.ServicesToAsk(s) {
		s.Served[types.NamespacedName{Namespace: q.Service.Namespace, Name: q.Service.Name}] = plan.WaypointFact{Answers: true}
	}
	s.Shown = map[types.NamespacedName]plan.WitnessFact{}
	for _, q := range plan.WitnessesToAsk(s) {
		s.Shown[q.Waypoint] = plan.WitnessFact{WaypointFact: plan.WaypointFact{Answers: true}, Path: q.Path}
	}
}

// held looks for the second tenant's Service as held back by a finding, and for what the status tells of that.
func held(t *testing.T, p *plan.Plan, st v1alpha1.AmbientEdgeStatus, code string) {
	t.Helper()
	if p.Blocked() || !p.Wrong() {
		t.Errorf("blocked: %t, an error: %t", p.Blocked(), p.Wrong())
	}
	c := meta.FindStatusCondition(st.Conditions, v1alpha1.ConditionReady)
	if c.Reason != v1alpha1.ReasonHeld || !strings.Contains(c.Message, "1 of 2 backends is held back") || !strings.Contains(c.Message, "Service b/orders ("+code+")") {
		t.Errorf("Ready is %s: %s", c.Reason, c.Message)
	}
	if by := backend(st, "b/orders").Held; len(by) == 0 || !strings.HasPrefix(by[0], code+" ") {
		t.Errorf("backend b/orders is held by %q", by)
	}
	if by := backend(st, "a/orders").Held; len(by) > 0 {
		t.Errorf("backend a/orders is held by %q", by)
	}
	for _, s := range p.Steps {
		if s.State == v1alpha1.StepHeld && !strings.HasPrefix(s.Reason, code) {
			t.Errorf("%s is held, as %q", s.ID, s.Reason)
		}
	}
}

func stepsOf(p *plan.Plan, object string) map[string]plan.Step {
	list := map[string]plan.Step{}
	for _, s := range p.Steps {
		if s.Object == object {
			list[s.Verb] = s
		}
	}
	return list
}

func backend(st v1alpha1.AmbientEdgeStatus, service string) v1alpha1.BackendStatus {
	if i := slices.IndexFunc(st.Backends, func(b v1alpha1.BackendStatus) bool { return b.Service == service }); i >= 0 {
		return st.Backends[i]
	}
	return v1alpha1.BackendStatus{}
}
