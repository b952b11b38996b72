package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
)

// maxDelegation is how many routes may delegate to each other in a row, beginning with that of the Gateway.
const maxDelegation = 16

// Choice says which HTTPRoutes a route delegates to.
type Choice struct {
	Namespace  string // empty: any
	Name       string // empty: any
	Key, Value string // a label that they have; an empty Key asks for none
}

// Has says whether an HTTPRoute is among them.
func (c *Choice) Has(o metav1.Object) bool {
	return (c.Namespace == "" || c.Namespace == o.GetNamespace()) && (c.Name == "" || c.Name == o.GetName()) && (c.Key == "" || o.GetLabels()[c.Key] == c.Value)
}

// choice is what a reference of a route chooses, as a vendor reads it. It reports whether it is one to routes.
func choice(d *edge.Delegation, ref *gatewayv1.BackendObjectReference, namespace string) (Choice, bool) {
	if ref.Group == nil || ref.Kind == nil {
		return Choice{}, false
	}
	if ref.Namespace != nil {
		namespace = string(*ref.Namespace)
	}
	c := Choice{Namespace: namespace, Name: string(ref.Name)}
	switch {
	case *ref.Group == gatewayv1.GroupName && *ref.Kind == "HTTPRoute":
		if key, v, is := strings.Cut(c.Name, "="); is && d.NameIsLabel {
			c.Name, c.Key, c.Value = "", key, v
		}
		if c.Name == "*" {
			c.Name = ""
		}
	case d.Group != "" && string(*ref.Group) == d.Group && string(*ref.Kind) == d.Kind:
		c.Name, c.Key, c.Value = "", d.Label, c.Name
		if namespace == d.Anywhere {
			c.Namespace = ""
		}
	default:
		return Choice{}, false
	}
	return c, true
}

// Choices are what an HTTPRoute delegates to, as any of the vendors would read it.
func Choices(o *gatewayv1.HTTPRoute) []Choice {
	var list []Choice
	r := (&route{kind: "HTTPRoute", key: keyOf(o), object: o}).look()
	for _, d := range edge.Delegations() {
		for i := range r.sends {
			if c, is := choice(&d, r.sends[i].ref, o.Namespace); is && !r.sends[i].copies && !slices.Contains(list, c) {
				list = append(list, c)
			}
		}
	}
	return list
}

// followed is a route by which a gateway sends, or may.
type followed struct {
	*route
	gateway *gateway
	by      *followed // the route that delegates to it; nil: it is the Gateway's own
	refs    []backendRef
	strays  []stray
	// why it does not count, empty if it does. decided: the gateway has said so about the route as it is.
	why     string
	decided bool
	// reach are the Services that it leads to, by other routes too, whether they count or not.
	reach []types.NamespacedName
	// hidden are the Services that it leads to by routes of namespaces of which nothing is to be told.
	hidden []types.NamespacedName
}

// sendsTo says whether a rule of the route names a Service, and may.
func (f *followed) sendsTo(b *backend) bool {
	return slices.ContainsFunc(f.refs, func(ref backendRef) bool { return ref.granted && ref.key == b.key })
}

// follow finds the routes of all gateways, and those that they delegate to.
func (m *maker) follow() []*followed {
	if m.allFollowed != nil {
		return m.allFollowed
	}
	m.allFollowed = []*followed{}
	for _, r := range m.routesFor(m.gateways...) {
		for _, g := range m.gateways {
			if g.object == nil || r.kind == kindUDPRoute || !m.parented(r, g) {
				continue
			}
			f := &followed{route: r, gateway: g, refs: m.refsOf(r)}
			f.why, f.decided = m.counts(r, g)
			m.allFollowed = append(m.allFollowed, f)
			w := &walk{maker: m, gateway: g, delegation: g.vendor.Delegation, edges: map[[2]*route]bool{}, expanded: map[*route]bool{r: true}}
			w.descend(f, []*route{r})
		}
	}
	return m.allFollowed
}

// walk goes from one route of a gateway to all that it delegates to.
type walk struct {
	*maker
	gateway    *gateway
	delegation *edge.Delegation // nil: it delegates nothing
	edges      map[[2]*route]bool
	expanded   map[*route]bool
}

// descend follows a route: where it does not count, only to what it might lead to. on are the routes on the way, itself the last.
func (w *walk) descend(f *followed, on []*route) {
	f.reach = keysOf(f.refs, false)
	delegates := false
	for i := range f.look().sends {
		s := &f.sends[i]
		c, is := Choice{}, false
		if w.delegation != nil && f.kind == "HTTPRoute" && !s.copies {
			c, is = choice(w.delegation, s.ref, f.key.Namespace)
		}
		if !is {
			if what := f.stray(s, f.refs); what != "" {
				f.strays = append(f.strays, stray{s.field, what + ", which is not followed" + leftAlone})
			}
			continue
		}
		delegates = true
		if f.why == "" {
			w.delegate(f, s, &c, on)
		}
	}
	if delegates && f.why != "" {
		f.reach = append(f.reach, w.below(f.route, map[*route]bool{f.route: true})...)
	}
	slices.SortFunc(f.reach, func(a, b types.NamespacedName) int { return strings.Compare(a.String(), b.String()) })
	f.reach = slices.Compact(f.reach)
}

// delegate follows one reference of a route to others.
func (w *walk) delegate(f *followed, s *send, c *Choice, on []*route) {
	is, key := f.kindOf(s.ref)
	what := "to " + object(is, key)
	found := false
	for _, child := range w.children(f.route, c) {
		found = true
		switch {
		case w.concealed(child.key.Namespace):
			w.veil(child.key.Namespace, f.String())
			f.hidden = append(f.hidden, keysOf(w.refsOf(child), false)...)
			continue
		case slices.Contains(on, child):
			f.strays = append(f.strays, stray{s.field, fmt.Sprintf("%s, and %s is on the way there already: the gateway leaves that out", what, child)})
			continue
		case len(on) >= maxDelegation:
			f.strays = append(f.strays, stray{s.field, fmt.Sprintf("%s, the %dth route in a row, which is not followed%s", what, len(on)+1, leftAlone)})
			continue
		case w.edges[[2]*route{f.route, child}]:
			continue
		}
		w.edges[[2]*route{f.route, child}] = true
		next := &followed{route: child, gateway: w.gateway, by: f, refs: w.refsOf(child)}
		next.why, next.decided = w.handed(f.route, child, c)
		w.allFollowed = append(w.allFollowed, next)
		if next.why != "" || !w.expanded[child] {
			w.expanded[child] = w.expanded[child] || next.why == ""
			w.descend(next, append(slices.Clone(on), child))
		}
	}
	if !found {
		f.strays = append(f.strays, stray{s.field, what + ", and no route there takes it" + leftAlone})
	}
}

// children are the routes that one chooses and that take from it: those that name it as parent, or nothing.
func (w *walk) children(r *route, c *Choice) []*route {
	by := parentRoute(r)
	var list []*route
	for _, o := range w.routesUnder(&by) {
		if o.kind == "HTTPRoute" && c.Has(o.object) && (len(o.parents) == 0 || o.names(&by)) {
			list = append(list, o)
		}
	}
	return list
}

// below are the Services that a route leads to by others, whether they count or not.
func (w *walk) below(r *route, seen map[*route]bool) []types.NamespacedName {
	var keys []types.NamespacedName
	for i := range r.look().sends {
		c, is := choice(w.delegation, r.sends[i].ref, r.key.Namespace)
		if !is || r.sends[i].copies {
			continue
		}
		for _, child := range w.children(r, &c) {
			if !seen[child] && !w.concealed(child.key.Namespace) {
				seen[child] = true
				keys = append(keys, keysOf(w.refsOf(child), false)...)
				keys = append(keys, w.below(child, seen)...)
			}
		}
	}
	return keys
}

func parentRoute(r *route) parent {
	return parent{group: gatewayv1.GroupName, kind: r.kind, key: r.key}
}

// handed says why a route does not count for one that delegates to it, or "": the gateway must have accepted it so, with all references resolved, at its
// present generation. decided: it has said so; or it was not asked for by name, and takes nothing of what is delegated.
func (w *walk) handed(by, r *route, c *Choice) (why string, decided bool) {
	if len(r.parents) == 0 && w.delegation.Silent {
		return "", true
	}
	p := parentRoute(by)
	why = fmt.Sprintf("%s has not reported on it for %s", w.gateway, by)
	decided = len(r.parents) == 0 && c.Name == ""
	for i := range r.look().reports {
		report := &r.reports[i]
		if string(report.ControllerName) != w.controllerOf(w.gateway.object.Spec.GatewayClassName) || !p.is(&report.ParentRef, r.key.Namespace) {
			continue
		}
		missing, final := notSaid(report.Conditions, r.object.GetGeneration())
		if missing == "" {
			return "", true
		}
		why, decided = fmt.Sprintf("%s has not said %s for generation %d and %s", w.gateway, missing, r.object.GetGeneration(), by), final
	}
	return why, decided
}

// veil notes that a route delegates to a namespace of which nothing is to be told.
func (m *maker) veil(namespace, by string) {
	if m.veiled == nil {
		m.veiled = map[string][]string{}
	}
	if !slices.Contains(m.veiled[namespace], by) {
		m.veiled[namespace] = append(m.veiled[namespace], by)
	}
}

// unveil finds the namespaces that routes delegate to and that have not consented: what is in their routes is not followed. It is an error where there
// is no other Service.
func (m *maker) unveil(services int) {
	if policy, _ := m.waypointPolicy(); policy == v1alpha1.WaypointNone {
		return
	}
	severity := v1alpha1.SeverityWarning
	if services == 0 {
		severity = v1alpha1.SeverityError
	}
	for _, ns := range slices.Sorted(maps.Keys(m.veiled)) {
		for _, by := range m.veiled[ns] {
			m.lacks(ns, lack{
				severity: severity, before: fmt.Sprintf("this namespace has not consented to AmbientEdge %s, whose gateway is led to its routes by ", keyOf(m.Edge)),
				after: "; what they send to is left as it is, and nothing is told of what is there",
			}, by, groupKind{"", "Service"})
		}
	}
}
