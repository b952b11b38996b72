package plan

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// leftAlone is what comes of what is not followed.
const leftAlone = ": what is behind it is left as it is, and its waypoints may be gone past"

// stray is something that a rule of a route sends to, and that is not followed to a Service; what tells where, and what comes of it.
type stray struct{ field, what string }

// stray says what a route sends to that is no Service, as a route that its gateway does not delegate to, a vendor's backend or a ServiceImport; or where
// requests are mirrored to, unless it is a Service that the route sends to anyway. It is empty where a Service is followed.
func (r *route) stray(s *send, refs []backendRef) string {
	is, key := r.kindOf(s.ref)
	switch {
	case s.copies && is == "Service" && slices.ContainsFunc(refs, func(ref backendRef) bool { return ref.key == key }):
		return ""
	case s.copies:
		return "copies to " + object(is, key)
	case is == "Service":
		return ""
	}
	return "to " + object(is, key)
}

// kindOf is what a route refers to: Service, or another kind with its group where that is not the route's own.
func (r *route) kindOf(ref *gatewayv1.BackendObjectReference) (string, types.NamespacedName) {
	is, group := "Service", ""
	if ref.Kind != nil {
		is = string(*ref.Kind)
	}
	if ref.Group != nil {
		group = string(*ref.Group)
	}
	if group != "" && group != gatewayv1.GroupName || group == gatewayv1.GroupName && is == "Service" {
		is += "." + group
	}
	return is, r.refers(ref)
}

// unfollowed finds what routes that count send to past the Services that are looked at. It is an error where there is no Service at all: nothing
// would be wired, and all seem well.
func (m *maker) unfollowed(services int) {
	policy, _ := m.waypointPolicy()
	if policy == v1alpha1.WaypointNone {
		return
	}
	for _, f := range m.follow() {
		if f.why != "" {
			continue
		}
		for _, s := range f.strays {
			found := v1alpha1.Finding{
				Code: v1alpha1.FindingUnfollowed, Severity: v1alpha1.SeverityWarning, Object: f.String(), Field: s.field,
				Message: fmt.Sprintf("this has %s send %s", f.gateway, s.what), Fix: "name all Services of the gateway in spec.backends.services",
			}
			if services == 0 {
				found.Severity = v1alpha1.SeverityError
			}
			if !slices.Contains(m.plan.Findings, found) { // another may delegate to it too
				m.found(found)
			}
		}
	}
}

// nothingRouted finds gateways that no route names, nor any of their ListenerSets.
func (m *maker) nothingRouted(services int) {
	policy, _ := m.waypointPolicy()
	if policy == v1alpha1.WaypointNone || services > 0 || m.counted > 0 || len(m.doubts) > 0 {
		return
	}
	for _, g := range m.gateways {
		if g.object == nil || slices.ContainsFunc(m.routesFor(g), func(r *route) bool { return m.parented(r, g) }) {
			continue
		}
		m.found(v1alpha1.Finding{
			Code: v1alpha1.FindingNoRoute, Severity: v1alpha1.SeverityInfo, Object: g.String(), Field: "spec.listeners",
			Message: "no route names this Gateway or a ListenerSet of it, and so no Service is wired",
			Fix:     "name all Services of the gateway in spec.backends.services, or give it a route",
		})
	}
}
