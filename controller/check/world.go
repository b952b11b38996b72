package check

import (
	"cmp"
	"maps"
	"slices"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// Mesh is what the mesh's configuration says. What is empty has Istio's default.
type Mesh struct {
	TrustDomain, RootNamespace string
	TrustDomainAliases         []string
	PathNormalization          policy.Normalization
	// Providers are the names of extension providers. Nil: they are not known, and none is missed.
	Providers []string
	// Known says that it was read, and is not assumed.
	Known bool
}

// World is all that is looked at. It does not change; its lists are in no order, and not to be changed.
type World struct {
	// Snapshot has what plans depend on too. With Paper it is of files: what is not there may be in the cluster, and nothing has a status as a rule.
	*plan.Snapshot

	Mesh            Mesh
	NetworkPolicies []*networkingv1.NetworkPolicy
	EndpointSlices  []*discoveryv1.EndpointSlice
	ServiceAccounts map[types.NamespacedName]bool

	where   map[Object]string
	ignores map[Object]string
	others  map[schema.GroupKind][]*unstructured.Unstructured
	other   map[Object]*unstructured.Unstructured
	kinds   map[schema.GroupKind]bool // of which there is an object, or a cluster was asked for
	hidden  map[schema.GroupKind]bool // that may not be read
	faults  []Finding                 // of objects that are not as their kinds are
	unread  map[Object]bool           // those of them that are left out

	services   map[types.NamespacedName]*corev1.Service
	servicesOf map[string][]*corev1.Service // by namespace
	pods       map[string][]*plan.Pod       // by namespace, without those that have ended
	namespaces map[string]*corev1.Namespace
	gateways   map[types.NamespacedName]*gatewayv1.Gateway
	policiesIn map[string][]*securityv1.AuthorizationPolicy
	classes    map[string]*gatewayv1.GatewayClass
	supposed   map[string]bool // namespaces that only what is in them tells of: their labels are not known

	// What follows is made when it is first asked for, by checks that run at the same time.
	labelled memo[string, map[[2]string][]*plan.Pod] // by namespace and label, see fewest
	guards   lazy[*guards]
	ways     lazy[*ways]
	views    lazy[[]plan.View]
	set      lazy[*policy.Set]
	edges    lazy[*edgeWorld]
}

// Views are the gateways that are at an edge: all but waypoints and gateways between networks.
func (w *World) Views() []plan.View {
	return w.views.of(func() []plan.View { return plan.Survey(w.Snapshot) })
}

// Evaluator decides by all policies.
func (w *World) Evaluator() *policy.Set {
	return w.set.of(func() *policy.Set {
		return policy.New(policy.Mesh{
			AuthorizationPolicies: w.Policies, RequestAuthentications: w.RequestAuthentications, PeerAuthentications: w.Strictness,
			RootNamespace: w.Root(), TrustDomain: w.Mesh.TrustDomain, TrustDomainAliases: w.Mesh.TrustDomainAliases,
			PathNormalization: w.Mesh.PathNormalization, Providers: w.Mesh.Providers,
		})
	})
}

// Others are the objects of a kind that has no list of its own, in a namespace; an empty one is all.
func (w *World) Others(kind schema.GroupKind, namespace string) []*unstructured.Unstructured {
	if namespace == "" {
		return w.others[kind]
	}
	var list []*unstructured.Unstructured
	for _, o := range w.others[kind] {
		if o.GetNamespace() == namespace {
			list = append(list, o)
		}
	}
	return list
}

// Other is an object of a kind that has no list of its own, or nil.
func (w *World) Other(kind schema.GroupKind, namespace, name string) *unstructured.Unstructured {
	return w.other[Object{kind.Group, kind.Kind, types.NamespacedName{Namespace: namespace, Name: name}}]
}

// ConfigMaps are those that checks look at.
func ConfigMaps() []types.NamespacedName {
	return []types.NamespacedName{{Namespace: "kube-system", Name: "cilium-config"}}
}

// Knows says whether a missing object of a kind is missing indeed: the cluster was asked for them.
func (w *World) Knows(kind schema.GroupKind) bool { return !w.Paper && w.kinds[kind] }

// Service is nil when it is not there.
func (w *World) Service(key types.NamespacedName) *corev1.Service { return w.services[key] }

// ServicesIn are those of a namespace.
func (w *World) ServicesIn(namespace string) []*corev1.Service { return w.servicesOf[namespace] }

// Namespace is nil when it is not there.
func (w *World) Namespace(name string) *corev1.Namespace { return w.namespaces[name] }

// Gateway is nil when it is not there.
func (w *World) Gateway(key types.NamespacedName) *gatewayv1.Gateway { return w.gateways[key] }

// PoliciesIn are the AuthorizationPolicies of a namespace.
func (w *World) PoliciesIn(namespace string) []*securityv1.AuthorizationPolicy {
	return w.policiesIn[namespace]
}

// PodsIn are the pods of a namespace that have not ended.
func (w *World) PodsIn(namespace string) []*plan.Pod { return w.pods[namespace] }

// PodsOf are the pods that a Service selects. One without selector has none.
func (w *World) PodsOf(s *corev1.Service) []*plan.Pod {
	return w.Selected(s.Namespace, s.Spec.Selector)
}

// Selected are the pods of a namespace that have all labels; no labels are had by none.
func (w *World) Selected(namespace string, labels map[string]string) []*plan.Pod {
	if len(labels) == 0 {
		return nil
	}
	var list []*plan.Pod
	for _, p := range w.fewest(namespace, labels) {
		if has(p.Labels, labels) {
			list = append(list, p)
		}
	}
	return list
}

// fewest are the pods of a namespace that have one of labels, which fewest have.
func (w *World) fewest(namespace string, labels map[string]string) []*plan.Pod {
	if len(w.pods[namespace]) < 16 {
		return w.pods[namespace]
	}
	by := w.labelled.of(namespace, func() map[[2]string][]*plan.Pod {
		by := map[[2]string][]*plan.Pod{}
		for _, p := range w.pods[namespace] {
			for k, v := range p.Labels {
				by[[2]string{k, v}] = append(by[[2]string{k, v}], p)
			}
		}
		return by
	})
	list := w.pods[namespace]
	for k, v := range labels {
		if some := by[[2]string{k, v}]; len(some) < len(list) {
			list = some
		}
	}
	return list
}

func has(labels, want map[string]string) bool {
	for k, v := range want {
		if is, ok := labels[k]; !ok || is != v {
			return false
		}
	}
	return true
}

// InMesh says whether the mesh carries a pod: as its node has said, or, of what nobody has seen, as its labels and those of its namespace have it.
func (w *World) InMesh(p *plan.Pod) bool {
	if p.Annotations[plan.AnnotationRedirection] == "enabled" {
		return true
	}
	if !w.Paper {
		return false
	}
	asked, _ := w.askedIn(p)
	return asked && !p.Spec.HostNetwork && p.Annotations[annotationSidecar] == ""
}

// WaypointOf is the waypoint that a Service is labelled to lead to, itself or by its namespace. by is the object that has the label.
func (w *World) WaypointOf(s *corev1.Service) (waypoint types.NamespacedName, by Object, ok bool) {
	for _, o := range []struct {
		by     Object
		labels map[string]string
	}{{ServiceObject(s), s.Labels}, {Object{"", "Namespace", types.NamespacedName{Name: s.Namespace}}, w.namespaceLabels(s.Namespace)}} {
		name := o.labels[plan.LabelUseWaypoint]
		switch name {
		case "":
			continue
		case "none":
			return types.NamespacedName{}, o.by, false
		}
		ns := cmp.Or(o.labels[plan.LabelUseWaypointNamespace], s.Namespace)
		return types.NamespacedName{Namespace: ns, Name: name}, o.by, true
	}
	return types.NamespacedName{}, Object{}, false
}

func (w *World) namespaceLabels(name string) map[string]string {
	if ns := w.namespaces[name]; ns != nil {
		return ns.Labels
	}
	return nil
}

// IsWaypoint says whether a Gateway is a waypoint.
func (w *World) IsWaypoint(g *gatewayv1.Gateway) bool {
	c := w.classes[string(g.Spec.GatewayClassName)]
	return c == nil && g.Spec.GatewayClassName == plan.WaypointClass || c != nil && string(c.Spec.ControllerName) == plan.WaypointController
}

// ServiceObject names a Service.
func ServiceObject(s *corev1.Service) Object {
	return Object{"", "Service", types.NamespacedName{Namespace: s.Namespace, Name: s.Name}}
}

// sortedKeys of a map, for findings that come in the same order each time.
func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
