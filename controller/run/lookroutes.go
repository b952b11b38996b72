package run

import (
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// parentName is the name by which indexes and scopes know what a route may name as its parent: namespace/name of a Gateway, "Kind namespace/name" of
// a ListenerSet, a Service or a ServiceEntry, and empty for all else.
func parentName(kind string, key types.NamespacedName) string {
	switch {
	case kind == "Gateway":
		return key.String()
	case isListenerSet(kind), kind == "Service", kind == "ServiceEntry":
		return kind + " " + key.String()
	}
	return ""
}

// parents are what a route of any kind names.
func parents(o client.Object) []string {
	var names []string
	for _, p := range plan.ParentRefs(o) {
		key, kind := types.NamespacedName{Namespace: o.GetNamespace(), Name: string(p.Name)}, "Gateway"
		if p.Namespace != nil {
			key.Namespace = string(*p.Namespace)
		}
		if p.Kind != nil {
			kind = string(*p.Kind)
		}
		if name := parentName(kind, key); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// targets are the Gateways at home, and the routes of those that the edge names, and of their ListenerSets.
func (v *viewer) targets() error {
	var gateways gatewayv1.GatewayList
	if err := v.list("Gateways", &gateways, client.InNamespace(v.edge.Namespace)); err != nil {
		return err
	}
	v.gateways(gateways.Items)
	sets, routes := v.s.ListenerSets, v.s.OtherRoutes
	v.s.ListenerSets, v.s.OtherRoutes = nil, nil
	for _, ref := range v.edge.Spec.TargetRefs {
		key := types.NamespacedName{Namespace: v.edge.Namespace, Name: ref.Name}
		v.scope.gateways[key], v.scope.parents[parentName("Gateway", key)] = true, true
		for _, o := range sets {
			if plan.ListenerSetOf(o) != key {
				continue
			}
			v.s.ListenerSets = append(v.s.ListenerSets, o)
			v.scope.parents[parentName(o.GetKind(), client.ObjectKeyFromObject(o))] = true
			if err := v.space(o.GetNamespace()); err != nil { // by whose labels it may be admitted
				return err
			}
		}
	}
	for name := range v.scope.parents {
		var list gatewayv1.HTTPRouteList
		if err := v.list("HTTPRoutes", &list, client.MatchingFields{indexParent: name}); err != nil {
			return err
		}
		if err := v.routes(list.Items); err != nil {
			return err
		}
	}
	sortObjects(v.s.HTTPRoutes) // the scope has the order of backends
	v.s.OtherRoutes = slices.DeleteFunc(routes, func(o *unstructured.Unstructured) bool {
		return !slices.ContainsFunc(parents(o), func(name string) bool { return v.scope.parents[name] || v.edge.Pairs() && ofService(name) })
	})
	for _, o := range v.s.OtherRoutes {
		v.scope.near[o.GetNamespace()] = true
	}
	return nil
}

// ofService says whether a parent's name is that of a Service or a ServiceEntry: its waypoint obeys its routes.
func ofService(name string) bool { return strings.HasPrefix(name, "Service") }

// aside are the Services that lead to the waypoints of an edge that pairs, and the HTTPRoutes of Services and ServiceEntries that may: by them waypoints may send
// to its backends.
func (v *viewer) aside() error {
	if !v.edge.Pairs() {
		return nil
	}
	v.scope.pairs = true
	for key := range v.scope.gateways {
		if err := v.services(client.MatchingFields{indexWaypoint: key.String()}); err != nil {
			return err
		}
	}
	var names []string
	for i := range v.s.Services {
		names = append(names, parentName("Service", client.ObjectKeyFromObject(&v.s.Services[i])))
	}
	for _, o := range v.s.ServiceEntries {
		names = append(names, parentName("ServiceEntry", client.ObjectKeyFromObject(o)))
	}
	for key := range v.scope.gateways {
		names = append(names, parentName("Gateway", key))
	}
	for _, name := range names {
		v.scope.parents[name] = true
		var list gatewayv1.HTTPRouteList
		if err := v.list("HTTPRoutes", &list, client.MatchingFields{indexParent: name}); err != nil {
			return err
		}
		for i := range list.Items {
			if o := &list.Items[i]; v.first("HTTPRoute", client.ObjectKeyFromObject(o)) {
				v.s.HTTPRoutes = append(v.s.HTTPRoutes, *o)
			}
		}
	}
	sortObjects(v.s.HTTPRoutes)
	return nil
}

// maxChoices bounds what an edge remembers of routes that delegate to others: one may do so for each of its backendRefs, in the ways of several vendors. Where
// there is more, all routes that can be delegated to matter.
const maxChoices = 512

// routes are HTTPRoutes, and those that they delegate to, by whatever vendor's rules.
func (v *viewer) routes(list []gatewayv1.HTTPRoute) error {
	for i := range list {
		o := &list[i]
		if !v.first("HTTPRoute", client.ObjectKeyFromObject(o)) {
			continue
		}
		v.s.HTTPRoutes = append(v.s.HTTPRoutes, *o)
		v.scope.near[o.Namespace] = true
		for _, c := range plan.Choices(o) {
			if v.scope.delegated || v.scope.choices[c] {
				continue
			}
			choose := func() error { return v.chosen(&c) }
			if len(v.scope.choices) >= maxChoices {
				v.scope.delegated, v.scope.choices, choose = true, nil, v.delegated
			} else {
				v.scope.choices[c] = true
			}
			if err := choose(); err != nil {
				return err
			}
		}
	}
	return nil
}

// delegated are all routes that others can delegate to, in all namespaces.
func (v *viewer) delegated() error {
	var list gatewayv1.HTTPRouteList
	if err := v.list("HTTPRoutes", &list); err != nil {
		return err
	}
	return v.take(slices.DeleteFunc(list.Items, func(o gatewayv1.HTTPRoute) bool { return !delegable(&o) }))
}

// delegable says whether others can delegate to a route: it names a route as its parent, or nothing.
func delegable(o metav1.Object) bool {
	list := plan.ParentRefs(o)
	return len(list) == 0 || slices.ContainsFunc(list, func(p gatewayv1.ParentReference) bool { return p.Kind != nil && *p.Kind == "HTTPRoute" })
}

// chosen are the routes that others delegate to.
func (v *viewer) chosen(c *plan.Choice) error {
	var opts []client.ListOption
	if c.Namespace != "" {
		opts = append(opts, client.InNamespace(c.Namespace))
	}
	if c.Key != "" {
		opts = append(opts, client.MatchingLabels{c.Key: c.Value})
	}
	var list gatewayv1.HTTPRouteList
	if c.Name == "" {
		if err := v.list("HTTPRoutes", &list, opts...); err != nil {
			return err
		}
	} else {
		o := gatewayv1.HTTPRoute{}
		there, err := v.get("HTTPRoute", types.NamespacedName{Namespace: c.Namespace, Name: c.Name}, &o)
		if err != nil {
			return err
		}
		if there {
			list.Items = append(list.Items, o)
		}
	}
	return v.take(list.Items)
}

// take routes that others delegate to. Their namespaces have to consent.
func (v *viewer) take(list []gatewayv1.HTTPRoute) error {
	for i := range list {
		if err := v.space(list[i].Namespace); err != nil {
			return err
		}
	}
	return v.routes(list)
}
