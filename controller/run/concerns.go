package run

import (
	"slices"
	"strings"
	"sync"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
)

// set is one of AmbientEdges.
type set map[types.NamespacedName]bool

// concerns knows which AmbientEdges an object concerns. The zero value knows none.
//
// An edge is noted before its objects are read for good (see look), so that no change falls between. An edge that was never read is in no
// need of it: it is reconciled because it is there.
type concerns struct {
	mu         sync.RWMutex // guards the fields below
	scopes     map[types.NamespacedName]*scope
	owners     map[string]types.NamespacedName
	homes      map[string]set
	namespaces map[string]set
	services   map[types.NamespacedName]set
	gateways   map[types.NamespacedName]set
	parents    map[string]set
}

// note takes the place of what was noted for an edge, and says whether that had all of it already.
func (c *concerns) note(e types.NamespacedName, s *scope) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.scopes[e]
	if before != nil && s.within(before) && before.within(s) {
		return true
	}
	c.drop(e)
	if c.scopes == nil {
		c.scopes, c.owners = map[types.NamespacedName]*scope{}, map[string]types.NamespacedName{}
		c.homes, c.namespaces = map[string]set{}, map[string]set{}
		c.services, c.gateways, c.parents = map[types.NamespacedName]set{}, map[types.NamespacedName]set{}, map[string]set{}
	}
	c.scopes[e], c.owners[s.owner] = s, e
	put(c.homes, s.home, e)
	for k := range s.namespaces {
		put(c.namespaces, k, e)
	}
	for k := range s.services {
		put(c.services, k, e)
	}
	for k := range s.gateways {
		put(c.gateways, k, e)
	}
	for k := range s.parents {
		put(c.parents, k, e)
	}
	return before != nil && s.within(before)
}

// forget an edge that is gone.
func (c *concerns) forget(e types.NamespacedName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(e)
}

// drop needs mu.
func (c *concerns) drop(e types.NamespacedName) {
	s := c.scopes[e]
	if s == nil {
		return
	}
	delete(c.scopes, e)
	delete(c.owners, s.owner)
	take(c.homes, s.home, e)
	for k := range s.namespaces {
		take(c.namespaces, k, e)
	}
	for k := range s.services {
		take(c.services, k, e)
	}
	for k := range s.gateways {
		take(c.gateways, k, e)
	}
	for k := range s.parents {
		take(c.parents, k, e)
	}
}

func put[K comparable](m map[K]set, k K, e types.NamespacedName) {
	if m[k] == nil {
		m[k] = set{}
	}
	m[k][e] = true
}

func take[K comparable](m map[K]set, k K, e types.NamespacedName) {
	if delete(m[k], e); len(m[k]) == 0 {
		delete(m, k)
	}
}

// whom does an object concern? They are added to all.
func (c *concerns) whom(o client.Object, all set) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	key := client.ObjectKeyFromObject(o)
	switch o := o.(type) {
	case *v1alpha1.AmbientEdge:
		all[key] = true
		all.add(c.homes[o.Namespace]) // two may claim one gateway
	case *corev1.Namespace:
		all.add(c.namespaces[o.Name])
		c.leads(o.Name, o.Labels, all)
	case *gatewayv1beta1.ReferenceGrant:
		all.add(c.namespaces[key.Namespace])
	case *securityv1.AuthorizationPolicy:
		all.add(c.namespaces[key.Namespace])
		for _, owner := range holdersAny(o) {
			c.owner(owner, all)
		}
	case *corev1.Pod:
		for e := range c.namespaces[o.Namespace] {
			if c.scopes[e].wants(o) {
				all[e] = true
			}
		}
		c.leads(o.Namespace, o.Labels, all)
		if proxy(o) {
			c.that(all, func(s *scope) bool { return s.anywhere })
		}
	case *corev1.Service:
		c.service(o, all)
	case *appsv1.Deployment:
		c.workload(o, &o.Spec.Template, all)
	case *appsv1.DaemonSet:
		c.workload(o, &o.Spec.Template, all)
	case *gatewayv1.Gateway:
		all.add(c.homes[o.Namespace])
		all.add(c.gateways[key])
		c.owner(o.Labels[v1alpha1.LabelOwner], all)
		c.that(all, func(s *scope) bool { return s.classes[string(o.Spec.GatewayClassName)] })
	case *gatewayv1.HTTPRoute:
		c.route(o, all)
		c.that(all, func(s *scope) bool { return s.delegatesTo(o) })
	case *unstructured.Unstructured:
		c.other(o, all)
	case *networkingv1.Ingress:
		for _, owner := range holders(o) {
			c.owner(owner, all)
		}
		c.that(all, func(s *scope) bool { return s.workloads })
	default: // a class, or what is strict: any gateway may be of it, or in it
		c.that(all, func(*scope) bool { return true })
	}
}

// everybody adds all edges that were looked at.
func (c *concerns) everybody(all set) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	c.that(all, func(*scope) bool { return true })
}

// that adds those whose scope is so. It needs mu.
func (c *concerns) that(all set, is func(*scope) bool) {
	for e, s := range c.scopes {
		if is(s) {
			all[e] = true
		}
	}
}

// workload adds those at home with a workload, those whose waypoint it runs, and those to whose vendor it belongs or whose pods are near it.
func (c *concerns) workload(o client.Object, t *corev1.PodTemplateSpec, all set) {
	all.add(c.homes[o.GetNamespace()])
	c.gatewayOf(o, all)
	if name := vendorOf(t); name != "" {
		c.that(all, func(s *scope) bool { return s.vendors[name] || s.workloads })
	}
	c.that(all, func(s *scope) bool { return s.anywhere && s.namespaces[o.GetNamespace()] })
}

// service adds those that send to a Service or have labelled it, and those whose waypoint it leads to.
func (c *concerns) service(o *corev1.Service, all set) {
	all.add(c.services[client.ObjectKeyFromObject(o)])
	all.add(c.homes[o.Namespace])
	c.gatewayOf(o, all)
	for _, owner := range holdersAny(o) {
		c.owner(owner, all)
	}
	c.leads(o.Namespace, o.Labels, all)
	c.locking(o.Namespace, all)
}

// locking adds those that lock pods of a namespace: what leads to pods there may be of the same ones.
func (c *concerns) locking(namespace string, all set) {
	for e := range c.namespaces[namespace] {
		if c.scopes[e].locks[namespace] {
			all[e] = true
		}
	}
}

// leads adds those for whom the waypoint was made that labels name, and those that pair by it.
func (c *concerns) leads(namespace string, labels map[string]string, all set) {
	if waypoint, ok := waypointOf(namespace, labels); ok {
		for e := range c.gateways[waypoint] {
			if c.scopes[e].made[waypoint] || c.scopes[e].pairs {
				all[e] = true
			}
		}
	}
}

// gatewayOf adds those to whom the Gateway matters that an object was made for.
func (c *concerns) gatewayOf(o client.Object, all set) {
	if name := o.GetLabels()[edge.LabelGatewayName]; name != "" {
		all.add(c.gateways[types.NamespacedName{Namespace: o.GetNamespace(), Name: name}])
	}
}

func (c *concerns) owner(name string, all set) {
	if e, ok := c.owners[name]; ok {
		all[e] = true
	}
}

func (s set) add(more set) {
	for e := range more {
		s[e] = true
	}
}

// holdersAny are holders of what was created too, and not applied since.
func holdersAny(o metav1.Object) []string {
	var all []string
	for _, m := range o.GetManagedFields() {
		if owner, ours := strings.CutPrefix(m.Manager, v1alpha1.FieldOwnerPrefix); ours && !slices.Contains(all, owner) {
			all = append(all, owner)
		}
	}
	return all
}

// holders are the owners, as AmbientEdge.Owner says, of the edges that have fields of an object.
func holders(o metav1.Object) []string {
	var all []string
	for _, m := range o.GetManagedFields() {
		if owner, ours := strings.CutPrefix(m.Manager, v1alpha1.FieldOwnerPrefix); ours && m.Operation == metav1.ManagedFieldsOperationApply {
			all = append(all, owner)
		}
	}
	return all
}
