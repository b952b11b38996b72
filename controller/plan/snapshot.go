package plan

import (
	"cmp"
	"slices"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
)

// Snapshot is all that a plan depends on. Lists may hold more than the edge needs.
type Snapshot struct {
	Edge *v1alpha1.AmbientEdge
	// Edges are all AmbientEdges, this one too.
	Edges []v1alpha1.AmbientEdge
	// TrustDomain is the mesh's. Empty means cluster.local.
	TrustDomain string
	// TrustDomainAliases are the mesh's: waypoints take a principal of one domain for one of each, ztunnel does not.
	TrustDomainAliases []string

	Namespaces  []corev1.Namespace
	Pods        []Pod
	Services    []corev1.Service
	Deployments []appsv1.Deployment
	DaemonSets  []appsv1.DaemonSet
	Gateways    []gatewayv1.Gateway
	Classes     []gatewayv1.GatewayClass
	HTTPRoutes  []gatewayv1.HTTPRoute
	// OtherRoutes of the Gateway API: GRPCRoutes, TLSRoutes, TCPRoutes and UDPRoutes, of any version.
	OtherRoutes []*unstructured.Unstructured
	// ListenerSets and XListenerSets.
	ListenerSets    []*unstructured.Unstructured
	ReferenceGrants []gatewayv1beta1.ReferenceGrant
	Policies        []*securityv1.AuthorizationPolicy
	// RequestAuthentications that waypoints enforce.
	RequestAuthentications []*securityv1.RequestAuthentication
	// Extensions are WasmPlugins, TrafficExtensions and EnvoyFilters, which waypoints obey by their targetRefs.
	Extensions []*unstructured.Unstructured
	// Strictness are PeerAuthentications, RootNamespace that of the mesh: empty means istio-system.
	Strictness    []*securityv1.PeerAuthentication
	RootNamespace string
	// Ingresses and their classes.
	Ingresses      []networkingv1.Ingress
	IngressClasses []networkingv1.IngressClass
	// Callees are Services that the API server calls, with the object that says so: of webhooks and aggregated APIs.
	Callees []Callee
	// ServiceEntries, of which labels count, and what pods they select at which ports.
	ServiceEntries []*unstructured.Unstructured
	// Objects are those of edge.Kinds, as far as their kinds are there.
	Objects []*unstructured.Unstructured
	// Rules are objects that say what gateways do to requests, whole: of the kinds of package rules that have no Go types here. They are there where the
	// edge depends on them, see AmbientEdge.ReadsRules; RulesHidden are those of the kinds that may not be read.
	Rules       []*unstructured.Unstructured
	RulesHidden []edge.Kind
	// Hidden are the kinds without Go types that are there, and may not be read: that none of their objects is here says nothing.
	Hidden []edge.Kind

	// Waypoints is what was found by asking those that are programmed.
	Waypoints map[types.NamespacedName]WaypointFact
	// Served is what was found by asking the waypoints of wired Services for those Services, by the Service.
	Served map[types.NamespacedName]WaypointFact
	// Shown is what was found by asking the pods of waypoints for witnesses, by the waypoint.
	Shown map[types.NamespacedName]WitnessFact
	// Hearsay: who makes the plan cannot ask, and Waypoints and Served are empty. What the edge's status tells about its present
	// generation is taken instead; what it does not tell is StepUnknown.
	Hearsay bool
	// Paper: the snapshot is of files alone, which have no pods that run, and as a rule no statuses. What they do not tell is StepUnknown. Needs Hearsay.
	Paper bool
	// Unable says why who makes the plan cannot ask waypoints now, though it is to carry the plan out. Empty: it can, or Hearsay.
	Unable string
	// ObserveOnly: who makes the plan may write nothing, whatever the edge's mode.
	ObserveOnly bool

	ix *index // nil: lists are gone through
}

// Callee is a Service that the API server calls.
type Callee struct {
	Service types.NamespacedName
	// By is the object that has it so: Kind name.
	By string
}

// WaypointFact says whether a waypoint answered, or serves a Service.
type WaypointFact struct {
	Answers bool
	// Why it did not, when it did not.
	Why string
}

func (s *Snapshot) trustDomain() string { return cmp.Or(s.TrustDomain, "cluster.local") }

// Root is the root namespace of the mesh.
func (s *Snapshot) Root() string { return cmp.Or(s.RootNamespace, "istio-system") }

func (s *Snapshot) namespace(name string) *corev1.Namespace {
	if s.ix != nil {
		return s.ix.namespaces[name]
	}
	return find(s.Namespaces, func(o *corev1.Namespace) bool { return o.Name == name })
}

func (s *Snapshot) service(key types.NamespacedName) *corev1.Service {
	if s.ix != nil {
		return s.ix.services[key]
	}
	return find(s.Services, func(o *corev1.Service) bool { return keyOf(o) == key })
}

func (s *Snapshot) gateway(key types.NamespacedName) *gatewayv1.Gateway {
	if s.ix != nil {
		return s.ix.gateways[key]
	}
	return find(s.Gateways, func(o *gatewayv1.Gateway) bool { return keyOf(o) == key })
}

func (s *Snapshot) deployment(key types.NamespacedName) *appsv1.Deployment {
	if s.ix != nil {
		return s.ix.deployments[key]
	}
	return find(s.Deployments, func(o *appsv1.Deployment) bool { return keyOf(o) == key })
}

func (s *Snapshot) daemonSet(key types.NamespacedName) *appsv1.DaemonSet {
	return find(s.DaemonSets, func(o *appsv1.DaemonSet) bool { return keyOf(o) == key })
}

// controllerOf is the controllerName of a GatewayClass, or "".
func (s *Snapshot) controllerOf(class gatewayv1.ObjectName) string {
	c := find(s.Classes, func(o *gatewayv1.GatewayClass) bool { return o.Name == string(class) })
	if c == nil {
		return ""
	}
	return string(c.Spec.ControllerName)
}

// podsWith are the pods of a namespace that have all labels, without those that have ended. An empty namespace is all.
func (s *Snapshot) podsWith(namespace string, labels map[string]string) []*Pod {
	var list []*Pod
	if s.ix != nil && namespace != "" {
		for _, p := range s.ix.pods[namespace] {
			if hasLabels(p.Labels, labels) {
				list = append(list, p)
			}
		}
	} else {
		for i := range s.Pods {
			p := &s.Pods[i]
			if (p.Namespace == namespace || namespace == "") && hasLabels(p.Labels, labels) && alive(p) {
				list = append(list, p)
			}
		}
	}
	slices.SortFunc(list, func(a, b *Pod) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return list
}

func alive(p *Pod) bool {
	return p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed
}

// hasLabels: no labels are had by nobody, as a Service without selector has no pods.
func hasLabels(have, want map[string]string) bool {
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return len(want) > 0
}

func find[T any](list []T, ok func(*T) bool) *T {
	for i := range list {
		if ok(&list[i]) {
			return &list[i]
		}
	}
	return nil
}

func keyOf(o metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}
