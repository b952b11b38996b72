package run

import (
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// use is whose objects of a kind are, and where they may be.
type use struct {
	vendors  []string
	anywhere bool // what they name may be in other namespaces than theirs
}

// uses are the kinds of vendors' objects.
var uses = sync.OnceValue(func() map[schema.GroupKind]use {
	all := map[schema.GroupKind]use{}
	for _, v := range edge.Vendors() {
		for i := range v.Switches {
			s := &v.Switches[i]
			k := schema.GroupKind{Group: s.Kind.Group, Kind: s.Kind.Kind}
			all[k] = use{append(all[k].vendors, v.Name), all[k].anywhere || s.On == edge.OnList}
		}
	}
	return all
})

// other adds those whom an object of a family concerns. It needs mu.
func (c *concerns) other(o *unstructured.Unstructured, all set) {
	for _, owner := range holdersAny(o) {
		c.owner(owner, all)
	}
	c.owner(o.GetLabels()[v1alpha1.LabelOwner], all)
	u, vendors := uses()[o.GroupVersionKind().GroupKind()]
	switch kind := o.GetKind(); {
	case isRoute(kind):
		c.route(o, all)
	case isListenerSet(kind):
		all.add(c.gateways[plan.ListenerSetOf(o)])
	case kind == "ServiceEntry":
		c.leads(o.GetNamespace(), o.GetLabels(), all)
		c.locking(o.GetNamespace(), all)
	case isRule(o.GroupVersionKind().GroupKind()):
		c.that(all, func(s *scope) bool { return s.rules })
	case vendors:
		c.that(all, func(s *scope) bool {
			near := u.anywhere || s.namespaces[o.GetNamespace()] || s.near[o.GetNamespace()]
			return near && (s.workloads || s.ofAny(u.vendors))
		})
	default: // who calls a Service may call any gateway's
		c.that(all, func(*scope) bool { return true })
	}
}

// route adds those to whom a Gateway or a ListenerSet matters that a route names. It needs mu.
func (c *concerns) route(o client.Object, all set) {
	for _, parent := range parents(o) {
		all.add(c.parents[parent])
	}
}

// ofAny says whether gateways of the edge are of one of these vendors.
func (s *scope) ofAny(vendors []string) bool {
	for _, name := range vendors {
		if s.vendors[name] {
			return true
		}
	}
	return false
}
