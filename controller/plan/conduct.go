package plan

import (
	"cmp"
	"fmt"
	"slices"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/edge/rules"
)

// way is one by which a gateway sends requests on: a rule of a route, by one listener, to one of its backends.
type way struct {
	gateway *gateway
	route   *route
	section string // of the route, as rules[1]
	service types.NamespacedName
	rules   []*rules.Rule
	// unseen says why not all is known that the gateway does on the way. Empty: it is.
	unseen string
}

func (w *way) String() string {
	if w.route == nil {
		return w.gateway.String()
	}
	return fmt.Sprintf("%s %s of %s", w.route, w.section, w.gateway)
}

// readWhole are the vendors of whose gateways all is read that says what becomes of requests. Others may obey annotations of routes, which caches drop, or
// objects that nobody here reads.
func readWhole() []string { return []string{"istio", "kgateway", "envoy-gateway"} }

// RuleKinds are the kinds without Go types here that say what gateways do to requests, where plans look at that. A cluster may lack any of them. What
// Istio has for routes of its own kind, and for endpoints, says nothing of headers on the way through a route of the Gateway API.
func RuleKinds() []schema.GroupVersionKind {
	return slices.DeleteFunc(rules.Kinds(readWhole()...), func(k schema.GroupVersionKind) bool {
		return slices.Contains([]string{"", securityGroup, gatewayv1.GroupName, "networking.k8s.io"}, k.Group) || k.Kind == "VirtualService" || k.Kind == "DestinationRule"
	})
}

// ways are all of the edge's gateways. A gateway of which they are not known has one, which says so.
func (m *maker) ways() []*way {
	if m.known.ways != nil {
		return m.known.ways
	}
	objects := m.newUntyped()
	list := []*way{}
	for _, g := range m.gateways {
		if why := m.unread(g); why != "" {
			list = append(list, &way{gateway: g, unseen: why})
			continue
		}
		var routes []rules.Route
		for _, f := range m.follow() {
			if f.gateway == g {
				routes = append(routes, rules.Route{Ref: rules.Ref{Group: gatewayv1.GroupName, Kind: f.kind, Namespace: f.key.Namespace, Name: f.key.Name}})
			}
		}
		ref := rules.Ref{Group: gatewayv1.GroupName, Kind: "Gateway", Namespace: g.key.Namespace, Name: g.key.Name}
		of := rules.Gateway{Ref: ref, Root: m.Root(), PodNamespace: g.key.Namespace}
		for _, p := range m.parents(g) {
			if p.kind != "Gateway" {
				of.ListenerSets = append(of.ListenerSets, rules.Ref{Group: p.group, Kind: p.kind, Namespace: p.key.Namespace, Name: p.key.Name})
			}
		}
		if len(g.pods) > 0 {
			of.PodNamespace, of.PodLabels = g.pods[0].Namespace, g.pods[0].Labels
		}
		set := rules.Of(g.vendor.Name, of, routes, objects)
		for _, f := range m.follow() {
			if f.gateway == g {
				list = append(list, m.waysOf(f, set, ref)...)
			}
		}
	}
	m.known.ways = list
	return list
}

// unread says why it is not known what a gateway does to requests, or "".
func (m *maker) unread(g *gateway) string {
	switch {
	case g.object == nil:
		return "what a gateway does that is named by its workload is not read"
	case !slices.Contains(readWhole(), g.vendor.Name):
		return fmt.Sprintf("what gateways of kind %s do to requests is not read whole", g.vendor.Name)
	case g.merged != nil || g.vendor.Proxies.Shared:
		return "its pods serve other Gateways too, under the same identity"
	}
	for _, k := range m.RulesHidden {
		if slices.ContainsFunc(rules.Kinds(g.vendor.Name), func(o schema.GroupVersionKind) bool { return o.Group == k.Group && o.Kind == k.Kind }) {
			return fmt.Sprintf("the controller may not read objects of kind %s (%s)", k.Kind, k.APIVersion())
		}
	}
	return ""
}

// waysOf are those through a route, whether it counts or not: it may yet.
func (m *maker) waysOf(f *followed, set *rules.Set, ref rules.Ref) (list []*way) {
	base := way{gateway: f.gateway, route: f.route, section: "rules"}
	switch f.kind {
	case "HTTPRoute", "GRPCRoute":
	case "TLSRoute", "TCPRoute":
		base.unseen = "it passes the client's bytes on, whatever is in them"
	default:
		base.unseen = "what becomes of requests there is not read"
	}
	places, why := m.places(f)
	if base.unseen = cmp.Or(base.unseen, why); len(f.hidden) > 0 {
		base.unseen = cmp.Or(base.unseen, "it delegates to routes of which nothing is to be told")
	}
	if len(places) == 0 {
		places = []rules.Place{{}}
	}
	route := rules.Ref{Group: gatewayv1.GroupName, Kind: f.kind, Namespace: f.key.Namespace, Name: f.key.Name}
	object := treeOf(f.object)
	for i, rule := range items(object, []string{"spec", "rules"}) {
		for j, b := range items(rule, []string{"backendRefs"}) {
			w := base
			w.section = fmt.Sprintf("rules[%d]", i)
			kind, _ := b["kind"].(string)
			name, _ := b["name"].(string)
			ns, _ := b["namespace"].(string)
			w.service = types.NamespacedName{Namespace: cmp.Or(ns, f.key.Namespace), Name: name}
			if group, _ := b["group"].(string); cmp.Or(kind, "Service") != "Service" || group != "" {
				w.service = types.NamespacedName{}
			}
			for _, at := range places {
				one := w
				at.Route, at.Section = route, fmt.Sprintf("rules[%d].backendRefs[%d]", i, j)
				at.Service, at.Ports = rules.Ref{Kind: "Service", Namespace: w.service.Namespace, Name: w.service.Name}, m.portNames(w.service, b["port"])
				one.rules = set.At(ref, at)
				for _, r := range one.rules {
					if len(r.Unknown) > 0 {
						one.unseen = cmp.Or(one.unseen, fmt.Sprintf("%s is not understood: %s", r.Object, listed(r.Unknown)))
					}
				}
				list = append(list, &one)
			}
		}
	}
	if len(list) == 0 && base.unseen != "" {
		list = append(list, &base)
	}
	return list
}

// places are the listeners that a route is attached to; why: they are not all known.
func (m *maker) places(f *followed) (list []rules.Place, why string) {
	attached := false
	for i := range f.parents {
		ref := &f.parents[i]
		for _, p := range m.parents(f.gateway) {
			if !p.is(ref, f.key.Namespace) {
				continue
			}
			attached = true
			if p.kind != "Gateway" {
				return nil, "it comes by a " + p.kind + ", whose listeners are not read"
			}
			for j := range f.gateway.object.Spec.Listeners {
				l := &f.gateway.object.Spec.Listeners[j]
				if (ref.SectionName == nil || *ref.SectionName == l.Name) && (ref.Port == nil || *ref.Port == l.Port) {
					list = append(list, rules.Place{Listener: string(l.Name)})
				}
			}
		}
	}
	if !attached {
		return nil, "another route delegates to it, whose rules it may obey"
	}
	return list, ""
}

// portNames are a port of a Service, as rules name it.
func (m *maker) portNames(key types.NamespacedName, port any) []string {
	number, _ := port.(float64) // as JSON has it
	s := m.service(key)
	if s == nil {
		return nil
	}
	for i := range s.Spec.Ports {
		if p := &s.Spec.Ports[i]; float64(p.Port) == number {
			return []string{fmt.Sprint(p.Port), p.Name}
		}
	}
	return nil
}

// untyped finds the objects of a snapshot for package rules.
type untyped struct {
	m    *maker
	by   map[rules.Ref]any // an object with its type, or without
	read map[rules.Ref]*unstructured.Unstructured
	in   map[kindIn][]rules.Ref
}

// kindIn are the objects of a kind in a namespace, or, where that is empty, in all.
type kindIn struct {
	schema.GroupKind

	namespace string
}

func (m *maker) newUntyped() *untyped {
	u := &untyped{m: m, by: map[rules.Ref]any{}, read: map[rules.Ref]*unstructured.Unstructured{}, in: map[kindIn][]rules.Ref{}}
	add := func(group, kind string, key types.NamespacedName, o any) {
		ref := rules.Ref{Group: group, Kind: kind, Namespace: key.Namespace, Name: key.Name}
		if _, twice := u.by[ref]; twice {
			return // one that is read whole comes before one of which plans know a few fields
		}
		u.by[ref] = o
		for _, ns := range unique([]string{key.Namespace, ""}) {
			at := kindIn{schema.GroupKind{Group: group, Kind: kind}, ns}
			u.in[at] = append(u.in[at], ref)
		}
	}
	for _, list := range [][]*unstructured.Unstructured{m.Rules, m.OtherRoutes, m.ListenerSets, m.Extensions, m.Objects} {
		for _, o := range list {
			add(o.GroupVersionKind().Group, o.GetKind(), keyOf(o), o)
		}
	}
	for i := range m.HTTPRoutes {
		add(gatewayv1.GroupName, "HTTPRoute", keyOf(&m.HTTPRoutes[i]), &m.HTTPRoutes[i])
	}
	for i := range m.Gateways {
		add(gatewayv1.GroupName, "Gateway", keyOf(&m.Gateways[i]), &m.Gateways[i])
	}
	for i := range m.Classes {
		add(gatewayv1.GroupName, "GatewayClass", keyOf(&m.Classes[i]), &m.Classes[i])
	}
	for i := range m.Services {
		add("", "Service", keyOf(&m.Services[i]), &m.Services[i])
	}
	for _, p := range m.Policies {
		add(securityGroup, "AuthorizationPolicy", keyOf(p), p)
	}
	for _, p := range m.RequestAuthentications {
		add(securityGroup, "RequestAuthentication", keyOf(p), p)
	}
	return u
}

// Get implements rules.Objects.
func (u *untyped) Get(kind schema.GroupKind, namespace, name string) *unstructured.Unstructured {
	return u.at(rules.Ref{Group: kind.Group, Kind: kind.Kind, Namespace: namespace, Name: name})
}

// List implements rules.Objects.
func (u *untyped) List(kind schema.GroupKind, namespace string) (list []*unstructured.Unstructured) {
	for _, ref := range u.in[kindIn{kind, namespace}] {
		if o := u.at(ref); o != nil {
			list = append(list, o)
		}
	}
	return list
}

func (u *untyped) at(ref rules.Ref) *unstructured.Unstructured {
	if o, known := u.read[ref]; known {
		return o
	}
	is, there := u.by[ref]
	if !there {
		return nil
	}
	o, untyped := is.(*unstructured.Unstructured)
	if tree := wishOf(is); !untyped && tree != nil {
		o = &unstructured.Unstructured{Object: tree}
		o.SetGroupVersionKind(schema.GroupVersionKind{Group: ref.Group, Version: "v1", Kind: ref.Kind}) // lists leave it out
	}
	u.read[ref] = o
	return o
}

// wishOf is a typed object as JSON has it, without what became of it. Statuses of Istio's kinds are not even looked at, as that changes them.
func wishOf(o any) map[string]any {
	switch o := o.(type) {
	case *securityv1.AuthorizationPolicy:
		return map[string]any{"metadata": treeOf(&o.ObjectMeta), "spec": treeOf(&o.Spec)}
	case *securityv1.RequestAuthentication:
		return map[string]any{"metadata": treeOf(&o.ObjectMeta), "spec": treeOf(&o.Spec)}
	}
	tree := treeOf(o)
	delete(tree, "status")
	return tree
}

var _ rules.Objects = (*untyped)(nil)
