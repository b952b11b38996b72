package controllertest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// secondTenant is another namespace behind the gateway of kgatewayWorld, whose Service is headless.
const secondTenant = `
{apiVersion: v1, kind: Namespace, metadata: {name: SHOP-second, labels: {istio.io/dataplane-mode: ambient}, annotations: {isthmus.dev/edges: EDGE/public}}}
---
{apiVersion: v1, kind: Service, metadata: {name: stock, namespace: SHOP-second}, spec: {clusterIP: None, selector: {app: stock}, ports: [{name: http, port: 80}]}}
`

const edgeOfTenants = `
apiVersion: isthmus.dev/v1alpha1
kind: AmbientEdge
metadata: {name: public, namespace: EDGE}
spec:
  targetRefs: [{name: http}]
  mode: Manage
  backends: {services: [{namespace: SHOP, name: orders}, {namespace: SHOP-second, name: stock}]}
  waypoint: {policy: Create, name: waypoint}
`

// stock is the Service of the second tenant.
func (s *site) stock() *corev1.Service {
	s.t.Helper()
	o := &corev1.Service{}
	if err := s.c.Get(s.t.Context(), types.NamespacedName{Namespace: s.shop + "-second", Name: "stock"}, o); err != nil {
		s.t.Fatal(err)
	}
	return o
}

// heldBy waits until the second tenant, and nobody else, is held back by a finding of a code, and the first is wired to the end.
func (s *site) heldBy(code string) *v1alpha1.AmbientEdge {
	s.t.Helper()
	var e *v1alpha1.AmbientEdge
	s.wait("the second tenant is held back by "+code+", and the first wired", func() string {
		e = s.get("public")
		c := meta.FindStatusCondition(e.Status.Conditions, v1alpha1.ConditionReady)
		if c == nil || c.Status != metav1.ConditionFalse || c.Reason != v1alpha1.ReasonHeld || !strings.Contains(c.Message, "1 of 2 backends is held back") || !strings.Contains(c.Message, "Service "+s.shop+"-second/stock ("+code) {
			return "Ready is not so: " + fmt.Sprintf("%+v", e.Status)
		}
		for _, b := range e.Status.Backends {
			if second := b.Service == s.shop+"-second/stock"; second && (len(b.Held) == 0 || !strings.HasPrefix(b.Held[0], code+" ")) || !second && len(b.Held) > 0 {
				return "backends are not: " + fmt.Sprintf("%+v", e.Status.Backends)
			}
		}
		for _, step := range e.Status.Plan.Steps {
			if step.State != v1alpha1.StepDone && !strings.Contains(step.Object, s.shop+"-second/") {
				return step.ID + " is " + string(step.State)
			}
		}
		return ""
	})
	if f := finding(e, code); f == nil || f.Severity != v1alpha1.SeverityError {
		s.t.Errorf("findings are %+v", e.Status.Findings)
	}
	return e
}

// TestOneTenantDoesNotStopAnother: a gateway serves two namespaces. The faults of the second, one after the other, do not keep the first from being wired,
// mended and undone; each is in the status, and heals when the second mends it.
func TestOneTenantDoesNotStopAnother(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "tenants")
	s.apply(secondTenant)
	before := s.state(false)

	s.apply(edgeOfTenants)
	e := s.heldBy(v1alpha1.FindingHeadless)
	i := slices.IndexFunc(e.Status.Backends, func(b v1alpha1.BackendStatus) bool { return b.Service == s.shop+"/orders" })
	if i < 0 || e.Status.Backends[i].Path != "gateway > waypoint "+s.shop+"/waypoint > pods of "+s.shop+"/orders" {
		t.Errorf("backends are %+v", e.Status.Backends)
	}
	if l := s.stock().Labels; l[plan.LabelUseWaypoint] != "" {
		t.Errorf("the Service that is held back has labels %v", l)
	}
	s.told("public", "Warning Held "+v1alpha1.FindingHeadless)
	s.unlabel("kubectl")
	t.Logf("while the second is held back, the first is mended after %v", s.rewired())
	s.heldBy(v1alpha1.FindingHeadless)

	// The second gives its Service an address.
	s.delete(s.stock())
	s.apply(strings.Replace(secondTenant, "clusterIP: None, ", "", 1))
	s.ready("public", v1alpha1.ReasonDone)
	if l := s.stock().Labels; l[plan.LabelUseWaypoint] != "waypoint" {
		t.Errorf("the Service that was mended has labels %v", l)
	}

	// An admission policy of the second's namespace refuses what is written there.
	name := s.edge + "-frozen"
	s.apply(`{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicy, metadata: {name: EDGE-frozen}, spec: {failurePolicy: Fail, matchConstraints: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: SHOP-second}}, resourceRules: [{apiGroups: [""], apiVersions: [v1], resources: [services], operations: [UPDATE]}]}, validations: [{expression: "!has(object.metadata.labels) || !('istio.io/use-waypoint' in object.metadata.labels)", message: "frozen"}]}}
---
{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicyBinding, metadata: {name: EDGE-frozen}, spec: {policyName: EDGE-frozen, validationActions: [Deny]}}`)
	thaw := func() {
		for _, kind := range []string{"ValidatingAdmissionPolicyBinding", "ValidatingAdmissionPolicy"} {
			s.delete(object("admissionregistration.k8s.io/v1", kind, "", name))
		}
	}
	defer thaw()
	take := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"istio.io/use-waypoint":null}}}`))
	frozen := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"istio.io/use-waypoint":"x"}}}`))
	s.wait("the API server knows the policy", func() string {
		if s.c.Patch(t.Context(), s.stock(), frozen, client.DryRunAll) == nil {
			return "it lets writes through"
		}
		return ""
	})
	if err := s.c.Patch(t.Context(), s.stock(), take); err != nil {
		t.Fatal(err)
	}
	s.heldBy(v1alpha1.FindingRefused)
	s.wait("the first's Service is not fought about", func() string { // the label came back once already
		patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"test/round":"second"}}}`))
		if err := s.c.Patch(t.Context(), s.theEdge("public"), patch); err != nil {
			return err.Error()
		}
		return ""
	})
	s.unlabel("kubectl")
	t.Logf("while a write to the second's is refused, the first is mended after %v", s.rewired())
	s.heldBy(v1alpha1.FindingRefused)
	thaw()
	s.ready("public", v1alpha1.ReasonDone) // it is asked again by itself

	// A policy depends on the second's waypoint. The first is undone, and the gateway stays in the mesh for the second.
	s.apply(`{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: callers, namespace: SHOP-second}, spec: {targetRefs: [{kind: Service, group: "", name: stock}], rules: [{}]}}`)
	s.delete(s.theEdge("public"))
	s.ready("public", v1alpha1.ReasonUndoHalted)
	s.gone(s.wayPoint())
	if l := s.service("orders").Labels; len(l) != 1 {
		t.Errorf("the first's Service has labels %v", l)
	}
	time.Sleep(500 * time.Millisecond) // two rounds of a controller that would go on
	g := &gatewayv1.Gateway{}
	if err := s.c.Get(t.Context(), types.NamespacedName{Namespace: s.edge, Name: "http"}, g); err != nil {
		t.Fatal(err)
	}
	if l := s.stock().Labels; l[plan.LabelUseWaypoint] != "waypoint" || g.Spec.Infrastructure == nil || g.Spec.Infrastructure.Labels[plan.LabelDataplaneMode] != "ambient" {
		t.Errorf("the second's Service has labels %v, and the gateway %+v", l, g.Spec.Infrastructure)
	}
	s.delete(object("security.istio.io/v1", "AuthorizationPolicy", s.shop+"-second", "callers"))
	s.gone(s.theEdge("public"))
	now := s.state(false)
	for _, key := range []string{"Service " + s.shop + "-second/stock", "Service " + s.shop + "/orders"} { // they have another address, and the mark of unlabel
		delete(before, key)
		delete(now, key)
	}
	if d := cmp.Diff(before, now); d != "" {
		t.Errorf("objects differ (-before +after):\n%s", d)
	}
}
