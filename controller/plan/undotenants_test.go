package plan_test

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// leaving is a world that is undone, with both tenants wired; the second otherwise.
func leaving(t *testing.T, otherwise []string, more string) *plan.Snapshot {
	t.Helper()
	s := inTenants(t, strings.Replace(tenant, unwired, wired, 1), append([]string{unwired, wired}, otherwise...), more)
	now := metav1.Now()
	s.Edge.DeletionTimestamp, s.Edge.Finalizers = &now, []string{v1alpha1.Finalizer}
	return s
}

// TestOneTenantDoesNotStopUndo: what depends on the wiring of one holds back that, and the gateway's enrolment. The other is let go.
func TestOneTenantDoesNotStopUndo(t *testing.T) {
	for name, more := range map[string]string{
		"a policy for its Service":            atPods + `{targetRefs: [{kind: Service, group: "", name: orders}], rules: [{}]}}`,
		"a policy for its waypoint":           atPods + `{targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: waypoint}], rules: [{}]}}`,
		"a WasmPlugin for its Service":        `{apiVersion: extensions.istio.io/v1alpha1, kind: WasmPlugin, metadata: {name: p, namespace: NS}, spec: {url: x, targetRefs: [{kind: Service, group: "", name: orders}]}}`,
		"a WasmPlugin of the older form":      `{apiVersion: extensions.istio.io/v1alpha1, kind: WasmPlugin, metadata: {name: p, namespace: NS}, spec: {url: x, targetRef: {kind: Gateway, group: gateway.networking.k8s.io, name: waypoint}}}`,
		"a TrafficExtension for its waypoint": `{apiVersion: extensions.istio.io/v1alpha1, kind: TrafficExtension, metadata: {name: p, namespace: NS}, spec: {targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: waypoint}]}}`,
		"an EnvoyFilter for its waypoint":     `{apiVersion: networking.istio.io/v1alpha3, kind: EnvoyFilter, metadata: {name: p, namespace: NS}, spec: {targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: waypoint}]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			s := leaving(t, nil, more)
			p := plan.Make(s)
			if w := stepsOf(p, "Service a/orders")[plan.VerbUnwire]; w.Write == nil {
				t.Errorf("the other is not let go: %+v\n%+v", w, p.Findings)
			}
			if w := stepsOf(p, "Service b/orders")[plan.VerbUnwire]; w.State != v1alpha1.StepHeld || w.Write != nil || !strings.HasPrefix(w.Reason, v1alpha1.FindingUndoHalted) {
				t.Errorf("what depends on it is taken away: %+v", w)
			}
			if w := stepsOf(p, "Namespace edge")[plan.VerbUnenrol]; w.State != v1alpha1.StepLater {
				t.Errorf("the gateway leaves, and goes past the waypoint: %+v", w)
			}
			st := p.Status(s.Edge)
			if c := st.Conditions[0]; c.Reason != v1alpha1.ReasonUndoHalted || p.Done() {
				t.Errorf("Ready is %+v", c)
			}
			if by := backend(st, "b/orders").Held; len(by) != 1 || !strings.HasPrefix(by[0], v1alpha1.FindingUndoHalted+" ") {
				t.Errorf("the backend is held by %q", by)
			}
			s.Edge.Annotations = map[string]string{v1alpha1.AnnotationUndo: s.Edge.UndoConfirmation()}
			if w := stepsOf(plan.Make(s), "Service b/orders")[plan.VerbUnwire]; w.Write == nil {
				t.Errorf("it is confirmed, and %+v", w)
			}
		})
	}
}

// TestAForgedWaypointDoesNotHaltUndo: whoever may make a Gateway may have it look as if it were made by us, and its label lost.
func TestAForgedWaypointDoesNotHaltUndo(t *testing.T) {
	const forged = `{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: forged, namespace: NS, managedFields: [{manager: isthmus.dev/edge.public, operation: Update, fieldsType: FieldsV1, fieldsV1: {f:spec: {f:gatewayClassName: {}}}}]}, spec: {gatewayClassName: istio-waypoint}}`
	for name, c := range map[string]struct {
		more     string
		severity v1alpha1.Severity
	}{
		"where the namespace consents":        {forged, v1alpha1.SeverityError},
		"where it does not":                   {strings.ReplaceAll(forged, "NS", "c") + "\n---\n{apiVersion: v1, kind: Namespace, metadata: {name: c}}", v1alpha1.SeverityWarning},
		"a policy, where it does not consent": {`{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: isthmus-lock-x-00000000, namespace: c, managedFields: [{manager: isthmus.dev/edge.public, operation: Update, fieldsType: FieldsV1, fieldsV1: {f:spec: {f:action: {}}}}]}, spec: {action: DENY}}`, v1alpha1.SeverityWarning},
	} {
		t.Run(name, func(t *testing.T) {
			s := leaving(t, nil, c.more)
			p := plan.Make(s)
			for _, ns := range []string{"a", "b"} {
				if w := stepsOf(p, "Service "+ns+"/orders")[plan.VerbUnwire]; w.Write == nil {
					t.Errorf("Service %s/orders is not let go: %+v", ns, w)
				}
			}
			if f := first(p, v1alpha1.FindingUndoHalted); f.Severity != c.severity {
				t.Errorf("the finding is %+v", f)
			}
			for i := range s.Services {
				s.Services[i].Labels, s.Services[i].ManagedFields = nil, nil
			}
			p = plan.Make(s)
			if w := stepsOf(p, "Namespace edge")[plan.VerbUnenrol]; w.Write == nil {
				t.Errorf("the gateway is kept in the mesh: %+v", w)
			}
			outsideYet(s)
			if p = plan.Make(s); (p.Done() && !p.Wrong()) != (c.severity == v1alpha1.SeverityWarning) {
				t.Errorf("done: %t, an error: %t", p.Done(), p.Wrong())
			}
		})
	}
}

// TestALockThatLostItsLabelKeepsItsServiceWired: it would go on denying the gateway at the pods, to another Service of them too. One of other
// pods of its namespace is let go.
func TestALockThatLostItsLabelKeepsItsServiceWired(t *testing.T) {
	other := func(name, app string) string {
		return `{apiVersion: v1, kind: Service, metadata: {name: ` + name + `, namespace: NS, ` + strings.NewReplacer("NS", "NS-"+name, "app: orders", app).Replace(wired) + "\n---\n"
	}
	s := leaving(t, nil, other("stock", "app: stock")+other("by-pods", "tier: back")+other("by-labels", "app: orders, tier: none")+
		"{apiVersion: v1, kind: Pod, metadata: {name: orders-2, namespace: NS, labels: {app: orders, tier: back}}}\n---\n"+`{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: isthmus-lock-orders-a6cc6474, namespace: NS, managedFields: [{manager: isthmus.dev/edge.public, operation: Update, fieldsType: FieldsV1, fieldsV1: {f:spec: {f:action: {}}}}]}, spec: {action: DENY, selector: {matchLabels: {app: orders}}, rules: [{from: [{source: {principals: [cluster.local/ns/edge/sa/gateway]}}]}]}}`)
	for _, consents := range []bool{true, false} {
		if !consents {
			s.Namespaces[len(s.Namespaces)-1].Annotations = nil // that of the second tenant
		}
		p := plan.Make(s)
		for _, service := range []string{"Service b/orders", "Service b/by-pods", "Service b/by-labels"} {
			if w := stepsOf(p, service)[plan.VerbUnwire]; w.State != v1alpha1.StepLater || w.Write != nil {
				t.Errorf("consent: %t: %s is let go: %+v", consents, service, w)
			}
		}
		for _, service := range []string{"Service b/stock", "Service a/orders"} {
			if w := stepsOf(p, service)[plan.VerbUnwire]; w.Write == nil {
				t.Errorf("consent: %t: %s is not let go: %+v", consents, service, w)
			}
		}
	}
}

// TestARouteThatNobodyReportsOnIsNotLookedAtAgain, until a watch tells of it. Its finding says who should.
func TestARouteThatNobodyReportsOnIsNotLookedAtAgain(t *testing.T) {
	s := world(t, "route-without-report-keeps-what-is-wired")
	p := plan.Make(s)
	if p.Done() || p.Pending() {
		t.Errorf("done: %t, pending: %t", p.Done(), p.Pending())
	}
	s.Deployments = nil
	ns := gatewayv1.Namespace("edge")
	s.HTTPRoutes[0].Namespace, s.HTTPRoutes[0].Spec.ParentRefs[0].Namespace = "elsewhere", &ns
	text := describe(plan.Make(s), s.Edge)
	for _, want := range []string{"controller kgateway.dev/kgateway of its class kgateway should", "not seen to run in this cluster", "none of its listeners admits routes of namespace elsewhere"} {
		if !strings.Contains(text, want) {
			t.Errorf("no finding says %q:\n%s", want, text)
		}
	}
}

// TestWhatIsRefusedHoldsBackWhatDependsOnIt: a write of one backend, or of undo, and one of the edge itself.
func TestWhatIsRefusedHoldsBackWhatDependsOnIt(t *testing.T) {
	refused := func(w *plan.Write) v1alpha1.Finding {
		return v1alpha1.Finding{Code: v1alpha1.FindingRefused, Severity: v1alpha1.SeverityError, Object: w.String(), Message: "no"}
	}
	writeOf := func(p *plan.Plan, object string) *plan.Write {
		for _, w := range p.Ahead() {
			if w.String() == object {
				return w
			}
		}
		t.Fatalf("nothing is written to %s", object)
		return nil
	}
	s := inTenants(t, tenant, nil, "")
	p := plan.Make(s)
	w := writeOf(p, "Service b/orders")
	if !p.Apart(w) || p.Alone(w) {
		t.Errorf("apart: %t, alone: %t", p.Apart(w), p.Alone(w))
	}
	p.Hold(w, refused(w))
	p.Hold(w, refused(w)) // again is no more
	held(t, p, p.Status(s.Edge), v1alpha1.FindingRefused)
	if got := p.Writes(); len(got) != 1 || got[0].String() != "Service a/orders" {
		t.Errorf("written is %v", got)
	}
	w = writeOf(p, "Service a/orders")
	if !p.Alone(w) {
		t.Error("there is another backend to go on with")
	}
	p.Hold(w, refused(w))
	if c := p.Status(s.Edge).Conditions[0]; c.Reason != v1alpha1.ReasonBlocked || !p.Blocked() {
		t.Errorf("Ready is %+v", c)
	}

	p = plan.Make(s)
	f := refused(writeOf(p, "Service b/orders"))
	p.Hold(writeOf(p, "Service b/orders"), f)
	if p.Stop(f); !p.Blocked() || len(p.Writes()) > 0 {
		t.Errorf("what held one back stops all, and written is %v", p.Writes())
	}

	outsideYet(s)
	p = plan.Make(s)
	w = writeOf(p, "Namespace edge")
	if p.Apart(w) {
		t.Error("the enrolment of the gateway is one backend's")
	}
	if p.Hold(w, refused(w)); len(p.Writes()) > 0 || !p.Blocked() {
		t.Errorf("written is %v", p.Writes())
	}

	p = plan.Make(leaving(t, nil, ""))
	w = writeOf(p, "Service b/orders")
	p.Hold(w, refused(w))
	if got := p.Writes(); len(got) != 1 || got[0].String() != "Service a/orders" {
		t.Errorf("written is %v", got)
	}
	if u := stepsOf(p, "Namespace edge")[plan.VerbUnenrol]; u.State != v1alpha1.StepLater {
		t.Errorf("the gateway leaves: %+v", u)
	}
}
