package plan

import (
	"fmt"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
)

// TestWhatARouteLeadsToIsCountedOnce, by however many of its references: a tenant may write as many as a route has room for.
func TestWhatARouteLeadsToIsCountedOnce(t *testing.T) {
	const refs = 256
	ref := func(kind, name string) gatewayv1.HTTPBackendRef {
		group := gatewayv1.Group("")
		if kind == "HTTPRoute" {
			group = gatewayv1.GroupName
		}
		k := gatewayv1.Kind(kind)
		return gatewayv1.HTTPBackendRef{BackendRef: gatewayv1.BackendRef{BackendObjectReference: gatewayv1.BackendObjectReference{Group: &group, Kind: &k, Name: gatewayv1.ObjectName(name)}}}
	}
	root := gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Name: "root", Namespace: "edge"}} // nobody has reported on it
	root.Spec.ParentRefs = []gatewayv1.ParentReference{{Name: "http"}}
	routes := []gatewayv1.HTTPRoute{root}
	rule := gatewayv1.HTTPRouteRule{}
	for i := range refs {
		name := fmt.Sprintf("r%d", i)
		rule.BackendRefs = append(rule.BackendRefs, ref("HTTPRoute", name))
		child := gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "edge"}}
		child.Spec.Rules = []gatewayv1.HTTPRouteRule{{BackendRefs: []gatewayv1.HTTPBackendRef{ref("Service", name), ref("Service", "all")}}}
		routes = append(routes, child)
	}
	routes[0].Spec.Rules = []gatewayv1.HTTPRouteRule{rule}
	m := &maker{Snapshot: &Snapshot{Edge: &v1alpha1.AmbientEdge{ObjectMeta: metav1.ObjectMeta{Name: "public", Namespace: "edge"}}, HTTPRoutes: routes}}
	g := &gateway{object: &gatewayv1.Gateway{ObjectMeta: metav1.ObjectMeta{Name: "http", Namespace: "edge"}}}
	g.key = keyOf(g.object)
	vendors := edge.Vendors()
	g.vendor = vendors[slices.IndexFunc(vendors, func(v edge.Vendor) bool { return v.Delegation != nil })]
	m.gateways = []*gateway{g}
	followed := m.follow()
	if len(followed) != 1 || followed[0].why == "" {
		t.Fatalf("%d routes are followed, want one that does not count", len(followed))
	}
	if n := len(followed[0].reach); n != refs+1 {
		t.Errorf("it leads to %d Services, want %d", n, refs+1)
	}
}
