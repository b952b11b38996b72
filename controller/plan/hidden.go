package plan

import (
	"fmt"
	"slices"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
)

// hiddenKinds finds kinds that may not be read, where their objects matter: those of vendors to whoever has a gateway of theirs, all others to everybody. Without
// a waypoint no switch is set, and nothing waits.
func (m *maker) hiddenKinds() {
	for _, k := range m.Hidden {
		if !ofVendors(k) {
			m.hiddenFrom(object("AmbientEdge", keyOf(m.Edge)), k, v1alpha1.SeverityError, "every plan depends on what they say, and nothing is written")
			continue
		}
		for _, g := range m.gateways {
			if !g.vendor.Uses(k) {
				continue
			}
			if slices.ContainsFunc(m.backends, func(b *backend) bool { return b.wanted }) {
				m.hiddenFrom(g.String(), k, v1alpha1.SeverityError, "one may keep this gateway from sending to Services' addresses, past their waypoints, and nothing is written")
				continue
			}
			m.hiddenFrom(g.String(), k, v1alpha1.SeverityWarning, "no waypoint is asked for, so that nothing waits for them")
		}
	}
}

// hiddenFromUndo is hiddenKinds, of an edge that is being deleted: what was written into objects of the kind is not known. A kind of vendors matters where the gateway
// is, or was when the status was written, of a vendor of its.
func (m *maker) hiddenFromUndo() {
	for _, k := range m.Hidden {
		if ofVendors(k) && !m.mayHaveWritten(k) {
			continue
		}
		m.hiddenFrom(object("AmbientEdge", keyOf(m.Edge)), k, v1alpha1.SeverityError, "what was written into them, or depends on what would be taken back, is not known, and nothing is taken back")
	}
}

func (m *maker) mayHaveWritten(k edge.Kind) bool {
	now := &maker{Snapshot: m.Snapshot}
	now.findGateways()
	return slices.ContainsFunc(now.gateways, func(g *gateway) bool { return g.vendor.Uses(k) }) ||
		slices.ContainsFunc(edge.Vendors(), func(v edge.Vendor) bool {
			return v.Uses(k) && slices.ContainsFunc(m.Edge.Status.Gateways, func(g v1alpha1.GatewayStatus) bool { return g.Vendor == v.Name })
		})
}

func ofVendors(k edge.Kind) bool {
	return slices.ContainsFunc(edge.Uses(), func(u edge.Use) bool { return u.Kind == k })
}

func (m *maker) hiddenFrom(obj string, k edge.Kind, severity v1alpha1.Severity, so string) {
	resource := k.Resource
	if k.Group != "" {
		resource += "." + k.Group
	}
	m.found(v1alpha1.Finding{
		Code: v1alpha1.FindingHidden, Severity: severity, Object: obj,
		Message: fmt.Sprintf("the controller may not read objects of kind %s (%s): the right to list and watch %s is missing; %s", k.Kind, k.APIVersion(), resource, so),
		Fix:     fmt.Sprintf("give its account get, list and watch of %s, as ClusterRole isthmus-observe has them: kubectl apply -k manifests", resource),
	})
}
