package plan

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// Status is the plan as a status of the edge, without times of transitions.
func (p *Plan) Status(e *v1alpha1.AmbientEdge) v1alpha1.AmbientEdgeStatus {
	st := v1alpha1.AmbientEdgeStatus{
		ObservedGeneration: e.Generation, Gateways: p.Gateways,
		Conditions: []metav1.Condition{
			p.ready(e),
			p.condition(e, v1alpha1.ConditionEnrolled, partEnrol),
			p.condition(e, v1alpha1.ConditionWaypointsReady, partWaypoint, partPair, partWitness, partWire, partRefused),
		},
		Plan: v1alpha1.Plan{Digest: p.Digest, Approval: ApprovedAs(e)},
	}
	st.Backends, st.BackendsLeftOut = limited(p.Backends, v1alpha1.MaxBackends)
	st.Findings, st.FindingsLeftOut = limited(p.Findings, v1alpha1.MaxFindings)
	steps := make([]v1alpha1.Step, len(p.Steps))
	for i := range p.Steps {
		steps[i] = p.Steps[i].Step
	}
	st.Plan.Steps, st.Plan.StepsLeftOut = limited(steps, v1alpha1.MaxSteps)
	return st
}

func limited[T any](list []T, most int) ([]T, int32) {
	if len(list) <= most {
		return list, 0
	}
	return list[:most], int32(len(list) - most)
}

// condition says whether all steps of some parts are done.
func (p *Plan) condition(e *v1alpha1.AmbientEdge, kind string, parts ...part) metav1.Condition {
	c := metav1.Condition{Type: kind, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonDone, ObservedGeneration: e.Generation}
	steps := 0
	for i := range p.Steps {
		for _, part := range parts {
			if p.Steps[i].part == part {
				steps++
			}
		}
	}
	switch left := p.left(parts...); {
	case p.Undoing:
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, v1alpha1.ReasonUndoing, "the AmbientEdge is being deleted"
	case left != nil:
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, p.why(e, left), sentence(left)
	case p.Blocked() && steps == 0:
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, v1alpha1.ReasonBlocked, p.stopper().Message
	case steps == 0:
		c.Reason, c.Message = v1alpha1.ReasonNotWanted, "there is nothing to do"
	default:
		c.Message = fmt.Sprintf("%d steps are done", steps)
	}
	c.Message = cut(c.Message)
	return c
}

// cut shortens the message of a condition to what the API server takes, which refuses the whole status else.
func cut(message string) string {
	const most = 32768
	if len(message) <= most {
		return message
	}
	const more = " …"
	return strings.ToValidUTF8(message[:most-len(more)], "") + more
}

func sentence(s *Step) string {
	if s.Reason == "" {
		return s.ID
	}
	return s.ID + ": " + s.Reason
}

// why a step that is left is not taken, or that it is.
func (p *Plan) why(e *v1alpha1.AmbientEdge, left *Step) string {
	switch {
	case p.Blocked() || left.State == v1alpha1.StepHeld && p.holds.all():
		return v1alpha1.ReasonBlocked
	case left.State == v1alpha1.StepHeld:
		return v1alpha1.ReasonHeld
	case left.State == v1alpha1.StepBlocked: // by no error, which would have stopped all, or held it
		return v1alpha1.ReasonWaiting
	case e.Spec.Mode != v1alpha1.ModeManage || p.observer:
		return v1alpha1.ReasonObserving
	}
	return v1alpha1.ReasonInProgress
}

// firstError is the first error among the findings: of the codes, where there are any.
func (p *Plan) firstError(codes ...string) v1alpha1.Finding {
	for _, f := range p.Findings {
		if f.Severity == v1alpha1.SeverityError && (len(codes) == 0 || slices.Contains(codes, f.Code)) {
			return f
		}
	}
	return v1alpha1.Finding{}
}

// stopper is the first error that stops all, or else the first.
func (p *Plan) stopper() v1alpha1.Finding {
	f := find(p.Findings, func(f *v1alpha1.Finding) bool {
		return f.Severity == v1alpha1.SeverityError && !p.holds.apart[causeOf(f)]
	})
	if f == nil {
		return p.firstError()
	}
	return *f
}

// heldBack says what is held back while the rest goes on: how many backends, and which.
func (p *Plan) heldBack() string {
	var names []string
	for i := range p.Backends {
		if b := &p.Backends[i]; len(p.holds.by["Service "+b.Service]) > 0 {
			names = append(names, fmt.Sprintf("Service %s (%s)", b.Service, codes(p.holds.by["Service "+b.Service])))
		}
	}
	if n := len(names); n > 0 {
		is := "is"
		if n > 1 {
			is = "are"
		}
		return fmt.Sprintf("%d of %d backends %s held back, and the others go on: %s", n, len(p.Backends), is, listed(names))
	}
	for i := range p.Steps {
		if s := &p.Steps[i]; s.State == v1alpha1.StepHeld {
			names = append(names, sentence(s))
		}
	}
	return fmt.Sprintf("held back, while all else goes on (%d): %s", len(names), listed(names))
}

// firstOf is the first finding of a code, whatever its severity.
func (p *Plan) firstOf(code string) v1alpha1.Finding {
	if f := find(p.Findings, func(f *v1alpha1.Finding) bool { return f.Code == code }); f != nil {
		return *f
	}
	return v1alpha1.Finding{}
}

func (p *Plan) ready(e *v1alpha1.AmbientEdge) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, ObservedGeneration: e.Generation}
	left := p.left(partEnrol, partWaypoint, partPair, partWire, partLock, partUnlock, partUnswitch, partUnpair, partRelease, partRefused)
	f := p.stopper()
	switch halted, conflict := p.firstError(v1alpha1.FindingUndoHalted), p.firstError(v1alpha1.FindingConflictedEdge); {
	case halted.Code != "":
		c.Reason, c.Message = v1alpha1.ReasonUndoHalted, halted.Message
	case conflict.Code != "":
		c.Reason, c.Message = v1alpha1.ReasonConflicted, conflict.Message
	case f.Code != "" && !p.Undoing && !p.stops() && !p.holds.all():
		c.Reason, c.Message = v1alpha1.ReasonHeld, p.heldBack()
	case f.Code != "":
		c.Reason, c.Message = v1alpha1.ReasonBlocked, fmt.Sprintf("%s %s: %s", f.Code, f.Object, f.Message)
	case p.Undoing && p.observer:
		c.Reason, c.Message = v1alpha1.ReasonObserving, p.firstOf(v1alpha1.FindingObserver).Message
	case p.Undoing:
		c.Reason, c.Message = v1alpha1.ReasonUndoing, "everything is taken back"
		if left != nil {
			c.Message = sentence(left)
		}
	case left != nil:
		c.Reason, c.Message = p.why(e, left), sentence(left)
	default:
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, v1alpha1.ReasonDone, fmt.Sprintf("%d steps are done, and were seen to hold", len(p.Steps))
		if p.firstOf(v1alpha1.FindingAssumed).Code != "" {
			c.Message = fmt.Sprintf("%d steps are done; that the gateway speaks HBONE itself is assumed", len(p.Steps))
		}
	}
	c.Message = cut(c.Message)
	return c
}
