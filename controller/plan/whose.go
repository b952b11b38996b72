package plan

import (
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/edge"
)

// runsWaypoint are the Deployments that were made for a waypoint: its Gateway owns them. The label that says so too may be had by anything.
func (s *Snapshot) runsWaypoint(key types.NamespacedName) (list []*appsv1.Deployment) {
	g := s.gateway(key)
	if g == nil {
		return nil
	}
	for i := range s.Deployments {
		d := &s.Deployments[i]
		if d.Namespace != key.Namespace || d.Labels[edge.LabelGatewayName] != key.Name {
			continue
		}
		for _, r := range d.OwnerReferences {
			if r.Kind == "Gateway" && r.Name == g.Name && r.UID == g.UID {
				list = append(list, d)
				break
			}
		}
	}
	return list
}

// WaypointIDs are who a waypoint is by more than the label of pods: the service account of the Deployments that its Gateway owns; where there are none, that
// of its name, under which istiod makes it.
func WaypointIDs(s *Snapshot, key types.NamespacedName) []spiffeid.ID {
	m := &maker{Snapshot: s}
	var ids []spiffeid.ID
	for _, d := range s.runsWaypoint(key) {
		ids = append(ids, parseIDs([]string{identity(s.trustDomain(), &Pod{ObjectMeta: d.ObjectMeta, Spec: SpecOf(&d.Spec.Template.Spec)})})...)
	}
	if len(ids) == 0 {
		ids = m.ids(key.Namespace, key.Name)
	}
	slices.SortFunc(ids, func(a, b spiffeid.ID) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(ids)
}

// OwnWaypointPods are the pods that go by a waypoint's name, have its identity, and are of ReplicaSets of its Deployments.
func OwnWaypointPods(s *Snapshot, key types.NamespacedName) (list []*Pod) {
	runs, ids := s.runsWaypoint(key), WaypointIDs(s, key)
	for _, p := range WaypointPods(s, key) {
		by := len(runs) == 0 || slices.ContainsFunc(runs, func(d *appsv1.Deployment) bool { return ranBy(p, d) })
		if id, err := spiffeid.FromString(identity(s.trustDomain(), p)); by && err == nil && slices.Contains(ids, id) {
			list = append(list, p)
		}
	}
	return list
}

// ranBy says whether a pod is of a ReplicaSet of a Deployment.
func ranBy(p *Pod, d *appsv1.Deployment) bool {
	for _, r := range p.OwnerReferences {
		if hash, is := strings.CutPrefix(r.Name, d.Name+"-"); r.Kind == "ReplicaSet" && is && !strings.Contains(hash, "-") {
			return true
		}
	}
	return false
}

// ownIDs is WaypointIDs, found once.
func (m *maker) ownIDs(key types.NamespacedName) []spiffeid.ID {
	ids, known := m.known.ids[key]
	if !known {
		ids = WaypointIDs(m.Snapshot, key)
		if m.known.ids == nil {
			m.known.ids = map[types.NamespacedName][]spiffeid.ID{}
		}
		m.known.ids[key] = ids
	}
	return ids
}

// poser is a pod that goes by the name of a waypoint, and gets what is sent to it, with another identity than the waypoint's; or nil.
func (m *maker) poser(key types.NamespacedName) *Pod {
	ids := m.ownIDs(key)
	for _, p := range WaypointPods(m.Snapshot, key) {
		if id, err := spiffeid.FromString(identity(m.trustDomain(), p)); err != nil || !slices.Contains(ids, id) {
			return p
		}
	}
	return nil
}

// sameAccount is a pod with the identity of a waypoint that is none of its pods, or nil.
func (m *maker) sameAccount(key types.NamespacedName) *Pod {
	if p, known := m.known.same[key]; known {
		return p
	}
	own := map[types.NamespacedName]bool{}
	for _, p := range OwnWaypointPods(m.Snapshot, key) {
		own[keyOf(p)] = true
	}
	ids := m.ownIDs(key)
	var found *Pod
	for i := range m.Pods {
		p := &m.Pods[i]
		if !alive(p) || own[keyOf(p)] {
			continue
		}
		if is := identity(m.trustDomain(), p); slices.ContainsFunc(ids, func(id spiffeid.ID) bool { return id.String() == is }) {
			found = p
			break
		}
	}
	if m.known.same == nil {
		m.known.same = map[types.NamespacedName]*Pod{}
	}
	m.known.same[key] = found
	return found
}

// known is what is found once for many backends.
type known struct {
	ids    map[types.NamespacedName][]spiffeid.ID
	same   map[types.NamespacedName]*Pod
	paired map[types.NamespacedName]bool // Services for which something of a pairing stands
	routes []sideRoute                   // see sideRoutes
	byHand []*corev1.Service             // see byHand
	ways   []*way                        // see ways
}
