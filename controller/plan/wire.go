package plan

import (
	"cmp"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

func compareKeys(a, b types.NamespacedName) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// wire adds the steps that let each backend lead to its waypoint, and the gateway follow it.
func (m *maker) wire() {
	for _, b := range m.backends {
		if !b.wanted {
			continue
		}
		way := map[string]string{LabelUseWaypoint: b.waypoint.Name}
		if b.waypoint.Namespace != b.key.Namespace {
			way[LabelUseWaypointNamespace] = b.waypoint.Namespace
		}
		if byNamespace := m.namespaceLabels(b.key.Namespace); b.service.Labels[LabelUseWaypoint] == "" && byNamespace[LabelUseWaypoint] == b.waypoint.Name &&
			cmp.Or(byNamespace[LabelUseWaypointNamespace], b.key.Namespace) == b.waypoint.Namespace {
			m.add(Step{part: partWire, Step: v1alpha1.Step{Verb: VerbWire, Object: b.String(), State: v1alpha1.StepDone, Reason: "its namespace leads it there"}})
			way = nil
		} else {
			m.serviceStep(b, VerbWire, "lead it to waypoint "+b.waypoint.String(), way, nil)
		}
		m.confirm(b)
		if len(b.switches) > 0 {
			m.serviceStep(b, VerbSwitch, "let the gateway send to the Service's address", b.switches, way)
		}
	}
}

// serviceStep labels a Service. A write has all our labels of it: want, those of base, and those that we hold already.
func (m *maker) serviceStep(b *backend, verb, how string, want, base map[string]string) {
	s := Step{part: partWire, Step: v1alpha1.Step{Verb: verb, Object: b.String(), State: v1alpha1.StepDone, Reason: how}}
	labels := map[string]any{}
	missing := false
	for _, key := range slices.Sorted(maps.Keys(want)) {
		switch labelState(b.service, b.service.Labels, m.Edge.FieldOwner(), key, want[key]) {
		case absent:
			missing = true
			labels[key] = want[key]
		case ours:
			labels[key] = want[key]
		case theirs:
			s.Reason = "it is labelled already, not by us"
		case foreign:
			s.State = v1alpha1.StepBlocked
			m.foreign(s.Object, "metadata.labels["+key+"]", b.service.Labels[key], want[key], othersHold(b.service, label(key)...))
		}
	}
	if missing && s.State != v1alpha1.StepBlocked {
		s.State = v1alpha1.StepNext
		for key, value := range b.service.Labels {
			_, wanted := want[key]
			_, fits := base[key]
			_, switched := b.switches[key]
			if !wanted && (fits || switched) && holds(b.service, m.Edge.FieldOwner(), label(key)...) {
				labels[key] = value
			}
		}
		if m.ask(b.key.Namespace, "", "Service", "label Service "+b.key.Name) {
			s.Write = &Write{APIVersion: "v1", Kind: "Service", Key: b.key, UID: b.service.UID, Fields: map[string]any{"metadata": map[string]any{"labels": labels}}}
		} else {
			s.State, s.Reason = v1alpha1.StepBlocked, "no consent"
		}
	}
	m.add(s, partEnrol, partWaypoint, partWire)
}

// confirm waits for istiod's word that a Service is bound, and for the waypoint to serve it: istiod's word comes first.
func (m *maker) confirm(b *backend) {
	s := Step{part: partWire, Step: v1alpha1.Step{Verb: VerbConfirm, Object: b.String(), State: v1alpha1.StepNext, Reason: "istiod has not bound it to the waypoint yet"}}
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
	case c != nil && c.Message != "":
		s.Reason = "istiod says: " + c.Message
	}
	m.add(s, partEnrol, partWaypoint, partWire)
}
