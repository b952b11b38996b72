package rules

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

func compareRefs(a, b Ref) int {
	return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

func ruleSection(i int) string { return fmt.Sprintf("rules[%d]", i) }

// backendsOf are the Services and other backends that a route names.
func backendsOf(route Route) []Ref {
	d := &doc{ref: route.Ref}
	spec := d.spec(route.Object)
	var list []Ref
	add := func(ref Ref) {
		if ref.Name != "" {
			list = append(list, ref)
		}
	}
	for _, rule := range spec.each("rules") {
		for _, b := range rule.each("backendRefs") {
			add(b.ref(route.Namespace))
		}
		for _, p := range rule.sub("http").each("paths") { // of an Ingress
			add(ingressBackend(p.sub("backend"), route.Namespace))
		}
	}
	add(ingressBackend(spec.sub("defaultBackend"), route.Namespace))
	for _, h := range spec.each("http") { // of a VirtualService
		for _, to := range h.each("route") {
			add(serviceOf(to.sub("destination").str("host"), route.Namespace))
		}
	}
	for _, one := range spec.each("routes") { // of an IngressRoute or an HTTPProxy
		for _, to := range one.each("services") {
			add(to.ref(route.Namespace))
		}
	}
	for _, u := range spec.each("upstreams") { // of a VirtualServer
		namespace, name, far := strings.Cut(u.str("service"), "/")
		if !far {
			namespace, name = route.Namespace, namespace
		}
		if name != "" {
			add(Ref{Kind: "Service", Namespace: namespace, Name: name})
		}
	}
	return list
}

func ingressBackend(f *fields, namespace string) Ref {
	name := f.sub("service").str("name")
	if name == "" {
		return Ref{}
	}
	return Ref{Kind: "Service", Namespace: namespace, Name: name}
}

// serviceOf is the Service that a host names: alone, with its namespace, or in full. Zero: it names none.
func serviceOf(host, namespace string) Ref {
	parts := strings.Split(host, ".")
	switch {
	case host == "":
		return Ref{}
	case len(parts) == 1:
		return Ref{Kind: "Service", Namespace: namespace, Name: host}
	case len(parts) == 2 || parts[2] == "svc":
		return Ref{Kind: "Service", Namespace: parts[1], Name: parts[0]}
	}
	return Ref{}
}

func itoa(n int) string { return strconv.Itoa(n) }

// ref is the object that a backendRef means, by default a Service.
func (f *fields) ref(namespace string) Ref {
	if f == nil {
		return Ref{}
	}
	name := f.str("name")
	ref := Ref{normalGroup(f.str("group")), cmp.Or(f.str("kind"), "Service"), cmp.Or(f.str("namespace"), namespace), name}
	f.skip("port", "weight")
	if name == "" {
		return Ref{}
	}
	return ref
}
