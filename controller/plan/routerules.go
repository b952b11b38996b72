package plan

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

func hostnames(r *route) (names []string) {
	switch o := r.object.(type) {
	case *gatewayv1.HTTPRoute:
		for _, h := range o.Spec.Hostnames {
			names = append(names, string(h))
		}
	case *unstructured.Unstructured:
		list, _, err := unstructured.NestedStringSlice(o.Object, "spec", "hostnames")
		if err != nil {
			return []string{"*"} // what is not as it should be is not read
		}
		names = list
	}
	return names
}

// rule is one of a route, of any kind.
type rule struct {
	raw     bool // of connections
	matches []match
	filters []gatewayv1.HTTPRouteFilter
	to      []target
}

// target is where a rule sends to, or copies.
type target struct {
	ref     *gatewayv1.BackendObjectReference
	filters []gatewayv1.HTTPRouteFilter
	copies  bool
}

// match is what a rule asks of a request, as far as a policy can.
type match struct {
	method string // empty: any
	path   string // empty: any
	kind   gatewayv1.PathMatchType
	leaves []string // what it asks beside
}

// Kinds of paths of gRPC: all that is under one, or that ends with it.
const (
	underPath  gatewayv1.PathMatchType = "Under"
	suffixPath gatewayv1.PathMatchType = "Suffix"
)

// rulesOf are those of a route.
func rulesOf(r *route) (list []rule) {
	switch o := r.object.(type) {
	case *gatewayv1.HTTPRoute:
		for i := range o.Spec.Rules {
			is := &o.Spec.Rules[i]
			one := rule{filters: is.Filters}
			for j := range is.Matches {
				one.matches = append(one.matches, matchOf(&is.Matches[j]))
			}
			for j := range is.BackendRefs {
				one.to = append(one.to, target{&is.BackendRefs[j].BackendObjectReference, is.BackendRefs[j].Filters, false})
			}
			list = append(list, one.mirrored())
		}
	case *unstructured.Unstructured:
		is := &gatewayv1.GRPCRoute{} // the others have a part of that
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, is); err != nil {
			return nil // nor is it followed anywhere
		}
		for i := range is.Spec.Rules {
			of := &is.Spec.Rules[i]
			one := rule{raw: r.kind != "GRPCRoute", filters: asHTTP(of.Filters)}
			for j := range of.Matches {
				one.matches = append(one.matches, matchOfGRPC(&of.Matches[j]))
			}
			if len(one.matches) == 0 {
				one.matches = []match{{method: "POST", kind: gatewayv1.PathMatchPathPrefix}}
			}
			for j := range of.BackendRefs {
				one.to = append(one.to, target{&of.BackendRefs[j].BackendObjectReference, asHTTP(of.BackendRefs[j].Filters), false})
			}
			list = append(list, one.mirrored())
		}
	}
	return list
}

// mirrored adds the places that a rule's filters copy requests to.
func (r rule) mirrored() rule {
	add := func(filters []gatewayv1.HTTPRouteFilter) {
		for i := range filters {
			if to := filters[i].RequestMirror; to != nil {
				r.to = append(r.to, target{&to.BackendRef, nil, true})
			}
		}
	}
	add(r.filters)
	for _, to := range r.to[:len(r.to):len(r.to)] {
		add(to.filters)
	}
	return r
}

// asHTTP are filters of a GRPCRoute, as an HTTPRoute has them.
func asHTTP(filters []gatewayv1.GRPCRouteFilter) (list []gatewayv1.HTTPRouteFilter) {
	for i := range filters {
		f := &filters[i]
		list = append(list, gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterType(f.Type), RequestHeaderModifier: f.RequestHeaderModifier, RequestMirror: f.RequestMirror})
	}
	return list
}

func matchOf(is *gatewayv1.HTTPRouteMatch) match {
	one := match{kind: gatewayv1.PathMatchPathPrefix}
	if is.Method != nil {
		one.method = string(*is.Method)
	}
	if p := is.Path; p != nil {
		if p.Type != nil {
			one.kind = *p.Type
		}
		if p.Value != nil {
			one.path = *p.Value
		}
	}
	if len(is.Headers) > 0 {
		one.leaves = append(one.leaves, "the headers that it asks for")
	}
	if len(is.QueryParams) > 0 {
		one.leaves = append(one.leaves, "the query that it asks for")
	}
	return one
}

func matchOfGRPC(is *gatewayv1.GRPCRouteMatch) match {
	one := match{method: "POST", kind: gatewayv1.PathMatchPathPrefix}
	if len(is.Headers) > 0 {
		one.leaves = append(one.leaves, "the headers that it asks for")
	}
	if is.Method == nil {
		return one
	}
	var service, name string
	if is.Method.Service != nil {
		service = *is.Method.Service
	}
	if is.Method.Method != nil {
		name = *is.Method.Method
	}
	switch {
	case is.Method.Type != nil && *is.Method.Type != gatewayv1.GRPCMethodMatchExact:
		one.kind = gatewayv1.PathMatchRegularExpression
	case service != "" && name != "":
		one.kind, one.path = gatewayv1.PathMatchExact, "/"+service+"/"+name
	case service != "":
		one.kind, one.path = underPath, "/"+service
	case name != "":
		one.kind, one.path = suffixPath, "/"+name
	}
	return one
}

// anything is what a rule without matches takes.
func anything() []match { return []match{{kind: gatewayv1.PathMatchPathPrefix}} }
