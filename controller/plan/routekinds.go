package plan

import (
	"fmt"
	"slices"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// udpRoutes finds routes of the gateways whose bytes do not go through the mesh. It is an error where there are no others: nothing would be wired, and
// all seem well.
func (m *maker) udpRoutes() {
	for _, r := range m.routesFor(m.gateways...) {
		for _, g := range m.gateways {
			if g.object == nil || r.kind != kindUDPRoute || !m.parented(r, g) {
				continue
			}
			f := v1alpha1.Finding{
				Code: v1alpha1.FindingRouteKind, Severity: v1alpha1.SeverityWarning, Object: r.String(), Field: "spec.parentRefs",
				Message: fmt.Sprintf("the mesh does not carry UDP: what %s sends by this route goes unencrypted, past every waypoint and policy", g),
				Fix:     "close the way by a NetworkPolicy where it has to be closed, or do without the route",
			}
			if policy, _ := m.waypointPolicy(); m.counted == 0 && policy != v1alpha1.WaypointNone {
				f.Severity = v1alpha1.SeverityError
				f.Fix = "set spec.waypoint.policy to None, or delete the AmbientEdge: nothing else is routed by this gateway"
			}
			if !slices.Contains(m.plan.Findings, f) {
				m.found(f)
			}
		}
	}
}
