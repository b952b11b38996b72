package plan

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// doubt is a route of one of the gateways that does not count.
type doubt struct {
	object, why string
	decided     bool // the gateway has said so about the route as it is
	services    []types.NamespacedName
}

// routedServices are the Services that HTTPRoutes name which a gateway has accepted. Other routes of the gateways become doubts.
func (m *maker) routedServices() []types.NamespacedName {
	var keys []types.NamespacedName
	for i := range m.HTTPRoutes {
		r := &m.HTTPRoutes[i]
		for _, g := range m.gateways {
			if g.object == nil || !parented(r, g) {
				continue
			}
			why, decided := m.counts(r, g)
			if why == "" {
				m.counted++
				keys = append(keys, m.servicesOf(r)...)
				continue
			}
			d := doubt{object("HTTPRoute", keyOf(r)), why, decided, m.servicesOf(r)}
			m.doubts = append(m.doubts, d)
			m.found(v1alpha1.Finding{
				Code: v1alpha1.FindingRouteNotCounted, Severity: v1alpha1.SeverityWarning, Object: d.object, Field: "status.parents",
				Message: fmt.Sprintf("the backends of this route are left as they are: %s", why),
				Fix:     "see the route's conditions; what was done for it is taken back when it no longer names the gateway",
			})
		}
	}
	return keys
}

// awaitRoutes adds a step for each route that may yet count, or that counted when its Services were wired. A route is such whenever it is edited,
// and whenever its gateway's controller begins anew: nothing is taken back then. Where no route counts, that is not as anybody wants it.
func (m *maker) awaitRoutes() {
	for _, d := range m.doubts {
		if d.decided && m.counted > 0 && !slices.ContainsFunc(d.services, m.keeps) {
			continue
		}
		m.unsure = true
		if !slices.ContainsFunc(m.plan.Steps, func(s Step) bool { return s.Verb == VerbAwait && s.Object == d.object }) {
			m.add(Step{part: partWire, Step: v1alpha1.Step{Verb: VerbAwait, Object: d.object, State: v1alpha1.StepNext, Reason: d.why}})
		}
	}
}

// keeps says whether a Service has something of ours, though no route that counts names it.
func (m *maker) keeps(key types.NamespacedName) bool {
	s := m.service(key)
	return s != nil && holds(s, m.Edge.FieldOwner()) && !slices.ContainsFunc(m.backends, func(b *backend) bool { return b.key == key && b.wanted })
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

// counts says why a route does not count for a Gateway, or "": by one of its parentRefs it must be accepted, with all references resolved, at its
// current generation, as the controller of the Gateway's class says. decided: that controller has said so about this generation.
func (m *maker) counts(r *gatewayv1.HTTPRoute, g *gateway) (why string, decided bool) {
	why = fmt.Sprintf("%s has not reported on it", g)
	reports, denials := 0, 0
	for i := range r.Status.Parents {
		p := &r.Status.Parents[i]
		if string(p.ControllerName) != m.controllerOf(g.object.Spec.GatewayClassName) || !refersTo(&p.ParentRef, r.Namespace, g.key) || !asked(r, &p.ParentRef, g) {
			continue
		}
		missing, final := notSaid(p.Conditions, r.Generation)
		if missing == "" {
			return "", true
		}
		why = fmt.Sprintf("%s has not said %s for generation %d", g, missing, r.Generation)
		if reports++; final {
			denials++
		}
	}
	return why, reports > 0 && reports == denials
}

// asked says whether a status is about one of the route's parentRefs for a Gateway, and not about one that it has no more.
func asked(r *gatewayv1.HTTPRoute, status *gatewayv1.ParentReference, g *gateway) bool {
	return slices.ContainsFunc(r.Spec.ParentRefs, func(p gatewayv1.ParentReference) bool {
		return refersTo(&p, r.Namespace, g.key) && same(p.SectionName, status.SectionName) && same(p.Port, status.Port)
	})
}

func same[T comparable](a, b *T) bool { return a == b || a != nil && b != nil && *a == *b }

// notSaid is the first condition that is not said of a generation, or "". final: it is denied.
func notSaid(conditions []metav1.Condition, generation int64) (missing gatewayv1.RouteConditionType, final bool) {
	said := map[string]metav1.ConditionStatus{}
	for _, c := range conditions {
		if c.ObservedGeneration == generation {
			said[c.Type] = c.Status
		}
	}
	for _, want := range []gatewayv1.RouteConditionType{gatewayv1.RouteConditionAccepted, gatewayv1.RouteConditionResolvedRefs} {
		if said[string(want)] != metav1.ConditionTrue {
			return want, said[string(want)] == metav1.ConditionFalse
		}
	}
	return "", true
}

// mentions says whether a rule of a route names a backend so, of whatever kind and namespace.
func mentions(r *gatewayv1.HTTPRoute, name string) bool {
	for _, rule := range r.Spec.Rules {
		for i := range rule.BackendRefs {
			if string(rule.BackendRefs[i].Name) == name {
				return true
			}
		}
	}
	return false
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
