package controllertest

import (
	"context"
	"errors"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/apply"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// TestWhatIsTakenOverIsGivenBack has somebody else spell the switch's label in a way that Istio reads and kgateway does not.
func TestWhatIsTakenOverIsGivenBack(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "takeover")
	s.apply(`{apiVersion: v1, kind: Service, metadata: {name: orders, namespace: SHOP, labels: {team: shop, istio.io/ingress-use-waypoint: "True"}}, spec: {selector: {app: orders}, ports: [{name: http, port: 80}]}}`)
	before := s.state(false)
	s.apply(edgeOfKgateway)
	e, _ := s.ready("public", v1alpha1.ReasonBlocked)
	f := finding(e, v1alpha1.FindingForeignValue)
	if f == nil || !strings.Contains(f.Fix, "spec.takeOver") || f.Field != "metadata.labels["+edge.LabelIngressUseWaypoint+"]" {
		t.Fatalf("findings are %+v", e.Status.Findings)
	}
	patch := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"takeOver":["`+f.Field+`"]}}`))
	if err := s.c.Patch(t.Context(), s.theEdge("public"), patch); err != nil {
		t.Fatal(err)
	}
	s.ready("public", v1alpha1.ReasonDone)
	o := s.service("orders")
	if o.Labels[edge.LabelIngressUseWaypoint] != "true" || o.Annotations[v1alpha1.AnnotationFormer] != `{"`+f.Field+`":"True"}` || o.Labels["team"] != "shop" {
		t.Errorf("labels are %v, annotations %v", o.Labels, o.Annotations)
	}
	s.delete(e)
	s.gone(e)
	s.same(before, false)
}

// meddler lets somebody else write before the first write that is meant.
type meddler struct {
	client.Client
	meddle func()
}

func (m *meddler) Apply(ctx context.Context, o runtime.ApplyConfiguration, opts ...client.ApplyOption) error {
	var all client.ApplyOptions
	all.ApplyOptions(opts)
	if len(all.DryRun) == 0 && m.meddle != nil {
		m.meddle()
		m.meddle = nil
	}
	return m.Client.Apply(ctx, o, opts...)
}

// TestNothingButTheNamedFieldIsTakenOver: another field of the same write that belongs to somebody else is a conflict, one that comes in between too.
func TestNothingButTheNamedFieldIsTakenOver(t *testing.T) {
	t.Parallel()
	s := newSite(t, "takes")
	s.apply(`{apiVersion: v1, kind: Namespace, metadata: {name: SHOP}}
---
{apiVersion: v1, kind: Service, metadata: {name: orders, namespace: SHOP, labels: {mine: theirs, other: theirs}}, spec: {ports: [{port: 80}]}}
`)
	w := &plan.Write{APIVersion: "v1", Kind: "Service", Key: types.NamespacedName{Namespace: s.shop, Name: "orders"}, UID: s.service("orders").UID}
	labels := func(kv map[string]any) { w.Fields = map[string]any{"metadata": map[string]any{"labels": kv}} }
	labels(map[string]any{"mine": "ours", "other": "ours"})
	w.TakeOver = [][]string{{"metadata", "labels", "mine"}}
	for how, err := range map[string]error{"try": apply.Try(t.Context(), s.c, s.theEdge("public"), w), "do": func() error { _, err := apply.Do(t.Context(), s.c, s.theEdge("public"), w); return err }()} {
		conflict, ok := errors.AsType[*apply.ConflictError](err)
		if !ok || len(conflict.Fields) != 1 || !strings.Contains(conflict.Fields[0], "other") {
			t.Errorf("%s: the error is %v", how, err)
		}
	}
	if l := s.service("orders").Labels; l["mine"] != "theirs" || l["other"] != "theirs" {
		t.Errorf("labels are %v", l)
	}

	labels(map[string]any{"mine": "ours", "new": "ours"})
	m := &meddler{Client: s.c, meddle: func() {
		patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"new":"theirs"}}}`))
		if err := s.c.Patch(t.Context(), s.service("orders"), patch, client.FieldOwner("helm")); err != nil {
			t.Error(err)
		}
	}}
	if _, err := apply.Do(t.Context(), m, s.theEdge("public"), w); !apierrors.IsConflict(err) {
		t.Errorf("somebody wrote in between, and the error is %v", err)
	}
	if l := s.service("orders").Labels; l["mine"] != "theirs" || l["new"] != "theirs" {
		t.Errorf("labels are %v", l)
	}
	labels(map[string]any{"mine": "ours"})
	if _, err := apply.Do(t.Context(), m, s.theEdge("public"), w); err != nil {
		t.Error(err)
	}
	if l := s.service("orders").Labels; l["mine"] != "ours" || l["other"] != "theirs" || l["new"] != "theirs" {
		t.Errorf("labels are %v", l)
	}
}

// TestClientsOfAStrictNamespaceAreNotRefused: a gateway that is captured takes connections from outside the mesh only where its inbound ones are left alone.
func TestClientsOfAStrictNamespaceAreNotRefused(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "strict")
	s.apply(`{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default, namespace: EDGE}, spec: {mtls: {mode: STRICT}}}`)
	before := s.state(false)
	s.apply(edgeOfKgateway)
	e, _ := s.ready("public", v1alpha1.ReasonDone)
	g := &gatewayv1.Gateway{}
	if err := s.c.Get(t.Context(), types.NamespacedName{Namespace: s.edge, Name: "http"}, g); err != nil {
		t.Fatal(err)
	}
	if i := g.Spec.Infrastructure; i == nil || i.Annotations[plan.AnnotationBypassInbound] != "true" {
		t.Errorf("infrastructure is %+v", i)
	}
	if step := e.Status.Plan.Steps[0]; !strings.Contains(step.Reason, "PeerAuthentication "+s.edge+"/default is STRICT") {
		t.Errorf("the step says %q", step.Reason)
	}
	s.delete(e)
	s.gone(e)
	s.same(before, false)
}

// TestFieldsThatACRDDoesNotHaveAreRefused: a vendor's CRDs may be older than its switch. What is made is refused in a dry run, and what is changed.
func TestFieldsThatACRDDoesNotHaveAreRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, "oldcrd")
	s.apply(`{apiVersion: v1, kind: Namespace, metadata: {name: EDGE}}
---
{apiVersion: gateway.nginx.org/v1alpha2, kind: NginxProxy, metadata: {name: there, namespace: EDGE}, spec: {}}
`)
	there := object("gateway.nginx.org/v1alpha2", "NginxProxy", s.edge, "there")
	if err := s.c.Get(t.Context(), client.ObjectKeyFromObject(there), there); err != nil {
		t.Fatal(err)
	}
	w := plan.Write{APIVersion: "gateway.nginx.org/v1alpha2", Kind: "NginxProxy", Key: client.ObjectKeyFromObject(there), UID: there.GetUID()}
	made := w
	made.Key.Name, made.UID = "made", ""
	for name, w := range map[string]plan.Write{"changed": w, "made": made} {
		for field, known := range map[string]bool{"useClusterIP": true, "useVIP": false} {
			w.Fields = map[string]any{"spec": map[string]any{field: true}}
			err := apply.Try(t.Context(), s.c, s.theEdge("public"), &w)
			if _, refused := errors.AsType[*apply.RefusedError](err); refused == known || known && err != nil {
				t.Errorf("%s, %s: %v", name, field, err)
			}
		}
	}
}
