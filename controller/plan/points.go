package plan

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// labelTunnel on a pod says that it takes HBONE itself, and so enforces what its ztunnel would.
const labelTunnel = "networking.istio.io/tunnel"

// policies finds the AuthorizationPolicies that an enforcement point may have, among those of a whole cluster.
type policies struct {
	// atPods are those of a namespace without targetRefs, by one label that they select, as in "app=orders"; "" is those for all pods.
	atPods map[string]map[string][]*securityv1.AuthorizationPolicy
	// targeting is those with targetRefs, by what these name, as in "Service shop/orders".
	targeting map[string][]*securityv1.AuthorizationPolicy
	selected  map[string]map[string]bool // labels that policies select, by namespace
	byRef     map[policy.Ref]*securityv1.AuthorizationPolicy
}

func newPolicies(list []*securityv1.AuthorizationPolicy, skip func(*securityv1.AuthorizationPolicy) bool) *policies {
	ix := &policies{
		atPods: map[string]map[string][]*securityv1.AuthorizationPolicy{}, targeting: map[string][]*securityv1.AuthorizationPolicy{},
		selected: map[string]map[string]bool{}, byRef: map[policy.Ref]*securityv1.AuthorizationPolicy{},
	}
	for _, p := range list {
		if skip(p) {
			continue // it is to deny who does not come by the waypoint, and behind it nobody
		}
		ix.byRef[policy.Ref{Kind: "AuthorizationPolicy", Namespace: p.Namespace, Name: p.Name}] = p
		if hasTargets(p) {
			for _, ref := range append(slices.Clip(p.Spec.GetTargetRefs()), p.Spec.GetTargetRef()) {
				if ref != nil {
					key := object(ref.GetKind(), types.NamespacedName{Namespace: p.Namespace, Name: ref.GetName()})
					ix.targeting[key] = append(ix.targeting[key], p)
				}
			}
			continue
		}
		labels, one := p.Spec.GetSelector().GetMatchLabels(), ""
		for _, k := range slices.Sorted(maps.Keys(labels)) {
			one = cmp.Or(one, k+"="+labels[k])
			selects(ix.selected, p.Namespace, k)
		}
		if ix.atPods[p.Namespace] == nil {
			ix.atPods[p.Namespace] = map[string][]*securityv1.AuthorizationPolicy{}
		}
		ix.atPods[p.Namespace][one] = append(ix.atPods[p.Namespace][one], p)
	}
	return ix
}

func selects(all map[string]map[string]bool, namespace, label string) {
	if all[namespace] == nil {
		all[namespace] = map[string]bool{}
	}
	all[namespace][label] = true
}

// index is made once, and only where it is asked for.
func (m *maker) index() *policies {
	if m.policies != nil {
		return m.policies
	}
	// Nothing stands for a lock, and nothing is on its way back: so it is the same for all such edges.
	if m.ix != nil && !m.Edge.Locks() && m.Edge.DeletionTimestamp == nil {
		m.ix.shared.Do(func() { m.ix.policies = m.indexOf(m.Policies) })
		m.policies = m.ix.policies
		return m.policies
	}
	m.policies = m.indexOf(m.Policies)
	return m.policies
}

// indexOf is the index of policies, as if there were no others. Locks are not among them, and to undo neither are pairings, which go.
func (m *maker) indexOf(list []*securityv1.AuthorizationPolicy) *policies {
	ix := newPolicies(list, func(p *securityv1.AuthorizationPolicy) bool {
		return isLock(p) || m.isClosing(p) || m.standsForLock(p) || m.Edge.DeletionTimestamp != nil && m.pairs(p)
	})
	for _, p := range m.Strictness {
		for k := range p.Spec.GetSelector().GetMatchLabels() {
			selects(ix.selected, p.Namespace, k)
		}
	}
	return ix
}

// ztunnel is the enforcement in front of pods of a namespace with labels.
func (m *maker) ztunnel(namespace string, labels map[string]string) *policy.Point {
	ix := m.index()
	var list []*securityv1.AuthorizationPolicy
	for _, ns := range slices.Compact([]string{namespace, m.Root()}) {
		list = append(list, ix.atPods[ns][""]...)
		for k, v := range labels {
			list = append(list, ix.atPods[ns][k+"="+v]...)
		}
	}
	sortPolicies(list)
	return m.set(list, namespace).Ztunnel(policy.Workload{Namespace: namespace, Labels: labels})
}

// atWaypoint is the enforcement at a waypoint, for a Service.
func (m *maker) atWaypoint(waypoint, service types.NamespacedName) *policy.Point {
	ix := m.index()
	list := slices.Concat(
		ix.targeting[object(policy.KindService, service)], ix.targeting[object(policy.KindGateway, waypoint)],
		ix.targeting[object("GatewayClass", types.NamespacedName{Namespace: m.Root(), Name: WaypointClass})],
	)
	sortPolicies(list)
	return m.set(list, waypoint.Namespace, service.Namespace).Waypoint(
		policy.Target{Kind: policy.KindGateway, Namespace: waypoint.Namespace, Name: waypoint.Name},
		policy.Target{Kind: policy.KindService, Namespace: service.Namespace, Name: service.Name},
	)
}

// sortPolicies leaves one of each. Maps have them in any order.
func sortPolicies(list []*securityv1.AuthorizationPolicy) {
	slices.SortFunc(list, func(a, b *securityv1.AuthorizationPolicy) int { return compareKeys(keyOf(a), keyOf(b)) })
}

// set is of some AuthorizationPolicies, and of what else is in some namespaces and the root.
func (m *maker) set(list []*securityv1.AuthorizationPolicy, namespaces ...string) *policy.Set {
	namespaces = append(namespaces, m.Root())
	return policy.New(policy.Mesh{
		AuthorizationPolicies: slices.Compact(list), RequestAuthentications: m.tokensIn(namespaces...), PeerAuthentications: m.strictIn(namespaces...),
		RootNamespace: m.Root(), TrustDomain: m.trustDomain(), TrustDomainAliases: m.TrustDomainAliases,
	})
}

// pods are the enforcement in front of the pods of a backend that have any: of each set of labels that a policy may tell from others, one. A Service
// without pods has those of its selector, where its namespace is in the mesh.
func (m *maker) pods(b *backend) (list []*policy.Point) {
	for _, labels := range m.podKinds(b) {
		list = append(list, m.ztunnel(b.key.Namespace, labels))
	}
	return list
}

// podKinds are the labels of the pods that pods looks at.
func (m *maker) podKinds(b *backend) (list []map[string]string) {
	seen := map[string]bool{}
	add := func(labels map[string]string) {
		var key strings.Builder
		for _, ns := range slices.Compact([]string{b.key.Namespace, m.Root()}) {
			for _, k := range slices.Sorted(maps.Keys(m.index().selected[ns])) {
				if v, ok := labels[k]; ok {
					key.WriteString(k + "=" + v + ",")
				}
			}
		}
		if !seen[key.String()] {
			seen[key.String()] = true
			list = append(list, labels)
		}
	}
	pods := m.podsWith(b.key.Namespace, b.service.Spec.Selector)
	for _, p := range pods {
		if m.guarded(p) {
			add(p.Labels)
		}
	}
	if len(pods) == 0 && len(b.service.Spec.Selector) > 0 && m.namespaceLabels(b.key.Namespace)[LabelDataplaneMode] == modeAmbient {
		add(b.service.Spec.Selector)
	}
	return list
}

// enforces says whether anybody enforces policies in front of a pod.
func enforces(p *Pod) bool { return captured(p) || p.Labels[labelTunnel] == "http" }

// port is a port of a Service: as it is addressed, and at its pods. Zero: it is not known.
type port struct{ service, pod uint16 }

func ports(s *corev1.Service) []port {
	var list []port
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		at := port{service: uint16(p.Port), pod: uint16(p.Port)}
		switch {
		case p.TargetPort.StrVal != "": // a name, which pods give to any of theirs
			at.pod = 0
		case p.TargetPort.IntVal != 0:
			at.pod = uint16(p.TargetPort.IntVal)
		}
		list = append(list, at)
	}
	if len(list) == 0 {
		list = append(list, port{})
	}
	return list
}

// request is the class of all requests of a caller to a port.
func (p port) request(source policy.Values[spiffeid.ID]) *policy.Request {
	r := &policy.Request{Source: source}
	if p.service != 0 {
		r.ServicePort = policy.Of(p.service)
	}
	if p.pod != 0 {
		r.WorkloadPort = policy.Of(p.pod)
	}
	return r
}

// waypointIDs are who a waypoint is: its pods tell, and before there are any, its name.
func (m *maker) waypointIDs(key types.NamespacedName) []spiffeid.ID {
	ids := parseIDs(WaypointIdentities(m.Snapshot, key))
	if len(ids) == 0 {
		ids = m.ids(key.Namespace, key.Name)
	}
	return ids
}

// ids is a service account as an identity of the mesh; none where its names cannot be one.
func (m *maker) ids(namespace, account string) []spiffeid.ID {
	return parseIDs([]string{"spiffe://" + m.trustDomain() + "/ns/" + namespace + "/sa/" + account})
}

func parseIDs(texts []string) []spiffeid.ID {
	var ids []spiffeid.ID
	for _, text := range texts {
		if id, err := spiffeid.FromString(text); err == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// short is an identity as policies write it.
func short(id spiffeid.ID) string { return id.TrustDomain().Name() + id.Path() }
