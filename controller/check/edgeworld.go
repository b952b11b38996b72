package check

import (
	"encoding/json"
	"strings"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/edge/rules"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// Edge is a gateway, and what it does to requests.
type Edge struct {
	View  *plan.View
	Rules *rules.Set

	ref   rules.Ref
	read  bool        // see reads
	sets  []rules.Ref // its ListenerSets
	trips []trip
	// writes are the headers that it writes of its own accord, see writers; cors the hosts for which it answers CORS somewhere.
	writes map[string]writer
	cors   map[string]bool
}

// object names the gateway, or its workload.
func (e *Edge) object() Object {
	group := e.ref.Group
	if e.View.Object == nil {
		group = "apps"
	}
	return Object{group, e.View.Kind, e.View.Key}
}

// edgeWorld is what checks of edges look at. It is made when it is asked for.
type edgeWorld struct {
	edges []Edge
	mesh  *meshIndex
}

// EdgeRules are what gateways do to requests, of each of the Views.
func (w *World) EdgeRules() []Edge { return w.edgeWorld().edges }

func (w *World) edgeWorld() *edgeWorld { return w.edges.of(w.newEdgeWorld) }

func (w *World) newEdgeWorld() *edgeWorld {
	views, index := w.Views(), newEdgeIndex(w)
	e := &edgeWorld{edges: make([]Edge, len(views)), mesh: newMeshIndex(w)}
	plan.AtOnce(len(views), func(i int) {
		objects := &edgeObjects{index, map[Object]*unstructured.Unstructured{}}
		edge := &e.edges[i]
		*edge = objects.edge(&views[i])
		edge.trips = w.tripsOf(edge, objects)
		edge.writes, edge.cors = edge.writers(), edge.corsHosts()
	})
	return e
}

func (o *edgeObjects) edge(v *plan.View) Edge {
	g := rules.Gateway{Root: o.w.Root(), PodNamespace: v.Key.Namespace}
	if v.Object != nil {
		g.Ref = rules.Ref{Group: gatewayv1.GroupName, Kind: "Gateway", Namespace: v.Key.Namespace, Name: v.Key.Name}
		g.ListenerSets = o.listenerSets(g.Ref)
	}
	if len(v.Pods) > 0 {
		g.PodNamespace, g.PodLabels = v.Pods[0].Namespace, v.Pods[0].Labels
	}
	var routes []rules.Route
	for i := range v.Routes {
		routes = append(routes, rules.Route{Ref: routeRef(&v.Routes[i])})
	}
	return Edge{View: v, Rules: rules.Of(v.Vendor.Name, g, routes, o), ref: g.Ref, read: reads(v.Vendor.Name), sets: g.ListenerSets}
}

// routeRef is a route of a View as rules name it.
func routeRef(r *plan.Routed) rules.Ref {
	group := gatewayv1.GroupName
	if r.Kind == "Ingress" {
		group = "networking.k8s.io"
	}
	return rules.Ref{Group: group, Kind: r.Kind, Namespace: r.Key.Namespace, Name: r.Key.Name}
}

// istioSecurity is that of Istio's policies.
const istioSecurity = "security.istio.io"

// ruleObject is an object of rules as findings name it.
func ruleObject(r rules.Ref) Object {
	return Object{r.Group, r.Kind, types.NamespacedName{Namespace: r.Namespace, Name: r.Name}}
}

// reads says whether it is known what a kind of gateways does: of others rules are found only as far as the Gateway API has them.
func reads(vendor string) bool { return len(rules.Kinds(vendor)) > len(rules.Kinds("-")) }

// edgeObjects finds the objects of a World for package rules, which asks for them by kind and namespace. It is for one edge.
type edgeObjects struct {
	*edgeIndex

	// untyped are typed objects without their types: they are much larger so.
	untyped map[Object]*unstructured.Unstructured
}

// edgeIndex is what edgeObjects of all edges have in common, also those that are looked at at the same time.
type edgeIndex struct {
	w     *World
	lists map[kindIn][]*unstructured.Unstructured
	typed map[Object]any
	// tokens are RequestAuthentications by namespace.
	tokens map[string][]*securityv1.RequestAuthentication
	read   map[Object]*unstructured.Unstructured
	// security are Istio's policies, which have types, without these.
	security memo[kindIn, []*unstructured.Unstructured]
}

type kindIn struct {
	schema.GroupKind

	namespace string
}

func newEdgeIndex(w *World) *edgeIndex {
	o := &edgeIndex{
		w: w, lists: map[kindIn][]*unstructured.Unstructured{}, typed: map[Object]any{}, tokens: map[string][]*securityv1.RequestAuthentication{},
		read: map[Object]*unstructured.Unstructured{},
	}
	kinds := map[schema.GroupKind]bool{}
	for _, k := range rules.Kinds() {
		kinds[k.GroupKind()] = true
	}
	for kind, list := range w.others {
		if !kinds[kind] {
			continue
		}
		for _, u := range list {
			o.list(kind, u)
		}
	}
	note := func(group, kind, namespace, name string, object any) {
		o.typed[Object{group, kind, types.NamespacedName{Namespace: namespace, Name: name}}] = object
	}
	for i := range w.HTTPRoutes {
		note(gatewayv1.GroupName, "HTTPRoute", w.HTTPRoutes[i].Namespace, w.HTTPRoutes[i].Name, &w.HTTPRoutes[i])
	}
	for i := range w.Ingresses {
		note("networking.k8s.io", "Ingress", w.Ingresses[i].Namespace, w.Ingresses[i].Name, &w.Ingresses[i])
	}
	for _, r := range w.RequestAuthentications {
		o.tokens[r.Namespace] = append(o.tokens[r.Namespace], r)
	}
	return o
}

func (o *edgeIndex) list(kind schema.GroupKind, u *unstructured.Unstructured) {
	o.read[Object{kind.Group, kind.Kind, types.NamespacedName{Namespace: u.GetNamespace(), Name: u.GetName()}}] = u
	for _, ns := range []string{u.GetNamespace(), ""} {
		at := kindIn{kind, ns}
		o.lists[at] = append(o.lists[at], u)
		if u.GetNamespace() == "" {
			return
		}
	}
}

// content is a typed object without its type, or nil. What became of a route or a Service is left out.
func content(kind schema.GroupKind, typed any) *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	var err error
	switch whole := typed.(type) {
	case *gatewayv1.HTTPRoute:
		typed = &gatewayv1.HTTPRoute{ObjectMeta: whole.ObjectMeta, Spec: whole.Spec}
	case *corev1.Service:
		typed = &corev1.Service{ObjectMeta: whole.ObjectMeta, Spec: whole.Spec}
	}
	if kind.Group == istioSecurity { // these say themselves how they are written
		var text []byte
		if text, err = json.Marshal(typed); err == nil {
			err = json.Unmarshal(text, &u.Object)
		}
	} else {
		u.Object, err = runtime.DefaultUnstructuredConverter.ToUnstructured(typed)
	}
	if err != nil {
		return nil
	}
	u.SetGroupVersionKind(kind.WithVersion("v1")) // lists of a cluster leave it out
	return u
}

// Get implements rules.Objects.
func (o *edgeObjects) Get(kind schema.GroupKind, namespace, name string) *unstructured.Unstructured {
	key := Object{kind.Group, kind.Kind, types.NamespacedName{Namespace: namespace, Name: name}}
	if u, ok := o.read[key]; ok {
		return u
	}
	if u, ok := o.untyped[key]; ok {
		return u
	}
	typed, ok := o.typed[key]
	switch gk := kind.String(); {
	case gk == "Service" && o.w.Service(key.NamespacedName) != nil:
		typed, ok = o.w.Service(key.NamespacedName), true
	case gk == "Gateway."+gatewayv1.GroupName && o.w.Gateway(key.NamespacedName) != nil:
		typed, ok = o.w.Gateway(key.NamespacedName), true
	case gk == "GatewayClass."+gatewayv1.GroupName && o.w.classes[name] != nil:
		typed, ok = o.w.classes[name], true
	}
	if !ok {
		return o.w.Other(kind, namespace, name)
	}
	u := content(kind, typed)
	o.untyped[key] = u
	return u
}

// List implements rules.Objects.
func (o *edgeObjects) List(kind schema.GroupKind, namespace string) []*unstructured.Unstructured {
	at := kindIn{kind, namespace}
	if kind.Group != istioSecurity {
		return o.lists[at]
	}
	// Istio's own gateway obeys these by their targetRefs, or by the labels of its pods.
	return o.security.of(at, func() (list []*unstructured.Unstructured) {
		add := func(p any) {
			if u := content(kind, p); u != nil {
				list = append(list, u)
			}
		}
		switch kind.Kind {
		case "AuthorizationPolicy":
			for _, p := range o.w.PoliciesIn(namespace) {
				add(p)
			}
		case "RequestAuthentication":
			for _, r := range o.tokens[namespace] {
				add(r)
			}
		}
		return list
	})
}

// listenerSets are those that name a Gateway as their parent.
func (o *edgeObjects) listenerSets(gateway rules.Ref) []rules.Ref {
	var list []rules.Ref
	for _, s := range o.w.ListenerSets {
		parent, _, _ := unstructured.NestedStringMap(s.Object, "spec", "parentRef")
		if parent["name"] != gateway.Name {
			continue
		}
		if ns := parent["namespace"]; ns == gateway.Namespace || ns == "" && s.GetNamespace() == gateway.Namespace {
			list = append(list, rules.Ref{Group: s.GroupVersionKind().Group, Kind: s.GetKind(), Namespace: s.GetNamespace(), Name: s.GetName()})
		}
	}
	return list
}

// fold is a header's name for comparison.
func fold(name string) string { return strings.ToLower(name) }
