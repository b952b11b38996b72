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

// routedServices are the Services that routes name which a gateway has accepted, or which such routes delegate to. Other routes of the gateways become
// doubts.
func (m *maker) routedServices() []types.NamespacedName {
	var keys []types.NamespacedName
	for _, f := range m.follow() {
		m.ungranted(f.route, f.refs, f.why == "")
		if f.why == "" {
			granted := keysOf(f.refs, true)
			if len(granted) > 0 || len(f.refs) == 0 {
				m.counted++
			}
			keys = append(keys, granted...)
			if len(f.hidden) > 0 { // the gateway sends there, whoever consents
				why := "it delegates to routes of a namespace that does not consent"
				m.doubts = append(m.doubts, doubt{object: f.String(), why: why, decided: true, services: f.hidden})
			}
			continue
		}
		m.doubts = append(m.doubts, doubt{object: f.String(), why: f.why, decided: f.decided, services: f.reach})
		m.found(v1alpha1.Finding{
			Code: v1alpha1.FindingRouteNotCounted, Severity: v1alpha1.SeverityWarning, Object: f.String(), Field: "status.parents",
			Message: fmt.Sprintf("the backends of this route are left as they are: %s", f.why),
			Fix:     m.routeFix(f),
		})
	}
	return keys
}

// routeFix is what helps a route that does not count.
func (m *maker) routeFix(f *followed) string {
	const anyway = "see the route's conditions; what was done for it is taken back when it no longer names the gateway"
	if f.why != m.unreported(f.route, f.gateway) {
		return anyway
	}
	return fmt.Sprintf("see whether that controller runs and has accepted its class (kubectl describe gatewayclass %s), and whether a listener of %s admits the route; %s",
		f.gateway.object.Spec.GatewayClassName, f.gateway, anyway)
}

// ungranted finds the Services that a route must not name, as no ReferenceGrant lets it. The gateway knows that once its status says so of the
// route; resolved: it says the opposite, and may send there still, so that nobody knows what is wanted.
func (m *maker) ungranted(r *route, refs []backendRef, resolved bool) {
	for _, ref := range refs {
		if ref.granted {
			continue
		}
		why := fmt.Sprintf("it names Service %s, and no ReferenceGrant in namespace %s lets %ss of namespace %s do so", ref.key, ref.key.Namespace, r.kind, r.key.Namespace)
		fix := fmt.Sprintf("create a ReferenceGrant in namespace %s from %s in namespace %s to Service %s, or take the reference from the route",
			ref.key.Namespace, r.kind, r.key.Namespace, ref.key.Name)
		if m.namespace(ref.key.Namespace) == nil {
			why = fmt.Sprintf("it names Service %s, and namespace %s does not exist", ref.key, ref.key.Namespace)
			fix = fmt.Sprintf("correct the reference, or create the namespace, the Service and a ReferenceGrant from %s in namespace %s", r.kind, r.key.Namespace)
		}
		f := v1alpha1.Finding{
			Code: v1alpha1.FindingRouteNotCounted, Severity: v1alpha1.SeverityWarning, Object: r.String(), Field: ref.field,
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
			var of []string
			for _, key := range d.services {
				of = append(of, object("Service", key))
			}
			m.add(Step{part: partWire, of: of, watched: true, Step: v1alpha1.Step{Verb: VerbAwait, Object: d.object, State: state, Reason: d.why}})
		}
	}
}

// keeps says whether a Service has something of ours, though no route that counts names it.
func (m *maker) keeps(key types.NamespacedName) bool {
	s := m.service(key)
	return s != nil && holds(s, m.Edge.FieldOwner()) && !slices.ContainsFunc(m.backends, func(b *backend) bool { return b.key == key && b.wanted })
}

// counts says why a route does not count for a Gateway, or "": by one of its parentRefs it must be accepted, with all references resolved, at its
// current generation, as the controller of the Gateway's class says. decided: that controller has said so about this generation, or will not speak of the
// route at all, as no listener of the Gateway admits its namespace.
func (m *maker) counts(r *route, g *gateway) (why string, decided bool) {
	why = m.unreported(r, g)
	reports, denials := 0, 0
	parents := m.parents(g)
	for i := range parents {
		p := &parents[i]
		if p.why != "" && r.names(p) {
			why = p.why
			if reports++; p.decided {
				denials++
			}
		}
		for j := range r.look().reports {
			report := &r.reports[j]
			if p.why != "" || string(report.ControllerName) != m.controllerOf(g.object.Spec.GatewayClassName) || !r.asks(p, &report.ParentRef) {
				continue
			}
			missing, final := notSaid(report.Conditions, r.object.GetGeneration())
			if missing == "" {
				return "", true
			}
			why = fmt.Sprintf("%s has not said %s for generation %d", g, missing, r.object.GetGeneration())
			if reports++; final {
				denials++
			}
		}
	}
	if reports == 0 {
		return why, m.shutOut(r, g)
	}
	return why, reports == denials
}

// shutOut says whether a route names nothing of a gateway but the Gateway itself, and none of its listeners admits the route's namespace.
func (m *maker) shutOut(r *route, g *gateway) bool {
	parents := m.parents(g)
	return !slices.ContainsFunc(parents[1:], func(p parent) bool { return r.names(&p) }) && r.names(&parents[0]) && !m.admits(g.object, r.key.Namespace)
}

// unreported says who should have reported on a route and has not, and what may keep it from that.
func (m *maker) unreported(r *route, g *gateway) string {
	class := g.object.Spec.GatewayClassName
	why := fmt.Sprintf("%s has not reported on it, which controller %s of its class %s should", g, m.controllerOf(class), class)
	if len(g.vendor.Controller.Images) > 0 && len(m.controllers(&g.vendor)) == 0 {
		why += "; that is not seen to run in this cluster"
	}
	if r.names(&m.parents(g)[0]) && !m.admits(g.object, r.key.Namespace) {
		why += fmt.Sprintf("; none of its listeners admits routes of namespace %s (spec.listeners.allowedRoutes)", r.key.Namespace)
	}
	return why
}

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
