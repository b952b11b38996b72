package rules

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Objects finds what rules are read from.
type Objects interface {
	// Get is an object, or nil.
	Get(kind schema.GroupKind, namespace, name string) *unstructured.Unstructured
	// List are the objects of a namespace; an empty one is all namespaces.
	List(kind schema.GroupKind, namespace string) []*unstructured.Unstructured
}

// Gateway is an edge.
type Gateway struct {
	// Ref is the Gateway's. Zero: it is known by its workload alone, as those that serve Ingresses, and its rules have the zero Target.
	Ref
	// Object is its content. Nil: it is asked of Objects.
	Object map[string]any
	// ListenerSets are those that belong to it.
	ListenerSets []Ref
	// Namespace and PodLabels are those of its pods, by which Istio's policies select them. An empty Namespace is the Gateway's.
	PodNamespace string
	PodLabels    map[string]string
	// Root is the root namespace of the mesh. Empty: istio-system.
	Root string
}

// Route leads requests from a gateway to Services: a route of the Gateway API, an Ingress, or a vendor's own kind.
type Route struct {
	Ref
	// Object is its content. Nil: it is asked of Objects.
	Object map[string]any
}

// vendor reads what is a vendor's own.
type vendor struct {
	name string
	// kinds that it reads, besides those of the Gateway API.
	kinds []schema.GroupVersionKind
	// policies are attached by targetRefs.
	policies []policy
	// filters are what routes name by an ExtensionRef.
	filters map[schema.GroupKind]func(*reader, *doc, *fields)
	// routes are kinds of routes, with annotations and fields of the vendor.
	routes map[schema.GroupKind]func(*reader, Route)
	// edge is what holds for the whole gateway.
	edge func(*reader)
}

// policy is a kind of objects with targetRefs.
type policy struct {
	kind schema.GroupKind
	// merges: one with a narrower target replaces fields of others, not others as a whole.
	merges bool
	// all: none replaces another.
	all bool
	// far: they may select what is in other namespaces.
	far  bool
	read func(*reader, *doc, *fields)
}

// vendors is the table.
func vendors() []vendor {
	return []vendor{
		gatewayAPI(), kgateway(), agentgateway(), envoyGateway(), istio(), ingressNGINX(), nginxIngress(), nginxFabric(), traefik(),
		kong("kong"), kong("kong-operator"), contour(),
	}
}

// Kinds are those of the objects that are read for these vendors, or for all of them, so that a reader can list them. Of a kind that is served in other
// versions too, any will do.
func Kinds(names ...string) []schema.GroupVersionKind {
	all := map[schema.GroupVersionKind]bool{}
	for _, v := range vendors() {
		if len(names) == 0 || v.name == "" || slices.Contains(names, v.name) {
			for _, k := range v.kinds {
				all[k] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(all), func(a, b schema.GroupVersionKind) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Version, b.Version))
	})
}

// Known says whether a vendor's own objects are read. Of another one only what the Gateway API has is told, and whatever its own objects do is unknown.
func Known(name string) bool {
	return name != "" && slices.ContainsFunc(vendors(), func(v vendor) bool { return v.name == name })
}

// Of are the rules of one gateway of a vendor, whose name is one of package edge, with the routes that are attached to it.
func Of(name string, gateway Gateway, routes []Route, o Objects) *Set {
	r := &reader{objects: o, gateway: gateway, noted: map[Ref]bool{}}
	if r.gateway.Object == nil && r.gateway.Name != "" {
		r.gateway.Object = r.content(gateway.Ref)
	}
	for _, route := range routes {
		if route.Object == nil {
			route.Object = r.content(route.Ref)
		}
		r.routes = append(r.routes, route)
	}
	r.learn()
	for _, v := range vendors() {
		if v.name == "" || v.name == name {
			r.vendors = append(r.vendors, v)
		}
	}
	for i := range r.vendors {
		v := &r.vendors[i]
		if v.edge != nil {
			v.edge(r)
		}
		for j := range v.policies {
			r.attach(&v.policies[j])
		}
		for _, route := range r.routes {
			if read := v.routes[route.kind()]; read != nil {
				read(r, route)
			}
		}
	}
	return newSet(r.rules, r.stands)
}

// reader reads the rules of one gateway.
type reader struct {
	objects Objects
	gateway Gateway
	routes  []Route
	vendors []vendor

	known    map[Ref]map[string]any // what policies may be attached to, with its content
	backends map[Ref]bool           // Services that routes name
	noted    map[Ref]bool           // Services whose annotations have been read
	rules    []Rule
	stands   []standing

	near      map[string][]Ref            // what is known, by namespace, in order
	providers map[Ref]map[string]Provider // of Contour's HTTPProxies
}

func (r Ref) kind() schema.GroupKind { return schema.GroupKind{Group: r.Group, Kind: r.Kind} }

// content is that of an object, or nil.
func (r *reader) content(ref Ref) map[string]any {
	if r.objects == nil {
		return nil
	}
	if o := r.objects.Get(ref.kind(), ref.Namespace, ref.Name); o != nil {
		return o.Object
	}
	return nil
}

// list are the objects of a kind in a namespace.
func (r *reader) list(kind schema.GroupKind, namespace string) []*unstructured.Unstructured {
	if r.objects == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(r.objects.List(kind, namespace)), func(o *unstructured.Unstructured) bool { return o == nil })
}

// doc begins to read an object.
func (r *reader) doc(ref Ref, object map[string]any, targets ...Target) *doc {
	meta, _ := object["metadata"].(map[string]any)
	created, _ := meta["creationTimestamp"].(string)
	return &doc{ref: ref, targets: targets, how: standing{owner: ref, age: created + " " + ref.Namespace + "/" + ref.Name}}
}

// also begins to read an object that another one refers to, and that holds for the same targets. It reports whether there is one.
func (r *reader) also(d *doc, to Ref) (*doc, *fields, bool) {
	object := r.content(to)
	if object == nil {
		return nil, nil, false
	}
	other := &doc{ref: to, by: d.ref, targets: d.targets, how: d.how}
	return other, other.spec(object), true
}

// take takes the rules of an object that was read.
func (r *reader) take(d *doc) {
	rules, stands := d.finish()
	r.rules, r.stands = append(r.rules, rules...), append(r.stands, stands...)
}

// usually adds what a gateway does when nobody says otherwise.
func (r *reader) usually(rule Rule) {
	rule.Targets = []Target{r.whole()}
	r.rules, r.stands = append(r.rules, rule), append(r.stands, standing{usual: true})
}

// whole is the edge as a whole.
func (r *reader) whole() Target { return Target{Object: r.gateway.Ref} }

// within is a part of a field, without spec.
func sectionOf(path string) string { return strings.TrimPrefix(path, "spec.") }
