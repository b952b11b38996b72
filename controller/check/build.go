package check

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

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
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// Builder puts a World together. It is not safe for concurrent use.
type Builder struct{ w *World }

// NewBuilder begins with nothing. paper says that what is added comes from files: pods that workloads would have are assumed then, and namespaces
// that objects are in.
func NewBuilder(mesh Mesh, paper bool) *Builder {
	return &Builder{&World{
		Snapshot: &plan.Snapshot{TrustDomain: mesh.TrustDomain, RootNamespace: mesh.RootNamespace, Hearsay: true, Paper: paper}, Mesh: mesh,
		ServiceAccounts: map[types.NamespacedName]bool{}, where: map[Object]string{}, ignores: map[Object]string{},
		others: map[schema.GroupKind][]*unstructured.Unstructured{}, other: map[Object]*unstructured.Unstructured{}, kinds: map[schema.GroupKind]bool{},
		supposed: map[string]bool{}, unread: map[Object]bool{}, hidden: map[schema.GroupKind]bool{},
	}}
}

// Asked notes that a cluster was asked for all objects of a kind, and knows it.
func (b *Builder) Asked(kind schema.GroupKind) { b.w.kinds[kind] = true }

// Hidden notes that a cluster may have objects of a kind, which may not be read: nothing is sure about gateways that obey it.
func (b *Builder) Hidden(kind schema.GroupKind) { b.w.hidden[kind] = true }

// Expect makes room for objects of a kind of which a cluster may have very many: n in all.
func (b *Builder) Expect(kind schema.GroupKind, n int) {
	switch w := b.w; kind {
	case schema.GroupKind{Kind: "Pod"}:
		w.Pods = slices.Grow(w.Pods, n)
	case schema.GroupKind{Kind: "Service"}:
		w.Services = slices.Grow(w.Services, n)
	case schema.GroupKind{Group: "apps", Kind: "Deployment"}:
		w.Deployments = slices.Grow(w.Deployments, n)
	case schema.GroupKind{Group: gatewayv1.GroupName, Kind: "HTTPRoute"}:
		w.HTTPRoutes = slices.Grow(w.HTTPRoutes, n)
	}
}

// Add adds an object as a file has it, and takes it over. where is file:line, or empty. One that cannot be read is left out, and found.
func (b *Builder) Add(u *unstructured.Unstructured, where string) { b.AddFaulty(u, where, Faults(u)) }

// AddFaulty is Add for an object whose faults are known.
func (b *Builder) AddFaulty(u *unstructured.Unstructured, where string, faults []Fault) {
	if !b.Fault(u, where, faults) {
		return
	}
	o, err := Typed(u)
	switch {
	case err != nil:
		b.Fault(u, where, malformed(err))
	case o != nil:
		b.AddTyped(o, where)
	default:
		gk := u.GroupVersionKind().GroupKind()
		b.note(gk, u, where)
		b.other(gk, u)
	}
}

// Typed is an object in the type that World has a list of, for AddTyped; nil: its kind has none. An error is about an object that is not as its kind should be.
func Typed(u *unstructured.Unstructured) (metav1.Object, error) {
	gk := u.GroupVersionKind().GroupKind()
	o := typed(gk)
	if o == nil {
		return nil, nil
	}
	text, err := json.Marshal(u.Object)
	if err == nil {
		err = json.Unmarshal(text, o)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s/%s is malformed: %w", gk.Kind, u.GetNamespace(), u.GetName(), err)
	}
	if pod, is := o.(*corev1.Pod); is {
		slim := plan.PodOf(pod)
		return &slim, nil
	}
	return o, nil
}

// typed is an empty object of a kind that has a list of its own, or nil.
func typed(gk schema.GroupKind) metav1.Object {
	switch gk.Group {
	case "":
		switch gk.Kind {
		case "Namespace":
			return &corev1.Namespace{}
		case "Pod":
			return &corev1.Pod{}
		case "Service":
			return &corev1.Service{}
		case "ServiceAccount":
			return &corev1.ServiceAccount{}
		}
	case "apps":
		switch gk.Kind {
		case "Deployment":
			return &appsv1.Deployment{}
		case "DaemonSet":
			return &appsv1.DaemonSet{}
		}
	case "discovery.k8s.io":
		if gk.Kind == "EndpointSlice" {
			return &discoveryv1.EndpointSlice{}
		}
	case "networking.k8s.io":
		switch gk.Kind {
		case "NetworkPolicy":
			return &networkingv1.NetworkPolicy{}
		case "Ingress":
			return &networkingv1.Ingress{}
		case "IngressClass":
			return &networkingv1.IngressClass{}
		}
	case gatewayv1.GroupName:
		switch gk.Kind {
		case "Gateway":
			return &gatewayv1.Gateway{}
		case "GatewayClass":
			return &gatewayv1.GatewayClass{}
		case "HTTPRoute":
			return &gatewayv1.HTTPRoute{}
		case "ReferenceGrant":
			return &gatewayv1beta1.ReferenceGrant{}
		}
	case "security.istio.io":
		switch gk.Kind {
		case "AuthorizationPolicy":
			return &securityv1.AuthorizationPolicy{}
		case "RequestAuthentication":
			return &securityv1.RequestAuthentication{}
		case "PeerAuthentication":
			return &securityv1.PeerAuthentication{}
		}
	case v1alpha1.GroupVersion().Group:
		if gk.Kind == "AmbientEdge" {
			return &v1alpha1.AmbientEdge{}
		}
	}
	return nil
}

// AddTyped adds an object of a type that World has a list of, and takes it over. Others are dropped.
func (b *Builder) AddTyped(o metav1.Object, where string) {
	w := b.w
	var group, kind string
	switch o := o.(type) {
	case *corev1.Namespace:
		kind, w.Namespaces = "Namespace", append(w.Namespaces, *o)
	case *plan.Pod:
		kind, w.Pods = "Pod", append(w.Pods, *o)
	case *corev1.Pod:
		kind, w.Pods = "Pod", append(w.Pods, plan.PodOf(o))
	case *corev1.Service:
		kind, w.Services = "Service", append(w.Services, *o)
	case *corev1.ServiceAccount:
		kind = "ServiceAccount"
		w.ServiceAccounts[types.NamespacedName{Namespace: o.Namespace, Name: o.Name}] = true
	case *appsv1.Deployment:
		group, kind, w.Deployments = "apps", "Deployment", append(w.Deployments, *o)
	case *appsv1.DaemonSet:
		group, kind, w.DaemonSets = "apps", "DaemonSet", append(w.DaemonSets, *o)
	case *discoveryv1.EndpointSlice:
		group, kind, w.EndpointSlices = "discovery.k8s.io", "EndpointSlice", append(w.EndpointSlices, o)
	case *networkingv1.NetworkPolicy:
		group, kind, w.NetworkPolicies = "networking.k8s.io", "NetworkPolicy", append(w.NetworkPolicies, o)
	case *networkingv1.Ingress:
		group, kind, w.Ingresses = "networking.k8s.io", "Ingress", append(w.Ingresses, *o)
	case *networkingv1.IngressClass:
		group, kind, w.IngressClasses = "networking.k8s.io", "IngressClass", append(w.IngressClasses, *o)
	case *gatewayv1.Gateway:
		group, kind, w.Gateways = gatewayv1.GroupName, "Gateway", append(w.Gateways, *o)
	case *gatewayv1.GatewayClass:
		group, kind, w.Classes = gatewayv1.GroupName, "GatewayClass", append(w.Classes, *o)
	case *gatewayv1.HTTPRoute:
		group, kind, w.HTTPRoutes = gatewayv1.GroupName, "HTTPRoute", append(w.HTTPRoutes, *o)
	case *gatewayv1beta1.ReferenceGrant:
		group, kind, w.ReferenceGrants = gatewayv1.GroupName, "ReferenceGrant", append(w.ReferenceGrants, *o)
	case *securityv1.AuthorizationPolicy:
		group, kind, w.Policies = "security.istio.io", "AuthorizationPolicy", append(w.Policies, o)
	case *securityv1.RequestAuthentication:
		group, kind, w.RequestAuthentications = "security.istio.io", "RequestAuthentication", append(w.RequestAuthentications, o)
	case *securityv1.PeerAuthentication:
		group, kind, w.Strictness = "security.istio.io", "PeerAuthentication", append(w.Strictness, o)
	case *v1alpha1.AmbientEdge:
		group, kind, w.Edges = v1alpha1.GroupVersion().Group, "AmbientEdge", append(w.Edges, *o)
	default:
		return
	}
	b.note(schema.GroupKind{Group: group, Kind: kind}, o, where)
}

// note remembers where an object stands, and what is ignored of it.
func (b *Builder) note(gk schema.GroupKind, o metav1.Object, where string) {
	key := Object{gk.Group, gk.Kind, types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}}
	b.w.kinds[gk] = true
	if where != "" {
		b.w.where[key] = where
	}
	if ignore := o.GetAnnotations()[Ignore]; ignore != "" {
		b.w.ignores[key] = ignore
	}
}

// other adds an object that has no type of its own.
func (b *Builder) other(gk schema.GroupKind, u *unstructured.Unstructured) {
	w := b.w
	w.others[gk] = append(w.others[gk], u)
	w.other[Object{gk.Group, gk.Kind, types.NamespacedName{Namespace: u.GetNamespace(), Name: u.GetName()}}] = u
	switch {
	case gk.Group == gatewayv1.GroupName && strings.HasSuffix(gk.Kind, "Route"):
		w.OtherRoutes = append(w.OtherRoutes, u)
	case strings.HasSuffix(gk.Kind, "ListenerSet"):
		w.ListenerSets = append(w.ListenerSets, u)
	case gk == schema.GroupKind{Group: "networking.istio.io", Kind: "ServiceEntry"}:
		w.ServiceEntries = append(w.ServiceEntries, u)
	case slices.Contains(extensions(), gk):
		w.Extensions = append(w.Extensions, u)
	}
	if slices.ContainsFunc(edge.Uses(), func(k edge.Use) bool { return k.Group == gk.Group && k.Kind.Kind == gk.Kind }) {
		w.Objects = append(w.Objects, u)
	}
	if ruleKinds()[gk] {
		w.Rules = append(w.Rules, u)
	}
	w.Callees = append(w.Callees, plan.CalleesOf(u)...)
}

// ruleKinds are those of plan.RuleKinds. Every object is compared with them.
var ruleKinds = sync.OnceValue(func() map[schema.GroupKind]bool {
	all := map[schema.GroupKind]bool{}
	for _, k := range plan.RuleKinds() {
		all[k.GroupKind()] = true
	}
	return all
})

// extensions are what waypoints obey by targetRefs, besides policies.
func extensions() []schema.GroupKind {
	return []schema.GroupKind{
		{Group: "extensions.istio.io", Kind: "WasmPlugin"}, {Group: "extensions.istio.io", Kind: "TrafficExtension"}, {Group: "networking.istio.io", Kind: "EnvoyFilter"},
	}
}

// World is what was added. Nothing may be added afterwards.
func (b *Builder) World() *World {
	w := b.w
	if w.Paper {
		b.assume()
	}
	w.services, w.servicesOf = make(map[types.NamespacedName]*corev1.Service, len(w.Services)), map[string][]*corev1.Service{}
	for i := range w.Services {
		s := &w.Services[i]
		w.services[types.NamespacedName{Namespace: s.Namespace, Name: s.Name}] = s
		w.servicesOf[s.Namespace] = append(w.servicesOf[s.Namespace], s)
	}
	w.pods = map[string][]*plan.Pod{}
	for i := range w.Pods {
		if p := &w.Pods[i]; p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
			w.pods[p.Namespace] = append(w.pods[p.Namespace], p)
		}
	}
	w.namespaces = make(map[string]*corev1.Namespace, len(w.Namespaces))
	for i := range w.Namespaces {
		w.namespaces[w.Namespaces[i].Name] = &w.Namespaces[i]
	}
	w.gateways = make(map[types.NamespacedName]*gatewayv1.Gateway, len(w.Gateways))
	for i := range w.Gateways {
		g := &w.Gateways[i]
		w.gateways[types.NamespacedName{Namespace: g.Namespace, Name: g.Name}] = g
	}
	w.classes = make(map[string]*gatewayv1.GatewayClass, len(w.Classes))
	for i := range w.Classes {
		w.classes[w.Classes[i].Name] = &w.Classes[i]
	}
	w.policiesIn = map[string][]*securityv1.AuthorizationPolicy{}
	for _, p := range w.Policies {
		w.policiesIn[p.Namespace] = append(w.policiesIn[p.Namespace], p)
	}
	return w
}

// AssumeClasses adds the GatewayClasses that gateways' controllers make as a rule, where a Gateway names one that is not there, and says their names. It is
// for who has to answer by files alone, after all else was added.
func (b *Builder) AssumeClasses() (assumed []string) {
	w := b.w
	there := map[gatewayv1.ObjectName]bool{}
	for i := range w.Classes {
		there[gatewayv1.ObjectName(w.Classes[i].Name)] = true
	}
	for i := range w.Gateways {
		name := w.Gateways[i].Spec.GatewayClassName
		controller := edge.ClassController(string(name))
		if there[name] || controller == "" {
			continue
		}
		there[name] = true
		w.Classes = append(w.Classes, gatewayv1.GatewayClass{
			ObjectMeta: metav1.ObjectMeta{Name: string(name)}, Spec: gatewayv1.GatewayClassSpec{ControllerName: gatewayv1.GatewayController(controller)},
		})
		assumed = append(assumed, string(name))
	}
	return assumed
}

// assume adds what files leave to a cluster: the namespaces that objects are in, and a pod for each workload that has none in the files.
func (b *Builder) assume() {
	w := b.w
	there := map[string]bool{}
	for i := range w.Namespaces {
		there[w.Namespaces[i].Name] = true
	}
	need := func(namespace string) {
		if namespace != "" && !there[namespace] {
			there[namespace], w.supposed[namespace] = true, true
			w.Namespaces = append(w.Namespaces, corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
		}
	}
	for i := range w.Services {
		need(w.Services[i].Namespace)
	}
	for i := range w.Gateways {
		need(w.Gateways[i].Namespace)
	}
	running := map[string][]map[string]string{}
	for i := range w.Pods {
		need(w.Pods[i].Namespace)
		running[w.Pods[i].Namespace] = append(running[w.Pods[i].Namespace], w.Pods[i].Labels)
	}
	pod := func(o metav1.Object, selector *metav1.LabelSelector, template *corev1.PodTemplateSpec) {
		need(o.GetNamespace())
		if selector == nil || len(selector.MatchLabels) == 0 {
			return
		}
		for _, labels := range running[o.GetNamespace()] {
			if has(labels, selector.MatchLabels) {
				return
			}
		}
		p := plan.Pod{ObjectMeta: *template.ObjectMeta.DeepCopy(), Spec: plan.SpecOf(template.Spec.DeepCopy())}
		p.Namespace, p.Name = o.GetNamespace(), o.GetName()+assumedSuffix
		w.Pods = append(w.Pods, p)
	}
	for i := range w.Deployments {
		if d := &w.Deployments[i]; d.Spec.Replicas == nil || *d.Spec.Replicas > 0 {
			pod(d, d.Spec.Selector, &d.Spec.Template)
		}
	}
	for i := range w.DaemonSets {
		pod(&w.DaemonSets[i], w.DaemonSets[i].Spec.Selector, &w.DaemonSets[i].Spec.Template)
	}
}
