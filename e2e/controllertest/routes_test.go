package controllertest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// told is how soon a change has to be in the status, with what a busy machine takes on top of it: nobody looks again by himself before 30 s.
const told = 10 * time.Second

// say has the gateway say of a route that it has accepted it, for a parent.
func (s *site) say(kind, namespace, name, controller, parent string) {
	s.t.Helper()
	u := object("gateway.networking.k8s.io/v1", kind, namespace, name)
	if err := s.c.Get(s.t.Context(), client.ObjectKeyFromObject(u), u); err != nil {
		s.t.Fatal(err)
	}
	condition := func(of string) string {
		return fmt.Sprintf(`{"type":%q,"status":"True","reason":%q,"message":"","observedGeneration":%d,"lastTransitionTime":"2026-01-01T00:00:00Z"}`, of, of, u.GetGeneration())
	}
	patch := fmt.Sprintf(`{"status":{"parents":[{"parentRef":%s,"controllerName":%q,"conditions":[%s,%s]}]}}`, parent, controller, condition("Accepted"), condition("ResolvedRefs"))
	if err := s.c.Status().Patch(s.t.Context(), u, client.RawPatch(types.MergePatchType, []byte(s.text(patch)))); err != nil {
		s.t.Fatal(err)
	}
}

// admit has the gateway say of a ListenerSet that it has accepted it.
func (s *site) admit(apiVersion, kind, name string) {
	s.t.Helper()
	u := object(apiVersion, kind, s.shop, name)
	patch := `{"status":{"conditions":[{"type":"Accepted","status":"True","reason":"Accepted","message":"","observedGeneration":1,"lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`
	if err := s.c.Status().Patch(s.t.Context(), u, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
		s.t.Fatal(err)
	}
}

// leads waits until a Service leads to a waypoint, or does not.
func (s *site) leads(name string, want bool) time.Duration {
	s.t.Helper()
	return s.wait(fmt.Sprintf("Service %s is wired: %v", name, want), func() string {
		labels := s.service(name).Labels
		if is := labels[plan.LabelUseWaypoint] == "waypoint" && labels[edge.LabelIngressUseWaypoint] == "true"; is != want {
			return fmt.Sprintf("its labels are %v", labels)
		}
		return ""
	})
}

const (
	kgatewayName = "kgateway.dev/kgateway"
	toHTTP       = `{"name":"http","namespace":"EDGE"}`
)

// manyRoutes is a Gateway of kgateway with the Services orders and db, without routes.
const manyRoutes = `
{apiVersion: v1, kind: Namespace, metadata: {name: EDGE}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: SHOP, labels: {istio.io/dataplane-mode: ambient}, annotations: {isthmus.dev/edges: EDGE/public}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: http, namespace: EDGE}
spec:
  gatewayClassName: kgateway
  allowedListeners: {namespaces: {from: Selector, selector: {matchLabels: {kubernetes.io/metadata.name: SHOP}}}}
  listeners: [{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]
---
{apiVersion: v1, kind: Pod, metadata: {name: http, namespace: EDGE, labels: {gateway.networking.k8s.io/gateway-name: http}}, spec: {serviceAccountName: http, containers: [{name: c, image: nothing}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: orders, namespace: SHOP}, spec: {selector: {app: orders}, ports: [{name: http, port: 80}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: orders, namespace: SHOP, labels: {app: orders}}, spec: {containers: [{name: c, image: nothing}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: db, namespace: SHOP}, spec: {selector: {app: db}, ports: [{name: tcp-db, port: 5432}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: db, namespace: SHOP, labels: {app: db}}, spec: {containers: [{name: c, image: nothing}]}}
`

// TestRoutesOfAllKindsAreFollowed has a GRPCRoute of the Gateway lead to one Service, and a TCPRoute of its ListenerSet to another.
func TestRoutesOfAllKindsAreFollowed(t *testing.T) {
	t.Parallel()
	s := newSite(t, "kinds")
	s.apply(manyRoutes)
	s.settled("orders", "db")
	before := s.state(false)
	s.apply(edgeOfKgateway)
	s.wait("nothing is routed", func() string {
		if finding(s.get("public"), v1alpha1.FindingNoRoute) == nil {
			return "nobody says so"
		}
		return ""
	})

	s.apply(`{apiVersion: gateway.networking.k8s.io/v1, kind: GRPCRoute, metadata: {name: calls, namespace: EDGE}, spec: {parentRefs: [{name: http, namespace: EDGE}], rules: [{backendRefs: [{name: orders, namespace: SHOP, port: 80}]}]}}
---
{apiVersion: gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, metadata: {name: calls, namespace: SHOP}, spec: {from: [{group: gateway.networking.k8s.io, kind: GRPCRoute, namespace: EDGE}], to: [{group: "", kind: Service}]}}`)
	s.say("GRPCRoute", s.edge, "calls", kgatewayName, toHTTP)
	t.Logf("the GRPCRoute's Service is wired after %v", s.leads("orders", true))

	s.apply(`
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: more, namespace: SHOP}
spec: {parentRef: {name: http, namespace: EDGE}, listeners: [{name: db, port: 5432, protocol: TCP}]}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: TCPRoute, metadata: {name: db, namespace: SHOP}, spec: {parentRefs: [{group: gateway.networking.k8s.io, kind: ListenerSet, name: more}], rules: [{backendRefs: [{name: db, port: 5432}]}]}}`)
	s.say("TCPRoute", s.shop, "db", kgatewayName, `{"group":"gateway.networking.k8s.io","kind":"ListenerSet","name":"more"}`)
	s.wait("a ListenerSet that nobody has accepted is told", func() string {
		if f := finding(s.get("public"), v1alpha1.FindingRouteNotCounted); f == nil || f.Object != "TCPRoute "+s.shop+"/db" {
			return fmt.Sprintf("there is %+v", f)
		}
		return ""
	})
	if s.service("db").Labels[plan.LabelUseWaypoint] != "" {
		t.Error("a Service behind a ListenerSet that nobody has accepted is wired")
	}
	s.admit("gateway.networking.k8s.io/v1", "ListenerSet", "more")
	t.Logf("the TCPRoute's Service is wired after %v", s.leads("db", true))
	e, _ := s.ready("public", v1alpha1.ReasonDone)
	if len(e.Status.Backends) != 2 {
		t.Errorf("backends are %+v", e.Status.Backends)
	}
	for _, code := range []string{v1alpha1.FindingRouteNotCounted, v1alpha1.FindingRouteKind, v1alpha1.FindingUnfollowed, v1alpha1.FindingNoRoute} {
		if f := finding(e, code); f != nil {
			t.Errorf("there is %+v", f)
		}
	}

	s.delete(object("gateway.networking.k8s.io/v1", "TCPRoute", s.shop, "db"))
	t.Logf("it is not any more after %v", s.leads("db", false))
	s.ready("public", v1alpha1.ReasonDone)
	for _, o := range []client.Object{
		object("gateway.networking.k8s.io/v1", "GRPCRoute", s.edge, "calls"), object("gateway.networking.k8s.io/v1", "ListenerSet", s.shop, "more"),
		object("gateway.networking.k8s.io/v1beta1", "ReferenceGrant", s.shop, "calls"),
	} {
		s.delete(o)
	}
	s.delete(s.theEdge("public"))
	s.gone(s.theEdge("public"))
	s.same(before, false)
}

// TestDelegatedRoutesAreFollowed: what kgateway says of a route that another delegates to is as it says it for one without parentRefs.
func TestDelegatedRoutesAreFollowed(t *testing.T) {
	t.Parallel()
	s := newSite(t, "delegated")
	s.apply(manyRoutes)
	s.settled("orders", "db")
	s.apply(`
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: root, namespace: EDGE}
spec:
  parentRefs: [{name: http, namespace: EDGE}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /orders}}]
    backendRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: orders, namespace: SHOP}]
  - matches: [{path: {type: PathPrefix, value: /db}}]
    backendRefs: [{group: delegation.kgateway.dev, kind: label, name: shop, namespace: SHOP}]
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: orders, namespace: SHOP}, spec: {rules: [{matches: [{path: {type: PathPrefix, value: /orders}}], backendRefs: [{name: orders, port: 80}]}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: db, namespace: SHOP, labels: {delegation.kgateway.dev/label: shop}}, spec: {rules: [{matches: [{path: {type: PathPrefix, value: /db}}], backendRefs: [{name: db, port: 5432}]}]}}`)
	const byRoot = `{"group":"gateway.networking.k8s.io","kind":"HTTPRoute","name":"root","namespace":"EDGE"}`
	s.say("HTTPRoute", s.edge, "root", kgatewayName, toHTTP)
	s.say("HTTPRoute", s.shop, "orders", kgatewayName, byRoot)
	s.apply(edgeOfKgateway)
	s.leads("orders", true)
	if s.service("db").Labels[plan.LabelUseWaypoint] != "" {
		t.Error("a Service is wired by a route that the gateway has said nothing of")
	}
	s.say("HTTPRoute", s.shop, "db", kgatewayName, byRoot)
	t.Logf("that of the route chosen by its label is wired after %v", s.leads("db", true))
	s.ready("public", v1alpha1.ReasonDone)

	label := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"delegation.kgateway.dev/label":"other"}}}`))
	if err := s.c.Patch(t.Context(), object("gateway.networking.k8s.io/v1", "HTTPRoute", s.shop, "db"), label); err != nil {
		t.Fatal(err)
	}
	s.leads("db", false)
	s.leads("orders", true)
}

// listenerSetCRD is the kind before the one of the standard, cut down to what is looked at.
const listenerSetCRD = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: xlistenersets.gateway.networking.x-k8s.io}
spec:
  group: gateway.networking.x-k8s.io
  scope: Namespaced
  names: {kind: XListenerSet, listKind: XListenerSetList, plural: xlistenersets, singular: xlistenerset}
  versions:
  - name: v1alpha1
    served: true
    storage: true
    subresources: {status: {}}
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true, properties: {spec: {type: object, x-kubernetes-preserve-unknown-fields: true}, status: {type: object, x-kubernetes-preserve-unknown-fields: true}}}}
`

// TestKindsComeAndGo has a kind come to the API server, and go, while the controller runs.
func TestKindsComeAndGo(t *testing.T) {
	t.Parallel()
	s := newSite(t, "come")
	crd := object("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", "xlistenersets.gateway.networking.x-k8s.io")
	t.Cleanup(func() { s.remove(crd) })
	s.apply(manyRoutes)
	s.settled("orders", "db")
	s.apply(edgeOfKgateway)
	s.apply(`{apiVersion: gateway.networking.k8s.io/v1, kind: TCPRoute, metadata: {name: db, namespace: SHOP}, spec: {parentRefs: [{group: gateway.networking.x-k8s.io, kind: XListenerSet, name: more}], rules: [{backendRefs: [{name: db, port: 5432}]}]}}`)
	s.say("TCPRoute", s.shop, "db", kgatewayName, `{"group":"gateway.networking.x-k8s.io","kind":"XListenerSet","name":"more"}`)
	s.wait("no route counts", func() string {
		if finding(s.get("public"), v1alpha1.FindingNoRoute) == nil {
			return "nobody says so"
		}
		return ""
	})
	for range 2 { // it may come again
		s.apply(listenerSetCRD)
		s.apply(`{apiVersion: gateway.networking.x-k8s.io/v1alpha1, kind: XListenerSet, metadata: {name: more, namespace: SHOP}, spec: {parentRef: {name: http, namespace: EDGE}, listeners: [{name: db, port: 5432, protocol: TCP}]}}`)
		s.admit("gateway.networking.x-k8s.io/v1alpha1", "XListenerSet", "more")
		took := s.wait("the route counts", func() string {
			if e := s.get("public"); len(e.Status.Backends) != 1 || e.Status.Backends[0].Service != s.shop+"/db" {
				return fmt.Sprintf("backends are %+v", e.Status.Backends)
			}
			return ""
		})
		s.delete(crd)
		gone := s.wait("it does not any more", func() string {
			if e := s.get("public"); len(e.Status.Backends) > 0 || finding(e, v1alpha1.FindingNoRoute) == nil {
				return fmt.Sprintf("backends are %+v", e.Status.Backends)
			}
			return ""
		})
		t.Logf("a kind that has come counts after %v, and one that has gone does not after %v", took, gone)
		if took > told || gone > told {
			t.Errorf("a kind that has come counts after %v, and one that has gone does not after %v; want at most %v", took, gone, told)
		}
		s.wait("the CRD is gone", func() string {
			if err := s.c.Get(t.Context(), client.ObjectKeyFromObject(crd), crd); client.IgnoreNotFound(err) != nil || err == nil {
				return fmt.Sprintf("it is there: %v", err)
			}
			return ""
		})
	}
}

// TestVendorsObjectsAreWatched: a policy of a gateway's vendor is in the status at once, and out of it.
func TestVendorsObjectsAreWatched(t *testing.T) {
	t.Parallel()
	s := newSite(t, "watched")
	s.apply(strings.NewReplacer("kgateway", "SHOP-eg", "gateway.networking.k8s.io/gateway-name: http",
		"gateway.envoyproxy.io/owning-gateway-name: http, gateway.envoyproxy.io/owning-gateway-namespace: EDGE").Replace(manyRoutes) + `---
{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: SHOP-eg}, spec: {controllerName: gateway.envoyproxy.io/gatewayclass-controller}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: orders, namespace: SHOP}, spec: {parentRefs: [{name: http, namespace: EDGE}], rules: [{backendRefs: [{name: orders, port: 80}]}]}}`)
	s.say("HTTPRoute", s.shop, "orders", "gateway.envoyproxy.io/gatewayclass-controller", toHTTP)
	s.apply(strings.Replace(edgeOfKgateway, "Manage", "Observe", 1))
	s.wait("the route counts", func() string {
		if e := s.get("public"); len(e.Status.Backends) != 1 {
			return fmt.Sprintf("backends are %+v", e.Status.Backends)
		}
		return ""
	})
	overridden := func(want bool) time.Duration {
		t.Helper()
		return s.wait(fmt.Sprintf("the policy is in the status: %v", want), func() string {
			if e := s.get("public"); (finding(e, v1alpha1.FindingOverridden) != nil) != want {
				return fmt.Sprintf("findings are %+v", e.Status.Findings)
			}
			return ""
		})
	}
	s.apply(`{apiVersion: gateway.envoyproxy.io/v1alpha1, kind: BackendTrafficPolicy, metadata: {name: endpoint, namespace: SHOP}, spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: orders}], routingType: Endpoint}}`)
	came := overridden(true)
	s.delete(object("gateway.envoyproxy.io/v1alpha1", "BackendTrafficPolicy", s.shop, "endpoint"))
	went := overridden(false)
	t.Logf("a policy is told after %v, and not any more after %v", came, went)
	if came > told || went > told {
		t.Errorf("a policy is told after %v, and not any more after %v; want at most %v", came, went, told)
	}
}
