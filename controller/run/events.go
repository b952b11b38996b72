package run

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// Reasons of Events.
const (
	eventReady      = "Ready"
	eventNotReady   = "NotReady"
	eventStepDone   = "StepDone"
	eventRefused    = "Refused"
	eventConflict   = "Conflict"
	eventBlocked    = "Blocked"
	eventHeld       = "Held"
	eventUndoHalted = "UndoHalted"
	eventUndone     = "Undone"
)

const (
	maxEvents = 16   // of one change of a status
	maxAlike  = 4    // steps of one verb; more become one Event
	maxNote   = 1000 // bytes; the API server takes 1024
)

// recorder takes Events. It does not block, and makes one series of those that are alike.
type recorder interface {
	Eventf(regarding, related runtime.Object, eventType, reason, action, note string, args ...any)
}

// event is an Event about an AmbientEdge.
type event struct{ kind, reason, action, object, note string }

// record hands Events on. A nil recorder drops them.
func record(to recorder, e *v1alpha1.AmbientEdge, list ...event) {
	if to == nil {
		return
	}
	// Without a resource version: with one no two Events would be alike.
	edge := &corev1.ObjectReference{APIVersion: v1alpha1.GroupVersion().String(), Kind: "AmbientEdge", Namespace: e.Namespace, Name: e.Name, UID: e.UID}
	for _, v := range list[:min(len(list), maxEvents)] {
		to.Eventf(edge, referenceTo(v.object), v.kind, v.reason, v.action, "%s", shortened(v.note))
	}
}

// transitions are the Events between two statuses of an edge, the second being that of a plan: none where nothing has happened.
func transitions(before, after *v1alpha1.AmbientEdgeStatus, p *plan.Plan) []event {
	var list []event
	list = append(list, readiness(before, after, p.Undoing)...)
	list = append(list, newFindings(before.Findings, after.Findings, p)...)
	return append(list, stepsDone(before.Plan.Steps, after.Plan.Steps, p)...)
}

// readiness tells that an edge has become ready, or is so no more. Undo ends it as somebody wants, and is no news.
func readiness(before, after *v1alpha1.AmbientEdgeStatus, undoing bool) []event {
	was := meta.IsStatusConditionTrue(before.Conditions, v1alpha1.ConditionReady)
	switch c := meta.FindStatusCondition(after.Conditions, v1alpha1.ConditionReady); {
	case c == nil || undoing:
	case c.Status == "True" && !was:
		return []event{{corev1.EventTypeNormal, eventReady, "Observe", "", c.Message}}
	case c.Status != "True" && was:
		note := c.Reason + ": " + c.Message
		return []event{{corev1.EventTypeWarning, eventNotReady, worded(c.Reason, note), "", note}}
	}
	return nil
}

// worded makes an action one of these words: Events of the same action, reason and objects are one series, which shows the words of the first, and an
// edge may be ready no more for the same reason by other steps.
func worded(action, note string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(note))
	return fmt.Sprintf("%s-%08x", action, h.Sum32())
}

// newFindings tells of what stops an edge, or holds some of it back.
func newFindings(before, after []v1alpha1.Finding, p *plan.Plan) []event {
	reasons := map[string]string{
		v1alpha1.FindingRefused: eventRefused, v1alpha1.FindingForeignValue: eventConflict,
		v1alpha1.FindingConflictedEdge: eventConflict, v1alpha1.FindingFight: eventConflict, v1alpha1.FindingUndoHalted: eventUndoHalted,
	}
	var list []event
	for _, f := range after {
		there := func(o v1alpha1.Finding) bool {
			return o.Code == f.Code && o.Object == f.Object && o.Field == f.Field && o.Severity == f.Severity
		}
		if f.Severity != v1alpha1.SeverityError || slices.ContainsFunc(before, there) {
			continue
		}
		// The code is the action: Events of the same action, reason and objects are one series, which shows the words of the first.
		stops := eventBlocked
		if p.HeldBack(f) {
			stops = eventHeld
		}
		list = append(list, event{corev1.EventTypeWarning, cmp.Or(reasons[f.Code], stops), f.Code, f.Object, f.Code + " " + f.Object + ": " + f.Message})
	}
	return list
}

// stepsDone tells of steps that were left to do and are done; of many that do the same in one event.
func stepsDone(before, after []v1alpha1.Step, p *plan.Plan) []event {
	left := map[string]bool{}
	for i := range before {
		left[before[i].ID] = before[i].State != v1alpha1.StepDone
	}
	var verbs []string
	done := map[string][]*v1alpha1.Step{}
	add := func(s *v1alpha1.Step) {
		if len(done[s.Verb]) == 0 {
			verbs = append(verbs, s.Verb)
		}
		done[s.Verb] = append(done[s.Verb], s)
	}
	for _, s := range takenBack(before, p) {
		add(s)
	}
	for i := range after {
		if s := &after[i]; s.State == v1alpha1.StepDone && left[s.ID] {
			add(s)
		}
	}
	var list []event
	for _, verb := range verbs {
		steps := done[verb]
		if n := len(steps); n > maxAlike {
			list = append(list, event{corev1.EventTypeNormal, eventStepDone, verb, "", fmt.Sprintf("%d steps: %s, %s and %d more", n, steps[0].ID, steps[1].ID, n-2)})
			continue
		}
		for _, s := range steps {
			list = append(list, event{corev1.EventTypeNormal, eventStepDone, verb, s.Object, s.ID + ": " + s.Reason})
		}
	}
	return list
}

// takenBack are steps that took something back and were left to do: a plan has them no more when there is nothing to take, unless it wants the
// object again, or cannot tell.
func takenBack(before []v1alpha1.Step, p *plan.Plan) (gone []*v1alpha1.Step) {
	if !p.Whole {
		return nil
	}
	there, wanted := map[string]bool{}, map[string]bool{}
	for i := range p.Steps {
		s := &p.Steps[i]
		there[s.ID] = true
		if slices.Contains([]string{plan.VerbEnrol, plan.VerbCreate, plan.VerbPair, plan.VerbWire, plan.VerbSwitch, plan.VerbLock, plan.VerbNarrow}, s.Verb) {
			wanted[s.Object] = true
		}
	}
	for i := range before {
		s := &before[i]
		takes := slices.Contains([]string{plan.VerbUnlock, plan.VerbUnswitch, plan.VerbUnwire, plan.VerbUnpair, plan.VerbDelete, plan.VerbUnenrol, plan.VerbRelease}, s.Verb)
		if takes && s.State != v1alpha1.StepDone && !there[s.ID] && !wanted[s.Object] {
			gone = append(gone, s)
		}
	}
	return gone
}

// undone tells that nothing is left of an edge.
func undone() event {
	return event{corev1.EventTypeNormal, eventUndone, "Undo", "", "all that was written for this AmbientEdge was taken back"}
}

// kept tells that an edge went and left what was written for it.
func kept() event {
	return event{corev1.EventTypeNormal, eventUndone, "Keep", "", "what was written for this AmbientEdge stays, as onDelete Keep asks"}
}

// referenceTo is an object as people name it, "Kind namespace/name", or nil.
func referenceTo(object string) runtime.Object {
	kind, name, ok := strings.Cut(object, " ")
	if !ok {
		return nil
	}
	ref := &corev1.ObjectReference{Kind: kind, Name: name}
	if ns, in, both := strings.Cut(name, "/"); both {
		ref.Namespace, ref.Name = ns, in
	}
	return ref
}

// shortened cuts a note to what an Event takes.
func shortened(note string) string {
	if len(note) <= maxNote {
		return note
	}
	return strings.ToValidUTF8(note[:maxNote], "") + "..."
}
