package controllertest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// scopedRoute is a route of Istio's ingress gateway to the shop, by some rules.
func scopedRoute(name, rules string) string {
	return fmt.Sprintf(`
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: %s, namespace: EDGE}, spec: {parentRefs: [{name: ingress}], rules: [%s]}}
---
`, name, strings.ReplaceAll(rules, "ORDERS", "backendRefs: [{name: orders, namespace: SHOP, port: 80}]"))
}

// scopedWorld has pods with a list of callers, which the gateway is on, and two routes to them, of which one rewrites paths.
var scopedWorld = shopWorld + caller("SHOP", "other") + `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: ingress, namespace: EDGE, annotations: {networking.istio.io/service-type: ClusterIP}}
spec: {gatewayClassName: istio, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
{apiVersion: gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, metadata: {name: routes, namespace: SHOP}, spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: EDGE}], to: [{group: "", kind: Service}]}}
---
` + scopedRoute("ok", "{matches: [{path: {type: PathPrefix, value: /ok}}], ORDERS}") +
	scopedRoute("moved", "{matches: [{path: {type: PathPrefix, value: /old}, method: GET}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}], ORDERS}") + `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: callers, namespace: SHOP}
spec:
  selector: {matchLabels: {app: orders}}
  action: ALLOW
  rules: [{from: [{source: {principals: [cluster.local/ns/EDGE/sa/ingress-istio, cluster.local/ns/SHOP/sa/other]}}]}]
`

// posing is a captured pod with the service account of the gateway: it calls what the gateway's routes do not.
const posing = `
apiVersion: v1
kind: Pod
metadata: {name: posing, namespace: EDGE, labels: {app: posing, istio.io/dataplane-mode: ambient}}
spec:
  serviceAccountName: ingress-istio
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 0
  containers: [{name: posing, image: caller}]
`

// scopedGateway has Istio's ingress gateway paired by what its routes call: of the Service, whose pods let it in everywhere, it gets by the waypoint what its two
// routes call, as that sees it, and a route more when there is one. Who else is on the list gets all.
func scopedGateway(t *testing.T, s *site) {
	s.apply(scopedWorld)
	for _, d := range []types.NamespacedName{{Namespace: s.edge, Name: "ingress-istio"}, {Namespace: s.shop, Name: "other"}, {Namespace: s.shop, Name: "shared"}} {
		s.available(d)
	}
	if err := s.mesh.Node.WaitCaptured(t.Context(), s.shop, "orders", true); err != nil {
		t.Fatal(err)
	}
	gateway := s.podOf(s.edge, "ingress")
	s.answers(gateway, "/ok/before", 200)
	s.answers(gateway, "/old/before", 200)
	before := s.state(false)

	s.apply(strings.Replace(ingressEdge, "  mode: Manage\n", "  mode: Manage\n  authorization: {mode: Pair, pair: {scope: Route}}\n", 1))
	e, took := s.ready("public", v1alpha1.ReasonWaiting) // for the gateway to be started anew
	t.Logf("switched after %v", took)
	if list := stepsOf(e, plan.VerbNarrow); len(list) < 2 {
		t.Errorf("what is narrowed last of all is so before connections have ended: %v", list)
	}
	nextSecond()
	s.delete(gateway)
	e, took = s.ready("public", v1alpha1.ReasonDone)
	t.Logf("narrowed after %v", took)
	if order := stepsOf(e, plan.VerbWire, plan.VerbLock, plan.VerbNarrow); !slices.Equal(order, []string{"Wire", "Lock", "Narrow"}) {
		t.Errorf("steps are %v", order)
	}
	gateway = s.podOf(s.edge, "ingress")
	s.answers(gateway, "/ok/now", 200)
	s.answers(gateway, "/old/now", 200)

	s.apply(posing)
	if err := s.mesh.Node.WaitCaptured(t.Context(), s.edge, "posing", true); err != nil {
		t.Fatal(err)
	}
	vip := s.service("orders").Spec.ClusterIP
	s.gets("posing", vip+"/ok", 200)
	s.gets("posing", vip+"/new/x", 200)
	s.gets("posing", vip+"/old", 403) // which the waypoint sees by another name
	s.gets("posing", vip+"/later", 403)
	s.gets("posing", vip, 403)
	s.gets("other", vip+"/later", 200)
	s.answers(gateway, "/later/no-route", 404)

	s.apply(scopedRoute("later", "{matches: [{path: {type: Exact, value: /later/}}], ORDERS}"))
	t.Logf("a route more is let in after %v", s.answers(gateway, "/later/", 200))
	s.gets("posing", vip+"/later", 200)
	s.gets("posing", vip+"/later/x", 403)
	s.remove(object("gateway.networking.k8s.io/v1", "HTTPRoute", s.edge, "later"))
	s.gets("posing", vip+"/later", 403)
	s.answers(gateway, "/ok/still", 200)
	s.remove(object("v1", "Pod", s.edge, "posing"))

	s.delete(s.theEdge("public"))
	t.Logf("undone after %v", s.gone(s.theEdge("public")))
	s.same(before, false)
	s.answers(gateway, "/ok/after", 200)
}
