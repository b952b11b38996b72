package plan

import (
	"fmt"
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// kindUDPRoute is the kind of routes whose bytes the mesh does not carry.
const kindUDPRoute = "UDPRoute"

// route is a route of the Gateway API of any kind.
type route struct {
	kind    string
	key     types.NamespacedName
	object  metav1.Object
	parents []gatewayv1.ParentReference

	once    sync.Once // reads sends and reports
	sends   []send
	reports []gatewayv1.RouteParentStatus
}

func (r *route) String() string { return object(r.kind, r.key) }

// send is a place that a rule of a route sends to.
type send struct {
	field  string
	ref    *gatewayv1.BackendObjectReference
	copies bool // a mirror, and the answers are dropped
}

// routes are all of the snapshot. What is in them is read when it is asked for.
func (m *maker) routes() []*route {
	if ix := m.routeIndex(); ix != nil {
		return ix.list
	}
	if m.allRoutes == nil {
		m.allRoutes = m.readRoutes()
	}
	return m.allRoutes
}

func (s *Snapshot) readRoutes() []*route {
	list := make([]*route, 0, len(s.HTTPRoutes)+len(s.OtherRoutes))
	for i := range s.HTTPRoutes {
		o := &s.HTTPRoutes[i]
		list = append(list, &route{kind: "HTTPRoute", key: keyOf(o), object: o, parents: o.Spec.ParentRefs})
	}
	for _, o := range s.OtherRoutes {
		list = append(list, &route{kind: o.GetKind(), key: keyOf(o), object: o, parents: ParentRefs(o)})
	}
	return list
}

// ParentRefs are those of a route of any kind, typed or not.
func ParentRefs(o metav1.Object) []gatewayv1.ParentReference {
	switch o := o.(type) {
	case *gatewayv1.HTTPRoute:
		return o.Spec.ParentRefs
	case *unstructured.Unstructured:
		var refs []gatewayv1.ParentReference
		for _, p := range items(o.Object, []string{"spec", "parentRefs"}) {
			name, _ := p["name"].(string)
			ref := gatewayv1.ParentReference{
				Group: text[gatewayv1.Group](p, "group"), Kind: text[gatewayv1.Kind](p, "kind"), Name: gatewayv1.ObjectName(name),
				Namespace: text[gatewayv1.Namespace](p, "namespace"), SectionName: text[gatewayv1.SectionName](p, "sectionName"),
			}
			if port, ok := p["port"].(int64); ok {
				n := gatewayv1.PortNumber(port)
				ref.Port = &n
			}
			refs = append(refs, ref)
		}
		return refs
	}
	return nil
}

// text is a field of a tree that may be missing.
func text[T ~string](tree map[string]any, key string) *T {
	v, ok := tree[key].(string)
	if !ok {
		return nil
	}
	is := T(v)
	return &is
}

// otherRoute is what routes of all kinds have in common, besides parentRefs. Fields that a kind lacks stay empty.
type otherRoute struct {
	Spec struct {
		Rules []struct {
			Filters     []otherFilter `json:"filters,omitempty"`
			BackendRefs []struct {
				gatewayv1.BackendObjectReference `json:",inline"`

				Filters []otherFilter `json:"filters,omitempty"`
			} `json:"backendRefs,omitempty"`
		} `json:"rules,omitempty"`
	} `json:"spec"`
	Status gatewayv1.RouteStatus `json:"status"`
}

// otherFilter is a filter of a rule, of which mirrors count.
type otherFilter struct {
	RequestMirror *gatewayv1.HTTPRequestMirrorFilter `json:"requestMirror,omitempty"`
}

// look reads what a route sends to, and what gateways say of it. Of an object that is not as its kind should be there is nothing.
func (r *route) look() *route {
	r.once.Do(r.read)
	return r
}

func (r *route) read() {
	add := func(field string, ref *gatewayv1.BackendObjectReference) {
		r.sends = append(r.sends, send{field, ref, false})
	}
	mirror := func(at string, i int, to *gatewayv1.HTTPRequestMirrorFilter) {
		if to != nil {
			r.sends = append(r.sends, send{fmt.Sprintf("%s.filters[%d].requestMirror", at, i), &to.BackendRef, true})
		}
	}
	switch o := r.object.(type) {
	case *gatewayv1.HTTPRoute:
		r.reports = o.Status.Parents
		for i := range o.Spec.Rules {
			rule, at := &o.Spec.Rules[i], fmt.Sprintf("spec.rules[%d]", i)
			for j := range rule.Filters {
				mirror(at, j, rule.Filters[j].RequestMirror)
			}
			for j := range rule.BackendRefs {
				b, field := &rule.BackendRefs[j], fmt.Sprintf("%s.backendRefs[%d]", at, j)
				add(field, &b.BackendObjectReference)
				for k := range b.Filters {
					mirror(field, k, b.Filters[k].RequestMirror)
				}
			}
		}
	case *unstructured.Unstructured:
		is := &otherRoute{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, is); err != nil {
			return
		}
		r.reports = is.Status.Parents
		for i := range is.Spec.Rules {
			rule, at := &is.Spec.Rules[i], fmt.Sprintf("spec.rules[%d]", i)
			for j := range rule.Filters {
				mirror(at, j, rule.Filters[j].RequestMirror)
			}
			for j := range rule.BackendRefs {
				b, field := &rule.BackendRefs[j], fmt.Sprintf("%s.backendRefs[%d]", at, j)
				add(field, &b.BackendObjectReference)
				for k := range b.Filters {
					mirror(field, k, b.Filters[k].RequestMirror)
				}
			}
		}
	}
}

// SentTo are the Services that a route of any kind names, mirrors apart, whether it may or not.
func SentTo(o metav1.Object) []types.NamespacedName {
	r := (&route{key: keyOf(o), object: o}).look()
	var keys []types.NamespacedName
	for i := range r.sends {
		if s := &r.sends[i]; !s.copies && isService(s.ref) {
			keys = append(keys, r.refers(s.ref))
		}
	}
	return keys
}

// isService says whether a reference is to a Service.
func isService(ref *gatewayv1.BackendObjectReference) bool {
	return (ref.Kind == nil || *ref.Kind == "Service") && (ref.Group == nil || *ref.Group == "")
}

// refers is the object that a route refers to.
func (r *route) refers(ref *gatewayv1.BackendObjectReference) types.NamespacedName {
	key := types.NamespacedName{Namespace: r.key.Namespace, Name: string(ref.Name)}
	if ref.Namespace != nil {
		key.Namespace = string(*ref.Namespace)
	}
	return key
}

// names says whether the route names a parent.
func (r *route) names(p *parent) bool {
	return slices.ContainsFunc(r.parents, func(ref gatewayv1.ParentReference) bool { return p.is(&ref, r.key.Namespace) })
}

// asks says whether a status is about one of the route's parentRefs for a parent, and not about one that it has no more.
func (r *route) asks(p *parent, status *gatewayv1.ParentReference) bool {
	return p.is(status, r.key.Namespace) && slices.ContainsFunc(r.parents, func(ref gatewayv1.ParentReference) bool {
		return p.is(&ref, r.key.Namespace) && same(ref.SectionName, status.SectionName) && same(ref.Port, status.Port)
	})
}

func same[T comparable](a, b *T) bool { return a == b || a != nil && b != nil && *a == *b }

// refsOf are the Services of a route's rules: those of other namespaces need their ReferenceGrant.
func (m *maker) refsOf(r *route) []backendRef {
	var refs []backendRef
	for i := range r.look().sends {
		s := &r.sends[i]
		if s.copies || !isService(s.ref) {
			continue
		}
		key := r.refers(s.ref)
		refs = append(refs, backendRef{key, s.field, key.Namespace == r.key.Namespace || m.granted(r.kind, r.key.Namespace, key)})
	}
	return refs
}

// granted says whether routes of a kind and namespace may send to a Service of another.
func (m *maker) granted(kind, from string, to types.NamespacedName) bool {
	for _, g := range m.grantsIn(to.Namespace) {
		isFrom, isTo := false, false
		for _, f := range g.Spec.From {
			isFrom = isFrom || string(f.Group) == gatewayv1.GroupName && string(f.Kind) == kind && string(f.Namespace) == from
		}
		for _, t := range g.Spec.To {
			isTo = isTo || t.Group == "" && t.Kind == "Service" && (t.Name == nil || string(*t.Name) == to.Name)
		}
		if isFrom && isTo {
			return true
		}
	}
	return false
}
