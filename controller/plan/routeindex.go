package plan

import (
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// routeIndex finds routes by what they name as parent. What is read of them is read once, whoever asks.
type routeIndex struct {
	list []*route
	by   map[parentKey][]int // the zero key has those without parents
}

// parentKey is what a route names as parent.
type parentKey struct {
	group, kind string
	key         types.NamespacedName
}

// named is the parent that a reference of a route in a namespace is to.
func named(ref *gatewayv1.ParentReference, namespace string) parentKey {
	k := parentKey{gatewayv1.GroupName, "Gateway", types.NamespacedName{Namespace: namespace, Name: string(ref.Name)}}
	if ref.Group != nil {
		k.group = string(*ref.Group)
	}
	if ref.Kind != nil {
		k.kind = string(*ref.Kind)
	}
	if ref.Namespace != nil {
		k.key.Namespace = string(*ref.Namespace)
	}
	return k
}

func (p *parent) id() parentKey { return parentKey{p.group, p.kind, p.key} }

func newRouteIndex(list []*route) *routeIndex {
	ix := &routeIndex{list, map[parentKey][]int{}}
	for i, r := range list {
		if len(r.parents) == 0 {
			ix.by[parentKey{}] = append(ix.by[parentKey{}], i)
		}
		for j := range r.parents {
			k := named(&r.parents[j], r.key.Namespace)
			ix.by[k] = append(ix.by[k], i)
		}
	}
	return ix
}

// routeIndex is that of the snapshot, or nil.
func (m *maker) routeIndex() *routeIndex {
	if m.ix == nil {
		return nil
	}
	return m.ix.routes()
}

// routesFor are the routes that may name one of some gateways or a ListenerSet of it, and all that do.
func (m *maker) routesFor(gateways ...*gateway) []*route {
	ix := m.routeIndex()
	if ix == nil {
		return m.routes()
	}
	var keys []parentKey
	for _, g := range gateways {
		for _, p := range m.parents(g) {
			keys = append(keys, p.id())
		}
	}
	return pick(ix.list, ix.by, keys...)
}

// routesUnder are the routes that may take from another, and all that do: those that name it as parent, or nothing.
func (m *maker) routesUnder(p *parent) []*route {
	ix := m.routeIndex()
	if ix == nil {
		return m.routes()
	}
	return pick(ix.list, ix.by, p.id(), parentKey{})
}
