package controllertest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/controller/run"
)

const policy = `
{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: only-public, namespace: SHOP},
 spec: {targetRefs: [{group: "GROUP", kind: KIND, name: NAME}], action: ALLOW, rules: [{to: [{operation: {methods: [GET]}}]}]}}
`

func TestUndoHaltsForPolicies(t *testing.T) {
	t.Parallel()
	for name, target := range map[string]*strings.Replacer{
		"service":  strings.NewReplacer("GROUP", "", "KIND", "Service", "NAME", "orders"),
		"waypoint": strings.NewReplacer("GROUP", "gateway.networking.k8s.io", "KIND", "Gateway", "NAME", "waypoint"),
	} {
		t.Run(name, func(t *testing.T) {
			s := kgatewaySite(t, "halt-"+name)
			before := s.state(false)
			s.apply(edgeOfKgateway)
			s.ready("public", v1alpha1.ReasonDone)
			s.apply(target.Replace(policy))
			wired := s.state(true)
			s.delete(s.theEdge("public"))
			e, _ := s.ready("public", v1alpha1.ReasonUndoHalted)
			f := finding(e, v1alpha1.FindingUndoHalted)
			if f == nil || !strings.Contains(f.Message, s.shop+"/only-public") || !strings.Contains(f.Fix, "isthmus.dev/undo=confirmed-"+string(e.UID)+" ") {
				t.Errorf("findings are %+v", e.Status.Findings)
			}
			if g, b := e.Status.Gateways, e.Status.Backends; len(g) != 1 || g[0].Captured != 1 || len(b) != 1 || b[0].Waypoint != s.shop+"/waypoint" {
				t.Errorf("while it is halted, gateways are %+v and backends %+v", g, b)
			}
			time.Sleep(500 * time.Millisecond) // it must not go on by itself
			s.same(wired, true)

			s.confirm("public")
			s.gone(s.theEdge("public"))
			s.delete(object("security.istio.io/v1", "AuthorizationPolicy", s.shop, "only-public"))
			s.same(before, false)
		})
	}
}

// TestAConfirmationIsForOneAmbientEdge: what is made again from the manifest of before, with its annotations, halts as any other.
func TestAConfirmationIsForOneAmbientEdge(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "confirmed")
	s.apply(edgeOfKgateway)
	s.ready("public", v1alpha1.ReasonDone)
	s.apply(strings.NewReplacer("GROUP", "", "KIND", "Service", "NAME", "orders").Replace(policy))
	s.delete(s.theEdge("public"))
	s.ready("public", v1alpha1.ReasonUndoHalted)
	s.confirm("public")
	said := s.get("public").UndoConfirmation()
	s.gone(s.theEdge("public"))

	s.apply(strings.Replace(edgeOfKgateway, "namespace: EDGE}", "namespace: EDGE, annotations: {isthmus.dev/undo: "+said+"}}", 1))
	s.ready("public", v1alpha1.ReasonDone)
	wired := s.state(true)
	s.delete(s.theEdge("public"))
	e, _ := s.ready("public", v1alpha1.ReasonUndoHalted)
	if f := finding(e, v1alpha1.FindingUndoHalted); f == nil || !strings.Contains(f.Message, "does not confirm the undo of this AmbientEdge") ||
		!strings.Contains(f.Fix, "annotate --overwrite ambientedge -n "+s.edge+" public isthmus.dev/undo="+e.UndoConfirmation()) {
		t.Errorf("findings are %+v", e.Status.Findings)
	}
	time.Sleep(500 * time.Millisecond) // it must not go on by itself
	s.same(wired, true)
	s.confirm("public")
	s.gone(s.theEdge("public"))
}

// TestAWaypointThatLostItsLabelIsNotLeftInSilence: it was made for the edge, and nothing tells so any more but who made it.
func TestAWaypointThatLostItsLabelIsNotLeftInSilence(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "label")
	before := s.state(false)
	s.apply(edgeOfKgateway)
	s.ready("public", v1alpha1.ReasonDone)
	s.merge(s.wayPoint(), `{"metadata":{"labels":{"isthmus.dev/owner":null}}}`)
	s.delete(s.theEdge("public"))
	e, _ := s.ready("public", v1alpha1.ReasonUndoHalted)
	command := "kubectl label gateway -n " + s.shop + " waypoint isthmus.dev/owner=" + e.Owner()
	if f := finding(e, v1alpha1.FindingUndoHalted); f == nil || f.Object != "Gateway "+s.shop+"/waypoint" || !strings.Contains(f.Message, command) {
		t.Errorf("findings are %+v", e.Status.Findings)
	}
	time.Sleep(500 * time.Millisecond) // it must not go on by itself
	s.get("public")
	s.merge(s.wayPoint(), `{"metadata":{"labels":{"isthmus.dev/owner":"`+e.Owner()+`"}}}`)
	s.gone(s.theEdge("public"))
	s.same(before, false)
}

func TestUndoGoesOnWhenThePolicyIsGone(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "freed")
	before := s.state(false)
	s.apply(edgeOfKgateway)
	s.ready("public", v1alpha1.ReasonDone)
	s.apply(strings.NewReplacer("GROUP", "", "KIND", "Service", "NAME", "orders").Replace(policy))
	s.delete(s.theEdge("public"))
	s.ready("public", v1alpha1.ReasonUndoHalted)
	s.delete(object("security.istio.io/v1", "AuthorizationPolicy", s.shop, "only-public"))
	s.gone(s.theEdge("public"))
	s.same(before, false)
}

// TestAFinalizerTakenOffIsObeyed: after a halt that is a decision. What was written stays, whatever happens to that name later.
func TestAFinalizerTakenOffIsObeyed(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "forced")
	s.apply(edgeOfKgateway)
	s.ready("public", v1alpha1.ReasonDone)
	s.apply(strings.NewReplacer("GROUP", "", "KIND", "Service", "NAME", "orders").Replace(policy))
	s.delete(s.theEdge("public"))
	e, _ := s.ready("public", v1alpha1.ReasonUndoHalted)
	if err := s.c.Patch(t.Context(), e, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))); err != nil {
		t.Fatal(err)
	}
	s.gone(s.theEdge("public"))
	s.delete(object("security.istio.io/v1", "AuthorizationPolicy", s.shop, "only-public"))
	before := s.state(true)
	// An edge that only looks has the controller look at the name again.
	s.apply(strings.Replace(edgeOfKgateway, "mode: Manage", "mode: Observe", 1))
	s.ready("public", v1alpha1.ReasonDone)
	s.delete(s.theEdge("public"))
	s.gone(s.theEdge("public"))
	time.Sleep(time.Second) // nothing must happen
	s.same(before, true)
}

func TestKeepLeavesEverything(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "keep")
	s.apply(edgeOfKgateway + "  onDelete: Keep\n")
	s.ready("public", v1alpha1.ReasonDone)
	before := s.state(false)
	s.delete(s.theEdge("public"))
	s.gone(s.theEdge("public"))
	key := "Gateway " + s.shop + "/waypoint"
	owner := fmt.Sprintf("%q: %q,\n", v1alpha1.LabelOwner, s.edge+".public")
	kept := strings.Replace(before[key], owner, "", 1)
	if kept == before[key] {
		t.Fatalf("there is no %s in %s", owner, kept)
	}
	before[key] = kept
	drop := strings.NewReplacer(" ", "") // what is left of the label's line
	after := s.state(false)
	before[key], after[key] = drop.Replace(kept), drop.Replace(after[key])
	if d := cmp.Diff(before, after); d != "" {
		t.Errorf("objects differ (-before +after):\n%s", d)
	}
	for name, text := range s.state(true) {
		if strings.Contains(text, v1alpha1.FieldOwnerPrefix+s.edge) {
			t.Errorf("%s is held still: %s", name, text[strings.LastIndex(text, "}"):])
		}
	}
	if f := s.service("orders").ManagedFields; !slices.ContainsFunc(f, func(f metav1.ManagedFieldsEntry) bool { return f.Manager == v1alpha1.KeptOwner }) {
		t.Errorf("the Service's labels are held by %v", f)
	}

	// Another edge of that name does not get what is nobody's, even with a finalizer that makes its deletion an undo.
	again := s.theEdge("public")
	again.Finalizers = []string{v1alpha1.Finalizer}
	again.Spec.TargetRefs = []v1alpha1.TargetRef{{Name: "http"}}
	if err := s.c.Create(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	s.delete(s.theEdge("public"))
	s.gone(s.theEdge("public"))
	if d := cmp.Diff(after[key], drop.Replace(s.state(false)[key])); d != "" {
		t.Errorf("the waypoint differs (-before +after):\n%s", d)
	}
	if len(s.service("orders").Labels) != 3 {
		t.Errorf("labels are %v", s.service("orders").Labels)
	}
}

func TestAServiceMayLeaveTheSpec(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "leave")
	s.apply(`{apiVersion: v1, kind: Service, metadata: {name: bills, namespace: SHOP}, spec: {selector: {app: orders}, ports: [{port: 80}]}}`)
	before := s.state(false)
	with := func(services string) string {
		return edgeOfKgateway + "  backends: {services: [" + services + "]}\n"
	}
	s.apply(with("{namespace: SHOP, name: orders}, {namespace: SHOP, name: bills}"))
	s.ready("public", v1alpha1.ReasonDone)
	if len(s.service("bills").Labels) != 2 {
		t.Errorf("labels are %v", s.service("bills").Labels)
	}
	s.apply(with("{namespace: SHOP, name: orders}"))
	s.ready("public", v1alpha1.ReasonDone)
	s.wait("the labels are gone", func() string {
		if len(s.service("bills").Labels) == 0 {
			return ""
		}
		return "they are there"
	})
	if len(s.service("orders").Labels) != 3 {
		t.Errorf("labels are %v", s.service("orders").Labels)
	}
	s.delete(s.theEdge("public"))
	s.gone(s.theEdge("public"))
	s.same(before, false)
}

const plainWorld = `
{apiVersion: v1, kind: Namespace, metadata: {name: EDGE}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: SHOP, labels: {istio.io/dataplane-mode: ambient}, annotations: {isthmus.dev/edges: EDGE/public}}}
---
{apiVersion: v1, kind: Service, metadata: {name: orders, namespace: SHOP}, spec: {selector: {app: orders}, ports: [{port: 80}]}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: gateway, namespace: EDGE}, spec: {selector: {matchLabels: {app: gateway}}, template: {metadata: {labels: {app: gateway}}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: nothing}]}}}}
---
{apiVersion: isthmus.dev/v1alpha1, kind: AmbientEdge, metadata: {name: public, namespace: EDGE},
 spec: {workloadRefs: [{kind: Deployment, name: gateway}], backends: {services: [{namespace: SHOP, name: orders}]}, waypoint: {policy: Create, name: waypoint}}}
`

func TestDeploymentsAreEnrolled(t *testing.T) {
	t.Parallel()
	for name, neighbour := range map[string]string{
		"alone":          "",
		"with-neighbour": "---\n{apiVersion: v1, kind: Pod, metadata: {name: other, namespace: EDGE}, spec: {containers: [{name: c, image: nothing}]}}",
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, "plain-"+name)
			s.apply(plainWorld + neighbour)
			s.ready("public", v1alpha1.ReasonObserving)
			before := s.state(false)
			patch := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"mode":"Manage"}}`))
			if err := s.c.Patch(t.Context(), s.theEdge("public"), patch); err != nil {
				t.Fatal(err)
			}
			e, took := s.ready("public", v1alpha1.ReasonDone)
			t.Logf("ready after %v: %s %s", took, e.Status.Plan.Steps[0].Verb, e.Status.Plan.Steps[0].Object)
			want := "Namespace " + s.edge
			if neighbour != "" {
				want = "Deployment " + s.edge + "/gateway"
			}
			if got := e.Status.Plan.Steps[0].Object; got != want {
				t.Errorf("enrolled by %s, want %s", got, want)
			}
			s.delete(e)
			s.gone(e)
			s.same(before, false)
		})
	}
}

// TestUndoGoesAroundARefusal: one Service that a policy freezes does not keep the other wired.
func TestUndoGoesAroundARefusal(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "around")
	s.apply(`{apiVersion: v1, kind: Service, metadata: {name: stock, namespace: SHOP}, spec: {selector: {app: orders}, ports: [{port: 80}]}}`)
	before := s.state(false)
	s.apply(edgeOfKgateway + "  backends: {services: [{namespace: SHOP, name: orders}, {namespace: SHOP, name: stock}]}\n")
	s.ready("public", v1alpha1.ReasonDone)
	s.apply(`
{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicy, metadata: {name: around}, spec: {failurePolicy: Fail, matchConstraints: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: SHOP}}, resourceRules: [{apiGroups: [""], apiVersions: [v1], resources: [services], operations: [UPDATE]}]}, validations: [{expression: "object.metadata.name != 'orders'", message: "frozen"}]}}
---
{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicyBinding, metadata: {name: around}, spec: {policyName: around, validationActions: [Deny]}}
`)
	binding := object("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding", "", "around")
	t.Cleanup(func() {
		for _, o := range []client.Object{binding, object("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy", "", "around")} {
			if err := s.c.Delete(context.Background(), o); client.IgnoreNotFound(err) != nil {
				t.Error(err)
			}
		}
	})
	s.wait("the policy is enforced", func() string {
		err := s.c.Patch(t.Context(), s.service("orders"), client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`)), client.DryRunAll)
		if err != nil && strings.Contains(err.Error(), "frozen") {
			return ""
		}
		return fmt.Sprint(err)
	})
	s.delete(s.theEdge("public"))
	s.wait("the other Service is unwired", func() string {
		if l := s.service("stock").Labels; len(l) > 0 {
			return fmt.Sprint(l)
		}
		return ""
	})
	e, _ := s.ready("public", v1alpha1.ReasonBlocked)
	if f := finding(e, v1alpha1.FindingRefused); f == nil || f.Object != "Service "+s.shop+"/orders" || s.service("orders").Labels[plan.LabelUseWaypoint] == "" {
		t.Errorf("findings are %+v", e.Status.Findings)
	}
	s.delete(binding)
	s.gone(s.theEdge("public"))
	s.same(before, false)
}

// TestAnEdgeThatFindsAllDoneIsUndone: what one before it of the same name has left is taken back with it, though it has written nothing itself.
func TestAnEdgeThatFindsAllDoneIsUndone(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "found")
	before := s.state(false)
	stop := s.instead(account, run.Options{Prober: shared.ask})
	s.apply(edgeOfKgateway)
	s.ready("public", v1alpha1.ReasonDone)
	stop()
	s.merge(s.theEdge("public"), `{"metadata":{"finalizers":null}}`)
	s.delete(s.theEdge("public"))
	s.gone(s.theEdge("public"))
	wired := s.state(true)
	s.instead(account, run.Options{Prober: shared.ask})
	s.apply(edgeOfKgateway)
	if e, _ := s.ready("public", v1alpha1.ReasonDone); !slices.Contains(e.Finalizers, v1alpha1.Finalizer) {
		t.Errorf("it is Ready, and its finalizers are %v", e.Finalizers)
	}
	s.same(wired, true)
	s.delete(s.theEdge("public"))
	s.gone(s.theEdge("public"))
	s.same(before, false)
}

// TestUndoHasGatewaysLeaveFirst: a request by a Service's address comes by its waypoint, which may hear before ztunnels that it is none any more. The gateway is to send to
// pods again before that.
func TestUndoHasGatewaysLeaveFirst(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "leave")
	s.eager = true
	before := s.state(false)
	s.apply(edgeOfKgateway)
	s.ready("public", v1alpha1.ReasonDone)
	s.delete(s.theEdge("public"))
	without := func(label string) func() string {
		return func() string {
			if l := s.service("orders").Labels; l[label] != "" {
				return fmt.Sprint(l)
			}
			return ""
		}
	}
	s.wait("the gateway is told to send to pods", without(edge.LabelIngressUseWaypoint))
	told := time.Now()
	if l := s.service("orders").Labels[plan.LabelUseWaypoint]; l != "waypoint" {
		t.Errorf("the Service is led to %q already", l)
	}
	s.wait("the Service is unwired", without(plan.LabelUseWaypoint))
	if had := time.Since(told); had < time.Second {
		t.Errorf("the gateway had %v to leave", had)
	}
	s.gone(s.theEdge("public"))
	s.same(before, false)
}
