package plan

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
)

// Istio's labels, classes and conditions of waypoints.
const (
	LabelUseWaypoint          = "istio.io/use-waypoint"
	LabelUseWaypointNamespace = "istio.io/use-waypoint-namespace"
	LabelWaypointFor          = "istio.io/waypoint-for"
	WaypointClass             = "istio-waypoint"
	WaypointController        = "istio.io/mesh-controller"
	ConditionWaypointBound    = "istio.io/WaypointBound"
)

func (m *maker) waypointPolicy() (v1alpha1.WaypointPolicy, string) {
	w := m.Edge.Spec.Waypoint
	if w == nil || w.Policy == "" && w.Name == "" {
		return v1alpha1.WaypointUse, ""
	}
	if w.Policy == "" {
		return v1alpha1.WaypointUse, w.Name
	}
	return w.Policy, w.Name
}

// bound says whether a Service, or its namespace, names a waypoint, and notes it.
func (m *maker) bound(b *backend) bool {
	for _, labels := range []map[string]string{b.service.Labels, m.namespaceLabels(b.key.Namespace)} {
		name := labels[LabelUseWaypoint]
		if name == "" {
			continue
		}
		if name == modeNone {
			return false
		}
		ns := labels[LabelUseWaypointNamespace]
		if ns == "" {
			ns = b.key.Namespace
		}
		b.waypoint = types.NamespacedName{Namespace: ns, Name: name}
		return true
	}
	return false
}

func (m *maker) namespaceLabels(name string) map[string]string {
	if ns := m.namespace(name); ns != nil {
		return ns.Labels
	}
	return nil
}

// waypoints chooses the waypoint of every backend, and adds the steps that make it and see it answer.
func (m *maker) waypoints() {
	policy, name := m.waypointPolicy()
	chosen := map[types.NamespacedName]bool{}
	for _, b := range m.backends {
		switch {
		case policy == v1alpha1.WaypointNone:
			if !m.bound(b) {
				m.unenforced(b)
			}
			continue
		case name != "":
			b.waypoint = types.NamespacedName{Namespace: b.key.Namespace, Name: name}
		case !m.bound(b):
			m.about(b.itself(), func() { m.nameless(b) })
			continue
		}
		b.wanted = true
	}
	m.refuse(policy)
	m.unable()
	for _, b := range m.backends {
		if b.wanted {
			chosen[b.waypoint] = true
		}
	}
	for _, key := range slices.SortedFunc(maps.Keys(chosen), compareKeys) {
		of := m.wantedAt(object("Gateway", key))
		m.about(of, func() {
			if policy == v1alpha1.WaypointCreate {
				m.createWaypoint(key, of)
			}
			m.awaitWaypoint(key, of)
		})
	}
	m.canaries(chosen)
	m.ledAlready(chosen)
}

// nameless finds a Service that is to use a waypoint, and names none.
func (m *maker) nameless(b *backend) {
	m.found(v1alpha1.Finding{
		Code: v1alpha1.FindingNoWaypoint, Severity: v1alpha1.SeverityError, Object: b.String(), Field: "metadata.labels[" + LabelUseWaypoint + "]",
		Message: "neither this Service nor its namespace names a waypoint, and AmbientEdge " + keyOf(m.Edge).String() + " says to use what is there",
		Fix:     "set spec.waypoint to {policy: Create, name: waypoint}, or to {policy: None}",
	})
}

// unenforced finds L7 policies for a Service without a waypoint.
func (m *maker) unenforced(b *backend) {
	for _, name := range m.enforced(b.key, "Service", false) {
		m.found(v1alpha1.Finding{
			Code: v1alpha1.FindingUnenforced, Severity: v1alpha1.SeverityWarning, Object: name, Field: "spec.targetRefs",
			Message: fmt.Sprintf("%s has no waypoint, so nobody enforces this policy", b), Fix: "set spec.waypoint.policy to Create",
		})
	}
}

func (m *maker) createWaypoint(key types.NamespacedName, of []string) {
	s := Step{part: partWaypoint, of: of, Step: v1alpha1.Step{Verb: VerbCreate, Object: object("Gateway", key), State: v1alpha1.StepDone}}
	switch g := m.gateway(key); {
	case g == nil || g.DeletionTimestamp != nil:
		s.State, s.Reason = v1alpha1.StepNext, "make a waypoint of class "+WaypointClass
		if g == nil && m.ask(key.Namespace, gatewayv1.GroupName, "Gateway", "create waypoint "+key.Name) {
			s.Write = m.newWaypoint(key)
		}
		if g == nil && s.Write == nil {
			s.State, s.Reason = v1alpha1.StepBlocked, "no consent"
		}
	case m.controllerOf(g.Spec.GatewayClassName) != WaypointController && g.Spec.GatewayClassName != WaypointClass:
		s.State = v1alpha1.StepBlocked
		m.foreign(s.Object, "spec.gatewayClassName", string(g.Spec.GatewayClassName), WaypointClass, nil)
	case m.madeWaypoint(g):
		s.Reason = "made for this edge"
		s.wants = func() *Write { return m.newWaypoint(key) }
	default:
		s.Reason = "it was there"
	}
	m.add(s)
}

func (m *maker) newWaypoint(key types.NamespacedName) *Write {
	return &Write{APIVersion: gatewayAPI, Kind: "Gateway", Key: key, Fields: waypointFields(m.Edge.Owner())}
}

// waypointFields is the Gateway of a waypoint for Services.
func waypointFields(owner string) map[string]any {
	return map[string]any{
		"metadata": map[string]any{"labels": map[string]any{LabelWaypointFor: "service", v1alpha1.LabelOwner: owner}},
		"spec": map[string]any{
			"gatewayClassName": WaypointClass,
			"listeners":        []any{map[string]any{"name": "mesh", "port": int64(15008), "protocol": "HBONE"}},
		},
	}
}

func (m *maker) awaitWaypoint(key types.NamespacedName, of []string) {
	s := Step{part: partWaypoint, of: of, Step: v1alpha1.Step{Verb: VerbAwait, Object: object("Gateway", key), State: v1alpha1.StepNext}}
	g := m.gateway(key)
	fact := m.Waypoints[key]
	switch {
	case g == nil:
		s.Reason = "it is not there"
		if policy, _ := m.waypointPolicy(); policy == v1alpha1.WaypointUse {
			s.State = v1alpha1.StepBlocked
			m.found(v1alpha1.Finding{
				Code: v1alpha1.FindingNoWaypoint, Severity: v1alpha1.SeverityError, Object: s.Object,
				Message: "this waypoint does not exist: Services that name it are reached without one, and their policies are not enforced",
				Fix:     "create it, or set spec.waypoint.policy to Create",
			})
		}
	case slices.Contains([]string{"workload", "none"}, g.Labels[LabelWaypointFor]):
		s.State, s.Reason = v1alpha1.StepBlocked, "it is not for Services"
		m.found(v1alpha1.Finding{
			Code: v1alpha1.FindingNoWaypoint, Severity: v1alpha1.SeverityError, Object: s.Object, Field: "metadata.labels[" + LabelWaypointFor + "]",
			Message: fmt.Sprintf("this waypoint is for %q: it does not take what is sent to Services", g.Labels[LabelWaypointFor]),
			Fix:     "set the label to service or all, or name another waypoint in spec.waypoint.name",
		})
	case m.untold(len(g.Status.Conditions), g.UID):
		s.State, s.Reason = v1alpha1.StepUnknown, "whether it is programmed, and answers, is not in the files"
	case !Programmed(g):
		s.Reason = "istiod has not programmed it yet"
	case m.Hearsay:
		m.hearsay(&s, "it answers on its HBONE port, with its own identity", "whether it answers was not asked from here")
	case !fact.Answers && m.Unable != "":
		s.Reason = "it cannot be asked: " + m.Unable
	case !fact.Answers && fact.Why != "":
		s.Reason = "it does not answer: " + fact.Why
		m.silent(key, fact.Why, true)
	case !fact.Answers:
		s.Reason = "it is to be asked on its HBONE port"
	default:
		s.State, s.Reason = v1alpha1.StepDone, "it answers on its HBONE port, with its own identity"
	}
	m.add(s, partWaypoint)
}

// Programmed says whether a Gateway is programmed and has an address.
func Programmed(g *gatewayv1.Gateway) bool {
	c := meta.FindStatusCondition(g.Status.Conditions, string(gatewayv1.GatewayConditionProgrammed))
	return c != nil && c.Status == "True" && c.ObservedGeneration == g.Generation && len(g.Status.Addresses) > 0
}

// WaypointsToAsk are the waypoints of a plan that are programmed: what the snapshot needs facts about. While a gateway is to be brought into the mesh, those
// are among them that Services lead to at present, by whose label ever.
func WaypointsToAsk(s *Snapshot) []types.NamespacedName {
	if s.Edge.DeletionTimestamp != nil {
		return nil
	}
	m := &maker{Snapshot: s}
	m.findGateways()
	m.findBackends()
	m.waypoints()
	chosen := map[types.NamespacedName]bool{}
	for _, b := range m.backends {
		if g := m.gateway(b.waypoint); b.wanted && !b.hidden && g != nil && Programmed(g) {
			chosen[b.waypoint] = true
		}
		if c := m.canaried(b); c.by != "" && b.wanted && !b.hidden {
			if g := m.gateway(c.key); g != nil && Programmed(g) {
				chosen[c.key] = true
			}
		}
	}
	for _, key := range m.ledNow() {
		if g := m.gateway(key); g != nil && Programmed(g) {
			chosen[key] = true
		}
	}
	return slices.SortedFunc(maps.Keys(chosen), compareKeys)
}

// ServiceToAsk is a Service that leads to a waypoint which answered.
type ServiceToAsk struct {
	Service  *corev1.Service
	Waypoint types.NamespacedName
}

// ServicesToAsk are the Services that wait for their waypoint to serve them, or are served: what the snapshot needs facts about, when those
// about waypoints are there.
func ServicesToAsk(s *Snapshot) []ServiceToAsk {
	if s.Edge.DeletionTimestamp != nil {
		return nil
	}
	m := &maker{Snapshot: s}
	m.findGateways()
	m.findBackends()
	m.waypoints()
	var list []ServiceToAsk
	for _, b := range m.backends {
		asked := b.waypoint
		if b.wanted && s.Waypoints[asked].Answers && m.bound(b) && b.waypoint == asked {
			list = append(list, ServiceToAsk{b.service, asked})
		}
	}
	return list
}

// WaypointIdentities are the SPIFFE ids that a waypoint may show: those of its pods.
func WaypointIdentities(s *Snapshot, key types.NamespacedName) []string {
	return Identities(s, WaypointPods(s, key))
}

// WaypointPods are the pods that go by a waypoint's name and have not ended.
func WaypointPods(s *Snapshot, key types.NamespacedName) []*Pod {
	return s.podsWith(key.Namespace, map[string]string{edge.LabelGatewayName: key.Name})
}

// Identities are the SPIFFE ids of pods, each once.
func Identities(s *Snapshot, pods []*Pod) []string {
	return (&gateway{pods: pods}).identities(s.trustDomain())
}
