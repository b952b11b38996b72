package check

import (
	"cmp"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	typev1beta1 "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// guards are the enforcement points of a world, and the policies of each, found without going through all of a cluster's. It is made when it is first
// asked for.
type guards struct {
	atPods    map[string][]*securityv1.AuthorizationPolicy        // those without targetRefs, by namespace
	targeting map[policy.Target][]*securityv1.AuthorizationPolicy // those with, by what they name
	tokens    map[policy.Target][]*securityv1.RequestAuthentication
	peers     map[string][]*securityv1.PeerAuthentication // by namespace
	byRef     map[policy.Ref]*securityv1.AuthorizationPolicy
	selected  map[string]map[string]bool // labels that policies select, as app=orders, by namespace

	carried   map[string][]*plan.Pod        // pods before which ztunnel stands, by namespace
	users     map[types.NamespacedName]bool // service accounts of pods
	labelled  map[string][]*plan.Pod        // the same by a label that is selected: namespace/key=value
	led       map[types.NamespacedName][]*corev1.Service
	waypoints memo[types.NamespacedName, []spiffeid.ID]
	selecting map[string][]*securityv1.AuthorizationPolicy // of atPods, by one label that they select: namespace/key=value, or namespace/ for all pods
	serving   map[string][]*corev1.Service                 // by one label of their selector: namespace/key=value
	before    memo[string, *policy.Point]
	behind    memo[[2]types.NamespacedName, *policy.Point]
	open      lazy[*policy.Point] // of a waypoint that enforces nothing
	routes    map[types.NamespacedName]*gatewayv1.HTTPRoute
	gateways  lazy[map[string][]string] // principals of gateways, by namespace
	crossed   lazy[[]crossing]          // what gateways send
}

func (w *World) guard() *guards { return w.guards.of(w.newGuards) }

func (w *World) newGuards() *guards {
	g := &guards{
		atPods:    map[string][]*securityv1.AuthorizationPolicy{},
		targeting: map[policy.Target][]*securityv1.AuthorizationPolicy{},
		tokens:    map[policy.Target][]*securityv1.RequestAuthentication{},
		peers:     map[string][]*securityv1.PeerAuthentication{},
		byRef:     map[policy.Ref]*securityv1.AuthorizationPolicy{},
		selected:  map[string]map[string]bool{},
		selecting: map[string][]*securityv1.AuthorizationPolicy{},
		serving:   map[string][]*corev1.Service{},
		carried:   map[string][]*plan.Pod{},
		users:     map[types.NamespacedName]bool{},
		labelled:  map[string][]*plan.Pod{},
		led:       map[types.NamespacedName][]*corev1.Service{},
		routes:    make(map[types.NamespacedName]*gatewayv1.HTTPRoute, len(w.HTTPRoutes)),
	}
	for _, p := range w.Policies {
		g.byRef[policy.Ref{Kind: kindAuthorizationPolicy, Namespace: p.Namespace, Name: p.Name}] = p
		refs := targetRefsOf(&p.Spec)
		for _, r := range refs {
			t := policy.Target{Kind: r.GetKind(), Namespace: p.Namespace, Name: r.GetName()}
			g.targeting[t] = append(g.targeting[t], p)
		}
		if len(refs) == 0 {
			g.atPods[p.Namespace] = append(g.atPods[p.Namespace], p)
			at := p.Namespace + "/" + oneLabel(p.Spec.Selector.GetMatchLabels())
			g.selecting[at] = append(g.selecting[at], p)
			g.selects(p.Namespace, p.Spec.Selector)
		}
	}
	for _, p := range w.RequestAuthentications {
		g.selects(p.Namespace, p.Spec.Selector)
		for _, r := range targetRefsOf(&p.Spec) {
			t := policy.Target{Kind: r.GetKind(), Namespace: p.Namespace, Name: r.GetName()}
			g.tokens[t] = append(g.tokens[t], p)
		}
	}
	for _, p := range w.Strictness {
		g.peers[p.Namespace] = append(g.peers[p.Namespace], p)
		g.selects(p.Namespace, p.Spec.Selector)
	}
	for i := range w.Services {
		s := &w.Services[i]
		if waypoint, ok := w.leadsTo(s); ok {
			g.led[waypoint] = append(g.led[waypoint], s)
		}
		if len(s.Spec.Selector) > 0 {
			at := s.Namespace + "/" + oneLabel(s.Spec.Selector)
			g.serving[at] = append(g.serving[at], s)
		}
	}
	for i := range w.HTTPRoutes {
		r := &w.HTTPRoutes[i]
		g.routes[types.NamespacedName{Namespace: r.Namespace, Name: r.Name}] = r
	}
	for namespace := range w.namespaces {
		g.carry(w, namespace)
	}
	for namespace := range w.pods {
		if w.namespaces[namespace] == nil {
			g.carry(w, namespace)
		}
	}
	return g
}

// oneLabel is one of some labels, as in "app=orders", always the same; "" of none.
func oneLabel(labels map[string]string) string {
	if len(labels) == 0 {
		return ""
	}
	k := sortedKeys(labels)[0]
	return k + "=" + labels[k]
}

// servicesFor are the Services that select a pod.
func (w *World) servicesFor(p *plan.Pod) (list []*corev1.Service) {
	for _, k := range sortedKeys(p.Labels) {
		for _, s := range w.guard().serving[p.Namespace+"/"+k+"="+p.Labels[k]] {
			if has(p.Labels, s.Spec.Selector) {
				list = append(list, s)
			}
		}
	}
	return list
}

// selects notes the labels that a policy selects by.
func (g *guards) selects(namespace string, selector *typev1beta1.WorkloadSelector) {
	for k, v := range selector.GetMatchLabels() {
		if g.selected[namespace] == nil {
			g.selected[namespace] = map[string]bool{}
		}
		g.selected[namespace][k+"="+v] = true
	}
}

// leadsTo is the waypoint by which a Service is reached, as far as labels and istiod say.
func (w *World) leadsTo(s *corev1.Service) (types.NamespacedName, bool) {
	if s.Labels["gateway.istio.io/managed"] != "" || s.Spec.ClusterIP == corev1.ClusterIPNone || s.Spec.Type == corev1.ServiceTypeExternalName {
		return types.NamespacedName{}, false
	}
	waypoint, _, ok := w.WaypointOf(s)
	if ok && !w.Paper {
		i := slices.IndexFunc(s.Status.Conditions, func(c metav1.Condition) bool { return c.Type == plan.ConditionWaypointBound })
		ok = w.gateways[waypoint] != nil && (i < 0 || s.Status.Conditions[i].Status == metav1.ConditionTrue)
	}
	return waypoint, ok
}

// before is what ztunnel enforces before pods of a namespace with labels.
func (w *World) before(namespace string, labels map[string]string) *policy.Point {
	g := w.guard()
	var key strings.Builder
	key.WriteString(namespace)
	sorted := sortedKeys(labels)
	for _, ns := range slices.Compact([]string{namespace, w.Root()}) {
		for _, k := range sorted {
			if at := k + "=" + labels[k]; g.selected[ns][at] {
				key.WriteString("/" + at)
			}
		}
	}
	return g.before.of(key.String(), func() *policy.Point { return w.newBefore(g, namespace, labels) })
}

func (w *World) newBefore(g *guards, namespace string, labels map[string]string) *policy.Point {
	m := w.meshOf()
	for _, ns := range slices.Compact([]string{namespace, w.Root()}) {
		m.AuthorizationPolicies = append(m.AuthorizationPolicies, g.selecting[ns+"/"]...)
		for k, v := range labels {
			m.AuthorizationPolicies = append(m.AuthorizationPolicies, g.selecting[ns+"/"+k+"="+v]...)
		}
		m.PeerAuthentications = append(m.PeerAuthentications, g.peers[ns]...)
	}
	m.AuthorizationPolicies = once(m.AuthorizationPolicies)
	return policy.New(m).Ztunnel(policy.Workload{Namespace: namespace, Labels: labels})
}

// behind is what a waypoint enforces for a Service.
func (w *World) behind(waypoint, service types.NamespacedName) *policy.Point {
	g := w.guard()
	return g.behind.of([2]types.NamespacedName{waypoint, service}, func() *policy.Point { return w.newBehind(g, waypoint, service) })
}

func (w *World) newBehind(g *guards, waypoint, service types.NamespacedName) *policy.Point {
	at := []policy.Target{
		{Kind: policy.KindGateway, Namespace: waypoint.Namespace, Name: waypoint.Name}, {Kind: policy.KindService, Namespace: service.Namespace, Name: service.Name},
		{Kind: "GatewayClass", Namespace: w.Root(), Name: policy.WaypointClass},
	}
	m := w.meshOf()
	for _, t := range at {
		m.AuthorizationPolicies = append(m.AuthorizationPolicies, g.targeting[t]...)
		m.RequestAuthentications = append(m.RequestAuthentications, g.tokens[t]...)
	}
	m.AuthorizationPolicies, m.RequestAuthentications = once(m.AuthorizationPolicies), once(m.RequestAuthentications)
	if len(m.AuthorizationPolicies) == 0 && len(m.RequestAuthentications) == 0 {
		return g.open.of(func() *policy.Point { return policy.New(m).Waypoint(at[0], at[1]) })
	}
	return policy.New(m).Waypoint(at[0], at[1])
}

// once is a list with each of its objects one time, by name.
func once[T metav1.Object](list []T) []T {
	slices.SortFunc(list, func(a, b T) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
	return slices.CompactFunc(list, func(a, b T) bool { return a.GetNamespace() == b.GetNamespace() && a.GetName() == b.GetName() })
}

func (w *World) meshOf() policy.Mesh {
	return policy.Mesh{
		RootNamespace: w.Root(), TrustDomain: w.Mesh.TrustDomain, TrustDomainAliases: w.Mesh.TrustDomainAliases,
		PathNormalization: w.Mesh.PathNormalization, Providers: w.Mesh.Providers,
	}
}

// waypointIDs are who a waypoint is: its pods tell, and before there are any, its name.
func (w *World) waypointIDs(key types.NamespacedName) []spiffeid.ID {
	return w.guard().waypoints.of(key, func() []spiffeid.ID {
		texts := plan.Identities(w.Snapshot, w.Selected(key.Namespace, map[string]string{"gateway.networking.k8s.io/gateway-name": key.Name}))
		if len(texts) == 0 {
			texts = []string{"spiffe://" + w.trustDomain() + "/ns/" + key.Namespace + "/sa/" + key.Name}
		}
		return idsOf(texts)
	})
}

func (w *World) trustDomain() string { return cmp.Or(w.Mesh.TrustDomain, "cluster.local") }

func idsOf(texts []string) []spiffeid.ID {
	var ids []spiffeid.ID
	for _, text := range texts {
		if id, err := spiffeid.FromString(text); err == nil {
			ids = append(ids, id)
		}
	}
	return ids
}
