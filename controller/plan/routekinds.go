package plan

import (
	"cmp"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// otherRoutes finds routes of the gateways whose kinds are not followed to Services. It is an error where there are no others: nothing would be
// wired, and all seem well.
func (m *maker) otherRoutes() {
	for _, r := range m.OtherRoutes {
		for _, g := range m.gateways {
			if g.object == nil || !parentedByAny(r, g) {
				continue
			}
			f := v1alpha1.Finding{
				Code: v1alpha1.FindingRouteKind, Severity: v1alpha1.SeverityWarning, Object: object(r.GetKind(), keyOf(r)), Field: "spec.parentRefs",
				Message: fmt.Sprintf("routes of this kind are not followed: what %s sends to by this one is left alone", g),
				Fix:     "name all Services of the gateway in spec.backends.services",
			}
			if policy, _ := m.waypointPolicy(); m.counted == 0 && policy != v1alpha1.WaypointNone {
				f.Severity = v1alpha1.SeverityError
			}
			if !slices.Contains(m.plan.Findings, f) {
				m.found(f)
			}
		}
	}
}

// parentedByAny says whether a route of any kind names the Gateway.
func parentedByAny(r *unstructured.Unstructured, g *gateway) bool {
	return slices.ContainsFunc(items(r.Object, []string{"spec", "parentRefs"}), func(p map[string]any) bool {
		text := func(key string) string {
			v, _ := p[key].(string)
			return v
		}
		return cmp.Or(text("group"), gatewayv1.GroupName) == gatewayv1.GroupName && cmp.Or(text("kind"), "Gateway") == "Gateway" &&
			cmp.Or(text("namespace"), r.GetNamespace()) == g.key.Namespace && text("name") == g.key.Name
	})
}
