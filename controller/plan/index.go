package plan

import (
	"slices"
	"sync"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
)

// index finds the objects of a large snapshot, which must not change as long as it is used. Plans of all its edges share it, also such as are made at the same time.
type index struct {
	namespaces  map[string]*corev1.Namespace
	services    map[types.NamespacedName]*corev1.Service
	gateways    map[types.NamespacedName]*gatewayv1.Gateway
	deployments map[types.NamespacedName]*appsv1.Deployment
	pods        map[string][]*Pod // by namespace, without those that have ended

	servicesIn   grouped[*corev1.Service]
	grantsIn     grouped[*gatewayv1beta1.ReferenceGrant]
	policiesIn   grouped[*securityv1.AuthorizationPolicy]
	tokensIn     grouped[*securityv1.RequestAuthentication]
	strictIn     grouped[*securityv1.PeerAuthentication]
	extensionsIn grouped[*unstructured.Unstructured]

	workloads []*workload // by namespace and name
	routes    func() *routeIndex
	shared    sync.Once // makes policies
	policies  *policies // of edges that lock nothing

	mu      sync.Mutex // guards fitting; not held while one is looked for
	fitting map[string][]*workload
}

// indexed is the snapshot with an index.
func (s *Snapshot) indexed() *Snapshot {
	ix := &index{
		namespaces: make(map[string]*corev1.Namespace, len(s.Namespaces)), services: make(map[types.NamespacedName]*corev1.Service, len(s.Services)),
		gateways:    make(map[types.NamespacedName]*gatewayv1.Gateway, len(s.Gateways)),
		deployments: make(map[types.NamespacedName]*appsv1.Deployment, len(s.Deployments)),
		pods:        map[string][]*Pod{}, workloads: s.readWorkloads(), fitting: map[string][]*workload{},
		servicesIn: group(pointers(s.Services)), grantsIn: group(pointers(s.ReferenceGrants)), policiesIn: group(s.Policies),
		tokensIn: group(s.RequestAuthentications),
		strictIn: group(s.Strictness), extensionsIn: group(s.Extensions),
	}
	for i := range s.Namespaces {
		ix.namespaces[s.Namespaces[i].Name] = &s.Namespaces[i]
	}
	for i := range s.Services {
		ix.services[keyOf(&s.Services[i])] = &s.Services[i]
	}
	for i := range s.Gateways {
		ix.gateways[keyOf(&s.Gateways[i])] = &s.Gateways[i]
	}
	for i := range s.Deployments {
		ix.deployments[keyOf(&s.Deployments[i])] = &s.Deployments[i]
	}
	for i := range s.Pods {
		if p := &s.Pods[i]; alive(p) {
			ix.pods[p.Namespace] = append(ix.pods[p.Namespace], p)
		}
	}
	ix.routes = sync.OnceValue(func() *routeIndex { return newRouteIndex(s.readRoutes()) })
	look := *s
	look.ix = ix
	return &look
}

// grouped is a list of objects, and where those of a namespace are in it.
type grouped[T metav1.Object] struct {
	list []T
	at   map[string][]int
}

func group[T metav1.Object](list []T) grouped[T] {
	g := grouped[T]{list, map[string][]int{}}
	for i, o := range list {
		g.at[o.GetNamespace()] = append(g.at[o.GetNamespace()], i)
	}
	return g
}

// in are those of some namespaces, in the order of the list.
func (g *grouped[T]) in(namespaces ...string) []T {
	return pick(g.list, g.at, namespaces...)
}

// pick is what is at some keys of a list, each once and in its order.
func pick[K comparable, T any](list []T, at map[K][]int, keys ...K) []T {
	var places []int
	for _, k := range keys {
		places = append(places, at[k]...)
	}
	if len(keys) > 1 {
		slices.Sort(places)
	}
	places = slices.Compact(places)
	found := make([]T, len(places))
	for i, j := range places {
		found[i] = list[j]
	}
	return found
}

// among are the objects of a list in some namespaces, for a snapshot without an index.
func among[T metav1.Object](list []T, namespaces ...string) []T {
	var found []T
	for _, o := range list {
		if slices.Contains(namespaces, o.GetNamespace()) {
			found = append(found, o)
		}
	}
	return found
}

func pointers[T any](list []T) []*T {
	all := make([]*T, len(list))
	for i := range list {
		all[i] = &list[i]
	}
	return all
}

func (s *Snapshot) servicesIn(namespace string) []*corev1.Service {
	if s.ix != nil {
		return s.ix.servicesIn.in(namespace)
	}
	return among(pointers(s.Services), namespace)
}

func (s *Snapshot) grantsIn(namespace string) []*gatewayv1beta1.ReferenceGrant {
	if s.ix != nil {
		return s.ix.grantsIn.in(namespace)
	}
	return among(pointers(s.ReferenceGrants), namespace)
}

func (s *Snapshot) policiesIn(namespaces ...string) []*securityv1.AuthorizationPolicy {
	if s.ix != nil {
		return s.ix.policiesIn.in(namespaces...)
	}
	return among(s.Policies, namespaces...)
}

func (s *Snapshot) tokensIn(namespaces ...string) []*securityv1.RequestAuthentication {
	if s.ix != nil {
		return s.ix.tokensIn.in(namespaces...)
	}
	return among(s.RequestAuthentications, namespaces...)
}

func (s *Snapshot) strictIn(namespaces ...string) []*securityv1.PeerAuthentication {
	if s.ix != nil {
		return s.ix.strictIn.in(namespaces...)
	}
	return among(s.Strictness, namespaces...)
}

func (s *Snapshot) extensionsIn(namespaces ...string) []*unstructured.Unstructured {
	if s.ix != nil {
		return s.ix.extensionsIn.in(namespaces...)
	}
	return among(s.Extensions, namespaces...)
}
