package plan

import (
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// routedServices are the Services that HTTPRoutes name which a gateway has accepted.
func (m *maker) routedServices() []types.NamespacedName {
	var keys []types.NamespacedName
	for i := range m.HTTPRoutes {
		r := &m.HTTPRoutes[i]
		for _, g := range m.gateways {
			if g.object == nil || !parented(r, g) {
				continue
			}
			if why := counts(r, g); why != "" {
				m.found(v1alpha1.Finding{
					Code: v1alpha1.FindingRouteNotCounted, Severity: v1alpha1.SeverityWarning, Object: object("HTTPRoute", keyOf(r)), Field: "status.parents",
					Message: fmt.Sprintf("the backends of this route are left alone: %s", why), Fix: "see the route's conditions",
				})
				continue
			}
			keys = append(keys, m.servicesOf(r)...)
		}
	}
	return keys
}

// parented says whether the route names the Gateway.
func parented(r *gatewayv1.HTTPRoute, g *gateway) bool {
	for i := range r.Spec.ParentRefs {
		if refersTo(&r.Spec.ParentRefs[i], r.Namespace, g.key) {
			return true
		}
	}
	return false
}

func refersTo(p *gatewayv1.ParentReference, namespace string, key types.NamespacedName) bool {
	if p.Namespace != nil {
		namespace = string(*p.Namespace)
	}
	return (p.Group == nil || *p.Group == gatewayv1.GroupName) && (p.Kind == nil || *p.Kind == "Gateway") &&
		namespace == key.Namespace && string(p.Name) == key.Name
}

// counts says why a route does not count for a Gateway, or "": it must be accepted, with all references resolved, at its
// current generation.
func counts(r *gatewayv1.HTTPRoute, g *gateway) string {
	for i := range r.Status.Parents {
		p := &r.Status.Parents[i]
		if !refersTo(&p.ParentRef, r.Namespace, g.key) {
			continue
		}
		held := map[string]bool{}
		for _, c := range p.Conditions {
			held[c.Type] = c.Status == "True" && c.ObservedGeneration == r.Generation
		}
		for _, want := range []gatewayv1.RouteConditionType{gatewayv1.RouteConditionAccepted, gatewayv1.RouteConditionResolvedRefs} {
			if !held[string(want)] {
				return fmt.Sprintf("%s has not said %s for generation %d", g, want, r.Generation)
			}
		}
		return ""
	}
	return fmt.Sprintf("%s has not reported on it", g)
}

// servicesOf are the Services of a route's rules that it may name: those of other namespaces need their ReferenceGrant.
func (m *maker) servicesOf(r *gatewayv1.HTTPRoute) []types.NamespacedName {
	var keys []types.NamespacedName
	for _, rule := range r.Spec.Rules {
		for _, b := range rule.BackendRefs {
			if b.Kind != nil && *b.Kind != "Service" || b.Group != nil && *b.Group != "" {
				continue
			}
			key := types.NamespacedName{Namespace: r.Namespace, Name: string(b.Name)}
			if b.Namespace != nil {
				key.Namespace = string(*b.Namespace)
			}
			if key.Namespace == r.Namespace || m.granted(r.Namespace, key) {
				keys = append(keys, key)
			}
		}
	}
	return keys
}

// granted says whether HTTPRoutes of a namespace may send to a Service of another.
func (m *maker) granted(from string, to types.NamespacedName) bool {
	for i := range m.ReferenceGrants {
		g := &m.ReferenceGrants[i]
		if g.Namespace != to.Namespace {
			continue
		}
		isFrom, isTo := false, false
		for _, f := range g.Spec.From {
			isFrom = isFrom || string(f.Group) == gatewayv1.GroupName && f.Kind == "HTTPRoute" && string(f.Namespace) == from
		}
		for _, t := range g.Spec.To {
			isTo = isTo || t.Group == "" && t.Kind == "Service" && (t.Name == nil || string(*t.Name) == to.Name)
		}
		if isFrom && isTo {
			return true
		}
	}
	return false
}
