package plan

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// doubt is a route of one of the gateways that does not count, or not with all its Services.
type doubt struct {
	object, why string
	decided     bool // the gateway has said so about the route as it is
	grant       bool // a ReferenceGrant is missing, and the gateway has not said so
	services    []types.NamespacedName
}

// backendRef is a Service that a rule of a route names.
type backendRef struct {
	key     types.NamespacedName
	field   string // of the route
	granted bool   // it may be named: it is in the route's namespace, or its own has a ReferenceGrant
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
			refs := m.refsOf(r)
			why, decided := m.counts(r, g)
			m.ungranted(r, refs, why == "")
			if why == "" {
				granted := keysOf(refs, true)
				if len(granted) > 0 || len(refs) == 0 {
					m.counted++
				}
				keys = append(keys, granted...)
				continue
			}
			d := doubt{object: object("HTTPRoute", keyOf(r)), why: why, decided: decided, services: keysOf(refs, false)}
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

// ungranted finds the Services that a route must not name, as no ReferenceGrant lets it. The gateway knows that once its status says so of the
// route; resolved: it says the opposite, and may send there still, so that nobody knows what is wanted.
func (m *maker) ungranted(r *gatewayv1.HTTPRoute, refs []backendRef, resolved bool) {
	for _, ref := range refs {
		if ref.granted {
			continue
		}
		why := fmt.Sprintf("it names Service %s, and no ReferenceGrant in namespace %s lets HTTPRoutes of namespace %s do so", ref.key, ref.key.Namespace, r.Namespace)
		fix := fmt.Sprintf("create a ReferenceGrant in namespace %s from HTTPRoute in namespace %s to Service %s, or take the reference from the route",
			ref.key.Namespace, r.Namespace, ref.key.Name)
		if m.namespace(ref.key.Namespace) == nil {
			why = fmt.Sprintf("it names Service %s, and namespace %s does not exist", ref.key, ref.key.Namespace)
			fix = "correct the reference, or create the namespace, the Service and a ReferenceGrant from HTTPRoute in namespace " + r.Namespace
		}
		f := v1alpha1.Finding{
			Code: v1alpha1.FindingRouteNotCounted, Severity: v1alpha1.SeverityWarning, Object: object("HTTPRoute", keyOf(r)), Field: ref.field,
			Message: "this Service of the route is left as it is: " + why, Fix: fix,
		}
		if resolved {
			f.Message += "; the gateway has not noticed, and may send there"
			m.doubts = append(m.doubts, doubt{object: f.Object, why: why, grant: true, services: []types.NamespacedName{ref.key}})
		}
		if !slices.Contains(m.plan.Findings, f) { // the route may be of two of the gateways
			m.found(f)
		}
	}
}

// awaitRoutes adds a step for each route that may yet count, or that counted when its Services were wired. A route is such whenever it is edited,
// and whenever its gateway's controller begins anew: nothing is taken back then. Where no route counts, that is not as anybody wants it. A missing
// grant is for somebody to mend.
func (m *maker) awaitRoutes() {
	for _, d := range m.doubts {
		if d.decided && m.counted > 0 && !slices.ContainsFunc(d.services, m.keeps) {
			continue
		}
		m.unsure = true
		if !slices.ContainsFunc(m.plan.Steps, func(s Step) bool { return s.Verb == VerbAwait && s.Object == d.object }) {
			state := v1alpha1.StepNext
			if d.grant {
				state = v1alpha1.StepBlocked
			}
			m.add(Step{part: partWire, Step: v1alpha1.Step{Verb: VerbAwait, Object: d.object, State: state, Reason: d.why}})
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

// refsOf are the Services of a route's rules: those of other namespaces need their ReferenceGrant.
func (m *maker) refsOf(r *gatewayv1.HTTPRoute) []backendRef {
	var refs []backendRef
	for i, rule := range r.Spec.Rules {
		for j, b := range rule.BackendRefs {
			if b.Kind != nil && *b.Kind != "Service" || b.Group != nil && *b.Group != "" {
				continue
			}
			ref := backendRef{
				key:   types.NamespacedName{Namespace: r.Namespace, Name: string(b.Name)},
				field: fmt.Sprintf("spec.rules[%d].backendRefs[%d]", i, j),
			}
			if b.Namespace != nil {
				ref.key.Namespace = string(*b.Namespace)
			}
			ref.granted = ref.key.Namespace == r.Namespace || m.granted(r.Namespace, ref.key)
			refs = append(refs, ref)
		}
	}
	return refs
}

// keysOf are the Services that refs name: all, or those that they may name.
func keysOf(refs []backendRef, granted bool) []types.NamespacedName {
	var keys []types.NamespacedName
	for _, ref := range refs {
		if ref.granted || !granted {
			keys = append(keys, ref.key)
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
