package plan

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// stray is something that a rule of a route sends to, and that is not followed to a Service.
type stray struct{ field, what string }

// strays are those of a route: what is no Service, as a route that it delegates to, a vendor's backend or a ServiceImport; and where requests are
// mirrored to, unless it is a Service that the route sends to anyway.
func strays(r *gatewayv1.HTTPRoute, refs []backendRef) (list []stray) {
	mirrors := func(at string, filters []gatewayv1.HTTPRouteFilter) {
		for i := range filters {
			m := filters[i].RequestMirror
			if m == nil {
				continue
			}
			is, key := kindOf(r, &m.BackendRef)
			if is == "Service" && slices.ContainsFunc(refs, func(ref backendRef) bool { return ref.key == key }) {
				continue
			}
			list = append(list, stray{fmt.Sprintf("%s.filters[%d].requestMirror", at, i), "copies to " + object(is, key)})
		}
	}
	for i := range r.Spec.Rules {
		rule := &r.Spec.Rules[i]
		at := fmt.Sprintf("spec.rules[%d]", i)
		mirrors(at, rule.Filters)
		for j := range rule.BackendRefs {
			b := &rule.BackendRefs[j]
			field := fmt.Sprintf("%s.backendRefs[%d]", at, j)
			if is, key := kindOf(r, &b.BackendObjectReference); is != "Service" {
				list = append(list, stray{field, "to " + object(is, key)})
			}
			mirrors(field, b.Filters)
		}
	}
	return list
}

// kindOf is what a route refers to: Service, or another kind with its group where that is not the route's own.
func kindOf(r *gatewayv1.HTTPRoute, ref *gatewayv1.BackendObjectReference) (string, types.NamespacedName) {
	key := types.NamespacedName{Namespace: r.Namespace, Name: string(ref.Name)}
	if ref.Namespace != nil {
		key.Namespace = string(*ref.Namespace)
	}
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
	return is, key
}

// unfollowed finds what routes that count send to past the Services that are looked at. It is an error where there is no Service at all: nothing
// would be wired, and all seem well.
func (m *maker) unfollowed(services int) {
	policy, _ := m.waypointPolicy()
	if policy == v1alpha1.WaypointNone {
		return
	}
	for i := range m.HTTPRoutes {
		r := &m.HTTPRoutes[i]
		for _, g := range m.gateways {
			if g.object == nil || !parented(r, g) {
				continue
			}
			if why, _ := m.counts(r, g); why != "" {
				continue
			}
			for _, s := range strays(r, m.refsOf(r)) {
				f := v1alpha1.Finding{
					Code: v1alpha1.FindingUnfollowed, Severity: v1alpha1.SeverityWarning, Object: object("HTTPRoute", keyOf(r)), Field: s.field,
					Message: fmt.Sprintf("this has %s send %s, which is not followed: what is behind it is left as it is, and its waypoints may be gone past", g, s.what),
					Fix:     "name all Services of the gateway in spec.backends.services",
				}
				if services == 0 {
					f.Severity = v1alpha1.SeverityError
				}
				m.found(f)
			}
		}
	}
}

// nothingRouted finds gateways that no route of any kind names. Those that name one of its ListenerSets are not seen: where the Gateway admits such, it
// is an error.
func (m *maker) nothingRouted(services int) {
	policy, _ := m.waypointPolicy()
	if policy == v1alpha1.WaypointNone || services > 0 || m.counted > 0 || len(m.doubts) > 0 {
		return
	}
	for _, g := range m.gateways {
		if g.object == nil || slices.ContainsFunc(m.HTTPRoutes, func(r gatewayv1.HTTPRoute) bool { return parented(&r, g) }) ||
			slices.ContainsFunc(m.OtherRoutes, func(r *unstructured.Unstructured) bool { return parentedByAny(r, g) }) {
			continue
		}
		f := v1alpha1.Finding{
			Code: v1alpha1.FindingNoRoute, Severity: v1alpha1.SeverityInfo, Object: g.String(), Field: "spec.listeners",
			Message: "no route names this Gateway, and so no Service is wired; routes that name a ListenerSet are not followed",
			Fix:     "name all Services of the gateway in spec.backends.services, or give it a route",
		}
		if l := g.object.Spec.AllowedListeners; l != nil && l.Namespaces != nil && l.Namespaces.From != nil && *l.Namespaces.From != gatewayv1.NamespacesFromNone {
			f.Severity, f.Field = v1alpha1.SeverityError, "spec.allowedListeners"
		}
		m.found(f)
	}
}
