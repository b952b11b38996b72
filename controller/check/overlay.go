package check

import (
	"slices"
	"strings"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// Placed is an object, and where it stands: file:line.
type Placed struct {
	*unstructured.Unstructured

	Where string
	// Faults are those of the object as the file has it. One that cannot be read changes nothing.
	Faults []Fault
}

// Name is Kind namespace/name, or Kind name.
func (p *Placed) Name() string { return p.key().String() }

func (p *Placed) key() Object {
	gk := p.GroupVersionKind().GroupKind()
	return Object{gk.Group, gk.Kind, types.NamespacedName{Namespace: p.GetNamespace(), Name: p.GetName()}}
}

// Over is what a cluster's World would be with objects applied to it, once everybody has acted on them: routes are accepted, waypoints serve, pods run
// as their workloads have them, and are captured as labels have it. w is taken over, and not to be used any more.
func (w *World) Over(objects []Placed) *World {
	broken := func(p Placed) bool { return slices.ContainsFunc(p.Faults, func(f Fault) bool { return f.Unread }) }
	given := map[Object]bool{}
	for i := range objects {
		if !broken(objects[i]) {
			given[objects[i].key()] = true
		}
	}
	b := &Builder{w.without(given)}
	for i := range objects {
		if p := &objects[i]; broken(*p) {
			b.Fault(p.Unstructured, p.Where, p.Faults)
		}
	}
	objects = slices.DeleteFunc(objects, broken)
	controllers := b.controllers(objects)
	for i := range objects {
		imply(objects[i].Unstructured, controllers)
		b.AddFaulty(objects[i].Unstructured, objects[i].Where, objects[i].Faults)
	}
	changed := b.roll(given)
	over := b.World()
	over.recapture(given, changed)
	over.bind(given)
	return over
}

// without is a World that lacks objects, and has no index yet.
func (w *World) without(given map[Object]bool) *World {
	s := *w.Snapshot
	w = &World{
		Snapshot: &s, Mesh: w.Mesh, NetworkPolicies: w.NetworkPolicies, EndpointSlices: w.EndpointSlices, ServiceAccounts: w.ServiceAccounts,
		where: w.where, ignores: w.ignores, others: w.others, other: w.other, kinds: w.kinds, hidden: w.hidden, unread: map[Object]bool{},
	}
	for o := range given {
		delete(w.where, o)
		delete(w.ignores, o)
		delete(w.other, o)
	}
	const gateway, security = gatewayv1.GroupName, "security.istio.io"
	s.Namespaces = left(s.Namespaces, given, "", "Namespace", func(o *corev1.Namespace) metav1.Object { return o })
	s.Pods = left(s.Pods, given, "", "Pod", func(o *plan.Pod) metav1.Object { return o })
	s.Services = left(s.Services, given, "", "Service", func(o *corev1.Service) metav1.Object { return o })
	s.Deployments = left(s.Deployments, given, "apps", "Deployment", func(o *appsv1.Deployment) metav1.Object { return o })
	s.DaemonSets = left(s.DaemonSets, given, "apps", "DaemonSet", func(o *appsv1.DaemonSet) metav1.Object { return o })
	s.Gateways = left(s.Gateways, given, gateway, "Gateway", func(o *gatewayv1.Gateway) metav1.Object { return o })
	s.Classes = left(s.Classes, given, gateway, "GatewayClass", func(o *gatewayv1.GatewayClass) metav1.Object { return o })
	s.HTTPRoutes = left(s.HTTPRoutes, given, gateway, "HTTPRoute", func(o *gatewayv1.HTTPRoute) metav1.Object { return o })
	s.ReferenceGrants = left(s.ReferenceGrants, given, gateway, "ReferenceGrant", func(o *gatewayv1beta1.ReferenceGrant) metav1.Object { return o })
	s.Policies = left(s.Policies, given, security, "AuthorizationPolicy", func(o **securityv1.AuthorizationPolicy) metav1.Object { return *o })
	s.RequestAuthentications = left(s.RequestAuthentications, given, security, "RequestAuthentication", func(o **securityv1.RequestAuthentication) metav1.Object {
		return *o
	})
	s.Strictness = left(s.Strictness, given, security, "PeerAuthentication", func(o **securityv1.PeerAuthentication) metav1.Object { return *o })
	s.Ingresses = left(s.Ingresses, given, "networking.k8s.io", "Ingress", func(o *networkingv1.Ingress) metav1.Object { return o })
	s.IngressClasses = left(s.IngressClasses, given, "networking.k8s.io", "IngressClass", func(o *networkingv1.IngressClass) metav1.Object { return o })
	s.Edges = left(s.Edges, given, v1alpha1.GroupVersion().Group, "AmbientEdge", func(o *v1alpha1.AmbientEdge) metav1.Object { return o })
	w.NetworkPolicies = left(w.NetworkPolicies, given, "networking.k8s.io", "NetworkPolicy", func(o **networkingv1.NetworkPolicy) metav1.Object { return *o })
	w.EndpointSlices = left(w.EndpointSlices, given, "discovery.k8s.io", "EndpointSlice", func(o **discoveryv1.EndpointSlice) metav1.Object { return *o })
	untyped := func(list []*unstructured.Unstructured) []*unstructured.Unstructured {
		return slices.DeleteFunc(list, func(u *unstructured.Unstructured) bool { return given[(&Placed{Unstructured: u}).key()] })
	}
	for gk := range w.others {
		w.others[gk] = untyped(w.others[gk])
	}
	for _, list := range []*[]*unstructured.Unstructured{&s.OtherRoutes, &s.ListenerSets, &s.ServiceEntries, &s.Extensions, &s.Objects, &s.Rules} {
		*list = untyped(*list)
	}
	s.Callees = slices.DeleteFunc(s.Callees, func(c plan.Callee) bool {
		kind, name, _ := strings.Cut(c.By, " ")
		for o := range given {
			if o.Kind == kind && o.Name == name {
				return true
			}
		}
		return false
	})
	return w
}

// left are the objects of a kind that are not given.
func left[T any](list []T, given map[Object]bool, group, kind string, object func(*T) metav1.Object) []T {
	return slices.DeleteFunc(list, func(o T) bool {
		m := object(&o)
		return given[Object{group, kind, types.NamespacedName{Namespace: m.GetNamespace(), Name: m.GetName()}}]
	})
}

// Read says whether checks look at objects of a kind.
func (w *World) Read(kind schema.GroupKind) bool { return typed(kind) != nil || w.kinds[kind] }
