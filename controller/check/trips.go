package check

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/edge/rules"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// trip is the way of requests through a rule of a route at a gateway to a Service.
type trip struct {
	edge  *Edge
	route rules.Ref
	// section is the rule of the route, such as rules[1]; listener that it came in by, where that matters.
	section, listener string
	service           types.NamespacedName
	port              int32
	// hosts that clients send. Empty: any.
	hosts   []string
	matches []match
	// backends counts those of the rule.
	backends int
	rules    []*rules.Rule
	// open: there may be rules that are not seen, or not understood.
	open bool
}

// match is what a rule of a route takes.
type match struct {
	paths  textClass
	method string
}

// tripsOf are all ways through a gateway.
func (w *World) tripsOf(e *Edge, objects *edgeObjects) []trip {
	var list []trip
	single, hidden := e.singleListeners(), w.hidesOf(e.View.Vendor.Name)
	for i := range e.View.Routes {
		routed := &e.View.Routes[i]
		if routed.Why != "" || len(routed.Services) == 0 {
			continue
		}
		ref := routeRef(routed)
		object := objects.Get(schema.GroupKind{Group: ref.Group, Kind: ref.Kind}, ref.Namespace, ref.Name)
		if object == nil {
			continue
		}
		places, delegated := e.places(object, single)
		for _, p := range places {
			for _, t := range w.through(e, routed, ref, object, p) {
				t.open = t.open || delegated || hidden
				list = append(list, t)
			}
		}
	}
	return list
}

// Hides says whether objects of a kind may not be read.
func (w *World) Hides(kind schema.GroupKind) bool { return w.hidden[kind] }

// hidesOf says whether a kind of objects that gateways of a vendor obey may not be read.
func (w *World) hidesOf(vendor string) bool {
	return len(w.hidden) > 0 && slices.ContainsFunc(rules.Kinds(vendor), func(k schema.GroupVersionKind) bool { return w.hidden[k.GroupKind()] })
}

// singleListeners says whether rules are attached to single listeners of the gateway, so that it matters by which one requests come.
func (e *Edge) singleListeners() bool {
	for i := range e.Rules.Rules {
		for _, t := range e.Rules.Rules[i].Targets {
			if t.Object == e.ref && t.Section != "" || strings.HasSuffix(t.Object.Kind, "ListenerSet") {
				return true
			}
		}
	}
	return false
}

// places are the listeners that a route is attached to. delegated: it is not attached itself, and may obey rules of the route that leads to it.
func (e *Edge) places(route *unstructured.Unstructured, single bool) (list []rules.Place, delegated bool) {
	if route.GetKind() == "Ingress" || e.View.Object == nil {
		return []rules.Place{{}}, false
	}
	found := false
	for _, p := range plan.ParentRefs(route) {
		kind, ns := "Gateway", route.GetNamespace()
		if p.Kind != nil {
			kind = string(*p.Kind)
		}
		if p.Namespace != nil {
			ns = string(*p.Namespace)
		}
		section := ""
		if p.SectionName != nil {
			section = string(*p.SectionName)
		}
		set := rules.Ref{}
		for _, s := range e.sets {
			if s.Kind == kind && s.Namespace == ns && s.Name == string(p.Name) {
				set = s
			}
		}
		mine := kind == "Gateway" && ns == e.ref.Namespace && string(p.Name) == e.ref.Name
		if !mine && set == (rules.Ref{}) {
			continue
		}
		found = true
		switch {
		case !single:
			list = append(list, rules.Place{ListenerSet: set})
		case section != "" || set != (rules.Ref{}):
			list = append(list, rules.Place{ListenerSet: set, Listener: section})
		default:
			for i := range e.View.Object.Spec.Listeners {
				l := &e.View.Object.Spec.Listeners[i]
				if (p.Port == nil || *p.Port == l.Port) && (l.Protocol == gatewayv1.HTTPProtocolType || l.Protocol == gatewayv1.HTTPSProtocolType) {
					list = append(list, rules.Place{Listener: string(l.Name)})
				}
			}
		}
	}
	if !found {
		return []rules.Place{{}}, true
	}
	slices.SortFunc(list, func(a, b rules.Place) int {
		return cmp.Or(cmp.Compare(a.ListenerSet.String(), b.ListenerSet.String()), cmp.Compare(a.Listener, b.Listener))
	})
	return slices.CompactFunc(list, func(a, b rules.Place) bool { return a.ListenerSet == b.ListenerSet && a.Listener == b.Listener }), false
}

// through are the ways through a route, by one listener.
func (w *World) through(e *Edge, routed *plan.Routed, ref rules.Ref, object *unstructured.Unstructured, at rules.Place) []trip {
	var list []trip
	at.Route = ref
	add := func(t trip, section string, service types.NamespacedName, port map[string]any) {
		s := w.Service(service)
		if s == nil || !slices.Contains(routed.Services, service) {
			return
		}
		t.edge, t.route, t.service, t.listener = e, ref, service, at.Listener
		place := at
		place.Section, place.Service = section, rules.Ref{Kind: "Service", Namespace: service.Namespace, Name: service.Name}
		t.port, place.Ports = portOf(s, port)
		t.rules = e.Rules.At(e.ref, place)
		t.open = !e.read
		for _, r := range t.rules {
			t.open = t.open || len(r.Unknown) > 0
		}
		list = append(list, t)
	}
	if ref.Kind == "Ingress" {
		ingressTrips(object, add)
		return list
	}
	hosts, _, _ := unstructured.NestedStringSlice(object.Object, "spec", "hostnames")
	if len(hosts) == 0 {
		hosts = e.listenerHosts(at)
	}
	for i, rule := range mapsIn(object.Object, "spec", "rules") {
		backends := mapsIn(rule, "backendRefs")
		t := trip{section: fmt.Sprintf("rules[%d]", i), hosts: hosts, matches: matchesOf(ref.Kind, rule), backends: len(backends)}
		for j, b := range backends {
			kind, _ := b["kind"].(string)
			group, _ := b["group"].(string)
			name, _ := b["name"].(string)
			ns, _ := b["namespace"].(string)
			if cmp.Or(kind, "Service") != "Service" || group != "" {
				continue
			}
			add(t, fmt.Sprintf("rules[%d].backendRefs[%d]", i, j), types.NamespacedName{Namespace: cmp.Or(ns, ref.Namespace), Name: name}, b)
		}
	}
	return list
}

// listenerHosts are those of the listener, or of all listeners; none, if one takes any.
func (e *Edge) listenerHosts(at rules.Place) []string {
	if e.View.Object == nil || at.ListenerSet != (rules.Ref{}) {
		return nil
	}
	var hosts []string
	for i := range e.View.Object.Spec.Listeners {
		l := &e.View.Object.Spec.Listeners[i]
		if at.Listener != "" && at.Listener != string(l.Name) {
			continue
		}
		if l.Hostname == nil || *l.Hostname == "" {
			return nil
		}
		hosts = append(hosts, string(*l.Hostname))
	}
	return hosts
}

// ingressTrips are the ways through an Ingress. Its default backend takes what no rule does.
func ingressTrips(object *unstructured.Unstructured, add func(trip, string, types.NamespacedName, map[string]any)) {
	service := func(t trip, section string, backend map[string]any) {
		s, _ := backend["service"].(map[string]any)
		name, _ := s["name"].(string)
		port, _ := s["port"].(map[string]any)
		to := map[string]any{"port": port["number"], "portName": port["name"]}
		t.section, t.backends = section, 1
		add(t, section, types.NamespacedName{Namespace: object.GetNamespace(), Name: name}, to)
	}
	spec, _ := object.Object["spec"].(map[string]any)
	if b, ok := spec["defaultBackend"].(map[string]any); ok {
		service(trip{matches: []match{{}}}, "defaultBackend", b)
	}
	for i, rule := range mapsIn(spec, "rules") {
		host, _ := rule["host"].(string)
		http, _ := rule["http"].(map[string]any)
		for j, path := range mapsIn(http, "paths") {
			backend, _ := path["backend"].(map[string]any)
			t := trip{matches: []match{{paths: ingressPaths(path)}}}
			if host != "" {
				t.hosts = []string{host}
			}
			service(t, fmt.Sprintf("rules[%d].http.paths[%d]", i, j), backend)
		}
	}
}

func ingressPaths(path map[string]any) textClass {
	value, _ := path["path"].(string)
	switch path["pathType"] {
	case "Exact":
		return textClass{kind: oneText, text: value}
	case "Prefix":
		return textClass{kind: segments, text: strings.TrimSuffix(value, "/")}
	}
	return textClass{}
}

// matchesOf are the matches of a rule of a route; one of anything where there are none.
func matchesOf(kind string, rule map[string]any) []match {
	var list []match
	for _, m := range mapsIn(rule, "matches") {
		var is match
		if kind == "GRPCRoute" {
			is.method = "POST"
			method, _ := m["method"].(map[string]any)
			service, _ := method["service"].(string)
			name, _ := method["method"].(string)
			switch {
			case method["type"] == "RegularExpression" || service == "":
			case name == "":
				is.paths = textClass{kind: segments, text: "/" + service}
			default:
				is.paths = textClass{kind: oneText, text: "/" + service + "/" + name}
			}
			list = append(list, is)
			continue
		}
		is.method, _ = m["method"].(string)
		path, _ := m["path"].(map[string]any)
		value, given := path["value"].(string)
		switch {
		case path["type"] == "Exact":
			is.paths = textClass{kind: oneText, text: value}
		case given && (path["type"] == nil || path["type"] == "PathPrefix"):
			is.paths = textClass{kind: segments, text: strings.TrimSuffix(value, "/")}
		}
		list = append(list, is)
	}
	if len(list) == 0 {
		list = []match{{}}
		if kind == "GRPCRoute" {
			list[0].method = "POST"
		}
	}
	return list
}

// mapsIn are the objects of a list in a tree.
func mapsIn(tree map[string]any, path ...string) []map[string]any {
	for _, key := range path[:len(path)-1] {
		tree, _ = tree[key].(map[string]any)
	}
	list, _ := tree[path[len(path)-1]].([]any)
	var out []map[string]any
	for _, e := range list {
		m, _ := e.(map[string]any)
		out = append(out, m)
	}
	return out
}
