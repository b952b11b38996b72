package controllertest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// threeGateways are Gateways of three vendors, with an AmbientEdge each, and one route that names all of them.
var threeGateways = `
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: second, namespace: EDGE}, spec: {gatewayClassName: kgateway, listeners: [{name: http, port: 81, protocol: HTTP}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: second, namespace: EDGE, labels: {gateway.networking.k8s.io/gateway-name: second}}, spec: {serviceAccountName: second, containers: [{name: c, image: nothing}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: third, namespace: EDGE}, spec: {gatewayClassName: istio, listeners: [{name: http, port: 82, protocol: HTTP}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: third, namespace: EDGE, labels: {gateway.networking.k8s.io/gateway-name: third}}, spec: {serviceAccountName: third-istio, containers: [{name: c, image: nothing}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: orders, namespace: EDGE}, spec: {parentRefs: [{name: http}, {name: second}, {name: third}], rules: [{backendRefs: [{name: orders, namespace: SHOP, port: 80}]}]}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: SHOP, labels: {istio.io/dataplane-mode: ambient}, annotations: {isthmus.dev/edges: "EDGE/public,EDGE/second,EDGE/third"}}}
`

// TestSeveralGatewaysOfOneRoute: three Gateways, of two vendors, have one route, whose status their controllers write all the time, each its own part of it; and each has an AmbientEdge.
// Isthmus writes nothing to the route; of what it does write it owns its labels and nothing else, under a name for each AmbientEdge; and nobody's part of the status is lost.
func TestSeveralGatewaysOfOneRoute(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "writers")
	s.apply(threeGateways)
	parents := map[string]string{"http": "kgateway.dev/kgateway", "second": "kgateway.dev/kgateway", "third": "istio.io/gateway-controller"}
	rounds := 0
	say := func() { // each controller says its part, as with a field manager of its own
		rounds++
		for name, controller := range parents {
			conditions := []map[string]any{}
			for _, kind := range []string{"Accepted", "ResolvedRefs"} {
				conditions = append(conditions, map[string]any{"type": kind, "status": "True", "reason": kind, "message": fmt.Sprintf("round %d", rounds), "observedGeneration": s.route().Generation, "lastTransitionTime": "2026-01-01T00:00:00Z"})
			}
			r := s.route()
			r.Status.Parents = slices.DeleteFunc(r.Status.Parents, func(p gatewayv1.RouteParentStatus) bool { return string(p.ParentRef.Name) == name })
			text, err := json.Marshal(map[string]any{"parentRef": map[string]any{"name": name}, "controllerName": controller, "conditions": conditions})
			if err != nil {
				t.Fatal(err)
			}
			var p gatewayv1.RouteParentStatus
			if err := json.Unmarshal(text, &p); err != nil {
				t.Fatal(err)
			}
			r.Status.Parents = append(r.Status.Parents, p)
			if err := s.c.Status().Update(t.Context(), r, client.FieldOwner(controller+"/"+name)); err != nil { // a conflict is somebody else's write
				t.Fatalf("the status of the route was written by somebody else: %v", err)
			}
		}
	}
	say()
	before, spec := s.state(false), s.route()
	for _, name := range []string{"public", "second", "third"} {
		gateway := strings.Replace(name, "public", "http", 1)
		s.apply(strings.NewReplacer("name: public", "name: "+name, "{name: http}", "{name: "+gateway+"}").Replace(edgeOfKgateway))
	}
	for _, name := range []string{"public", "second", "third"} {
		for {
			say()
			e := s.get(name)
			if slices.ContainsFunc(e.Status.Conditions, func(c metav1.Condition) bool {
				return c.Type == v1alpha1.ConditionReady && c.Status == metav1.ConditionTrue && c.ObservedGeneration == e.Generation
			}) {
				break
			}
			if rounds > 400 {
				t.Fatalf("AmbientEdge %s is not ready: %+v", name, e.Status)
			}
			time.Sleep(firstPause)
		}
	}
	now := s.route()
	if d := cmp.Diff(spec.Spec, now.Spec); d != "" || now.Generation != spec.Generation {
		t.Errorf("the route was changed, generation %d: %s", now.Generation, d)
	}
	if len(now.Status.Parents) != len(parents) {
		t.Errorf("the route's status has %d parts, want %d: %+v", len(now.Status.Parents), len(parents), now.Status.Parents)
	}
	for _, f := range now.ManagedFields {
		if strings.HasPrefix(f.Manager, "isthmus.dev/") {
			t.Errorf("%s has written to the route: %s", f.Manager, f.FieldsV1)
		}
	}
	owners := map[string]string{}
	for _, f := range s.service("orders").ManagedFields {
		if strings.HasPrefix(f.Manager, "isthmus.dev/") {
			owners[f.Manager] = f.FieldsV1.GetRawString()
		}
	}
	const ours = `{"f:metadata":{"f:labels":{"f:istio.io/ingress-use-waypoint":{},"f:istio.io/use-waypoint":{}}}}`
	want := map[string]string{}
	for _, name := range []string{"public", "second", "third"} {
		want["isthmus.dev/"+s.edge+"."+name] = ours
	}
	if d := cmp.Diff(want, owners); d != "" {
		t.Errorf("what is ours of the Service (-want +is):\n%s", d)
	}
	t.Logf("%d rounds of three statuses", rounds)

	for _, name := range []string{"public", "second", "third"} {
		s.delete(s.theEdge(name))
	}
	for _, name := range []string{"public", "second", "third"} {
		s.gone(s.theEdge(name))
		say()
	}
	s.same(before, false)
}

// route is the route of all Gateways.
func (s *site) route() *gatewayv1.HTTPRoute {
	s.t.Helper()
	r := &gatewayv1.HTTPRoute{}
	if err := s.c.Get(s.t.Context(), types.NamespacedName{Namespace: s.edge, Name: "orders"}, r); err != nil {
		s.t.Fatal(err)
	}
	return r
}
