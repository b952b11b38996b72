package plan

import (
	"cmp"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
)

const switchHow = "let the gateway send to the Service's address"

// fits says whether a switch is for the way in which a gateway is told of Services.
func (g *gateway) fits(s *edge.Switch) bool {
	return s.For == edge.ForAll || (s.For == edge.ForRoutes) == (g.kind == "Gateway")
}

// chosen is the switch that is set for a gateway, or the first that its owners have to set, or nil.
func (m *maker) chosen(g *gateway) *edge.Switch {
	var byHand *edge.Switch
	for i := range g.vendor.Switches {
		switch s := &g.vendor.Switches[i]; {
		case !g.fits(s):
		case !s.Writable():
			byHand = cmp.Or(byHand, s)
		case s.On != edge.OnParameters || g.merged == nil && m.parameters(g, s) != nil:
			return s
		}
	}
	return byHand
}

// parameters are those that a Gateway refers to, and no other, or nil.
func (m *maker) parameters(g *gateway, s *edge.Switch) *unstructured.Unstructured {
	name := parametersRef(g, s)
	if name == "" {
		return nil
	}
	for i := range m.Gateways {
		o := &gateway{key: keyOf(&m.Gateways[i]), object: &m.Gateways[i]}
		if o.key != g.key && o.key.Namespace == g.key.Namespace && parametersRef(o, s) == name {
			return nil // a neighbour's too
		}
	}
	return m.vendorObject(s.Kind, g.key.Namespace, name)
}

// parametersRef is the name of the parameters of a switch's kind that a Gateway refers to, or "".
func parametersRef(g *gateway, s *edge.Switch) string {
	if g.object == nil || g.object.Spec.Infrastructure == nil || g.object.Spec.Infrastructure.ParametersRef == nil {
		return ""
	}
	if ref := g.object.Spec.Infrastructure.ParametersRef; string(ref.Group) == s.Kind.Group && string(ref.Kind) == s.Kind.Kind {
		return ref.Name
	}
	return ""
}

func (m *maker) vendorObject(k edge.Kind, namespace, name string) *unstructured.Unstructured {
	for _, o := range m.objects(k) {
		if o.GetNamespace() == namespace && o.GetName() == name {
			return o
		}
	}
	return nil
}

// objects are those of a kind, the oldest first.
func (m *maker) objects(k edge.Kind) []*unstructured.Unstructured {
	var list []*unstructured.Unstructured
	for _, o := range m.Objects {
		if o.GetKind() == k.Kind && o.GroupVersionKind().Group == k.Group {
			list = append(list, o)
		}
	}
	slices.SortFunc(list, func(a, b *unstructured.Unstructured) int {
		return cmp.Or(a.GetCreationTimestamp().Compare(b.GetCreationTimestamp().Time), compareKeys(keyOf(a), keyOf(b)))
	})
	return list
}

// switches adds the steps that have gateways send to a Service's address, where these are set for one Service.
func (m *maker) switches(b *backend, way []setting) {
	m.headless(b)
	if len(b.settings) > 0 {
		m.serviceStep(b, VerbSwitch, switchHow, b.settings, way)
	}
	for _, g := range m.gateways {
		m.losses(g, b)
		s := m.chosen(g)
		if s == nil {
			continue
		}
		m.unreached(g, s, b)
		told := s.On != edge.OnIngress && s.On != edge.OnList
		switch s.On {
		case edge.OnIngress:
			for _, in := range m.ingresses(g) {
				if slices.Contains(servicesOfIngress(in), b.key) {
					told = true
					m.addSwitch(m.put(carrier{"networking.k8s.io/v1", "Ingress", in}, VerbSwitch, switchHow, []setting{{s.Path, s.Value}}, nil), m.backendsOf(servicesOfIngress(in)))
				}
			}
		case edge.OnServiceByRef:
			m.policy(g, s, b.key.Namespace, b.key.Name, b.itself())
		}
		if listed := m.lists(g, b); !told && !listed {
			m.noSwitch(g, b.String(), fmt.Sprintf("%s is told of %s by nothing that is seen here", g, b))
		}
	}
}

// unreached finds routes to a Service of a kind that a switch does nothing for.
func (m *maker) unreached(g *gateway, s *edge.Switch, b *backend) {
	for _, f := range m.follow() {
		if f.gateway == g && f.why == "" && slices.Contains(s.NotFor, f.kind) && f.sendsTo(b) {
			m.noSwitch(g, f.String(), fmt.Sprintf("what %ss send goes to the pods of %s, as %s of %s does nothing for them", f.kind, b, s.Field(), s.Kind.Kind))
		}
	}
}

// addSwitch adds a step once: an object may carry the switch of several Services, and a policy that of several gateways. of are its Services; none: it is
// that of a gateway for all of them. It comes when the last of its Services is wired.
func (m *maker) addSwitch(s Step, of []string) {
	s.part, s.of, s.wide = partWire, of, len(of) == 0
	i := slices.IndexFunc(m.plan.Steps, func(o Step) bool { return o.Verb == s.Verb && o.Object == s.Object })
	if i < 0 {
		m.add(s, partEnrol, partWaypoint, partWire)
		return
	}
	is := m.plan.Steps[i]
	switch {
	case is.wide:
		return
	case s.wide:
		is.wide, is.of = true, nil
	default:
		is.of = slices.Clone(is.of)
		for _, o := range of {
			if !slices.Contains(is.of, o) {
				is.of = append(is.of, o)
			}
		}
	}
	m.plan.Steps = append(slices.Delete(m.plan.Steps, i, i+1), is)
}

// switchGateways adds the steps that are set for a Gateway as a whole, when its Services are wired.
func (m *maker) switchGateways() {
	if !slices.ContainsFunc(m.backends, func(b *backend) bool { return b.wanted }) {
		return
	}
	for _, g := range m.gateways {
		s := m.chosen(g)
		switch {
		case s == nil && g.vendor.NoSwitch != "":
			m.noSwitch(g, g.String(), g.vendor.NoSwitch)
			continue
		case s == nil:
			continue
		}
		m.idle(g, s)
		m.overridden(g, s)
		switch s.On {
		case edge.OnParameters:
			o := m.parameters(g, s)
			m.addSwitch(m.put(carrier{s.Kind.APIVersion(), s.Kind.Kind, o}, VerbSwitch, "let the gateway send to Services' addresses", []setting{{s.Path, s.Value}}, nil), nil)
		case edge.OnGateway:
			m.policy(g, s, g.key.Namespace, g.key.Name, nil)
		}
	}
}

// backendsOf are those of the wanted backends that are among Services.
func (m *maker) backendsOf(services []types.NamespacedName) []string {
	var list []string
	for _, b := range m.backends {
		if b.wanted && slices.Contains(services, b.key) {
			list = append(list, b.String())
		}
	}
	return list
}

func (m *maker) noSwitch(g *gateway, obj, why string) {
	m.found(v1alpha1.Finding{
		Code: v1alpha1.FindingNoSwitch, Severity: v1alpha1.SeverityError, Object: obj, Field: "spec",
		Message: fmt.Sprintf("requests by %s go past the waypoint, and its policies are not enforced: %s", g, why),
		Fix:     "set spec.waypoint.policy to None to have the gateway in the mesh without waypoints, or take the Service from backends",
	})
}

// lists looks at objects whose owners alone can set the switch, and says whether any names the Service.
func (m *maker) lists(g *gateway, b *backend) (named bool) {
	for i := range g.vendor.Switches {
		s := &g.vendor.Switches[i]
		if s.Writable() || !g.fits(s) {
			continue
		}
		for _, o := range m.objects(s.Kind) {
			for _, item := range items(o.Object, s.List) {
				ns, _ := item["namespace"].(string)
				if item[s.Name] != b.key.Name || cmp.Or(ns, o.GetNamespace()) != b.key.Namespace {
					continue
				}
				named = true
				if v, _, _ := unstructured.NestedFieldNoCopy(item, s.Path...); fmt.Sprint(v) == fmt.Sprint(s.Value) {
					continue
				}
				m.found(v1alpha1.Finding{
					Code: v1alpha1.FindingNoSwitch, Severity: v1alpha1.SeverityError, Object: object(o.GetKind(), keyOf(o)), Field: s.Field(),
					Message: fmt.Sprintf("by this object %s sends to the pods of %s, past its waypoint; a list has one owner, and so it is not written for you", g, b),
					Fix:     fmt.Sprintf("set %s: %v there, for %s: %s", edge.Field(s.Path), s.Value, s.Name, b.key.Name),
				})
			}
		}
	}
	return named
}

// items are the maps at the end of a path through maps and lists.
func items(tree any, path []string) []map[string]any {
	switch t := tree.(type) {
	case map[string]any:
		if len(path) == 0 {
			return []map[string]any{t}
		}
		return items(t[path[0]], path[1:])
	case []any:
		var list []map[string]any
		for _, x := range t {
			list = append(list, items(x, path)...)
		}
		return list
	}
	return nil
}
