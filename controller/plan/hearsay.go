package plan

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// hearsay sets state and reason of a step that takes asking a waypoint, to what the edge's status tells of it: done, or why not yet. It is
// unknown where the status is about another generation, or does not tell.
func (m *maker) hearsay(s *Step, done, unknown string) {
	s.State, s.Reason = v1alpha1.StepUnknown, unknown
	st := &m.Edge.Status
	if st.ObservedGeneration != m.Edge.Generation {
		return
	}
	id := stepID(s.Verb, s.Object)
	for i := range st.Plan.Steps {
		switch told := &st.Plan.Steps[i]; {
		case told.ID != id:
		case told.State == v1alpha1.StepDone:
			s.State, s.Reason = v1alpha1.StepDone, done+m.seen()
		case told.State == v1alpha1.StepNext && told.Reason != "":
			s.State, s.Reason = v1alpha1.StepNext, "the controller says: "+told.Reason
		}
	}
}

// seen says who has seen that a waypoint answers, and since when as far as that is told.
func (m *maker) seen() string {
	c := meta.FindStatusCondition(m.Edge.Status.Conditions, v1alpha1.ConditionWaypointsReady)
	if c == nil || c.Status != "True" || c.ObservedGeneration != m.Edge.Generation {
		return ", as the controller has seen"
	}
	return fmt.Sprintf(", as the controller has seen since %s", c.LastTransitionTime.UTC().Format("2006-01-02T15:04:05Z"))
}
