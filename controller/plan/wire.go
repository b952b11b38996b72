package plan

import (
	"cmp"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

func compareKeys(a, b types.NamespacedName) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// wire adds the steps that let each backend lead to its waypoint, and the gateway follow it. The first Service of a waypoint in each namespace goes all
// the way before the others begin, which then go together: what is wrong with a waypoint is found out with one.
func (m *maker) wire() {
	for _, b := range m.backends {
		if b.wanted {
			m.about(b.itself(), func() { m.wireOne(b) })
		}
	}
	m.switchGateways()
	policy, _ := m.waypointPolicy()
	for _, b := range m.backends {
		if b.refused || b.hidden && !b.wanted && policy != v1alpha1.WaypointNone {
			m.add(Step{part: partRefused, of: b.itself(), Step: v1alpha1.Step{
				Verb: VerbWire, Object: b.String(), State: v1alpha1.StepHeld, Reason: v1alpha1.FindingNoConsent + ": no consent",
			}})
		}
	}
}

func (m *maker) wireOne(b *backend) {
	way := m.way(b)
	if len(way) == 0 {
		m.addWiring(b, Step{Step: v1alpha1.Step{Verb: VerbWire, Object: b.String(), State: v1alpha1.StepDone, Reason: "its namespace leads it there"}})
	} else {
		m.serviceStep(b, VerbWire, "lead it to waypoint "+b.waypoint.String(), way, way)
	}
	m.confirm(b)
	m.switches(b, way)
}

// addWiring adds a step of wiring of a Service.
func (m *maker) addWiring(b *backend, s Step) {
	s.part, s.of, s.waypoint = partWire, b.itself(), object("Gateway", b.waypoint)
	if is := m.present(b); is.Name != "" {
		s.leads = object("Gateway", is)
	}
	m.add(s, partEnrol, partWaypoint, partPair, partWitness, partWire)
}

// way are the labels that lead a Service to its waypoint, none where its namespace does.
func (m *maker) way(b *backend) []setting {
	byNamespace := m.namespaceLabels(b.key.Namespace)
	if b.service.Labels[LabelUseWaypoint] == "" && byNamespace[LabelUseWaypoint] == b.waypoint.Name &&
		cmp.Or(byNamespace[LabelUseWaypointNamespace], b.key.Namespace) == b.waypoint.Namespace {
		return nil
	}
	way := []setting{labelled(LabelUseWaypoint, b.waypoint.Name)}
	if _, set := b.service.Labels[LabelUseWaypointNamespace]; set || b.waypoint.Namespace != b.key.Namespace { // one that is left over would lead it elsewhere
		way = append(way, labelled(LabelUseWaypointNamespace, b.waypoint.Namespace))
	}
	return way
}

// serviceStep gives a Service settings; way are those that lead it to its waypoint. A switch comes after them, and its write has them too
// where they are not there yet, so that one trial answers for both.
func (m *maker) serviceStep(b *backend, verb, how string, want, way []setting) {
	s := m.put(carrier{"v1", "Service", b.service}, verb, how, want, append(slices.Clone(way), b.settings...))
	if verb == VerbSwitch && s.Write != nil {
		for _, x := range way {
			if m.state(b.service, x) == absent {
				nest(s.Write.Fields, x.path, x.value)
			}
		}
	}
	if verb == VerbWire && s.Write != nil {
		m.leaves(b)
	}
	m.addWiring(b, s)
}

// confirm waits for istiod's word that a Service is bound, and for the waypoint to serve it: istiod's word comes first.
func (m *maker) confirm(b *backend) {
	s := Step{Step: v1alpha1.Step{Verb: VerbConfirm, Object: b.String(), State: v1alpha1.StepNext, Reason: "istiod has not bound it to the waypoint yet"}}
	switch c := meta.FindStatusCondition(b.service.Status.Conditions, ConditionWaypointBound); {
	case c != nil && c.Status == "True" && m.Hearsay:
		m.hearsay(&s, "istiod has bound it, and the waypoint serves it", "istiod has bound it; whether the waypoint serves it was not asked from here")
	case c != nil && c.Status == "True" && m.Served[b.key].Answers:
		s.State, s.Reason = v1alpha1.StepDone, "istiod has bound it, and the waypoint serves it"
	case c != nil && c.Status == "True":
		s.Reason = "istiod has bound it to the waypoint"
		if why := m.Served[b.key].Why; why != "" {
			s.Reason += ", which does not serve it yet: " + why
		}
	case c == nil && m.untold(len(b.service.Status.Conditions), b.service.UID):
		s.State, s.Reason = v1alpha1.StepUnknown, "whether istiod has bound it is not in the files"
	case c != nil && c.Message != "":
		s.Reason = "istiod says: " + c.Message
	}
	m.addWiring(b, s)
}
