package plan

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// haltFor finds policies that nobody would enforce without what is about to go, and says whether it has to stay. Those for all waypoints are enforced
// for Services: a waypoint that no Service leads to enforces them for nobody.
func (m *maker) haltFor(key types.NamespacedName, kind, waypoint string) bool {
	names := m.enforced(key, kind, kind == "Service")
	if len(names) == 0 {
		return false
	}
	return m.halt(object(kind, key), fmt.Sprintf("without waypoint %s nobody enforces %s", waypoint, listed(names)))
}

// halt finds what has to stay while something depends on it, and says whether it has to. While the AmbientEdge is being deleted that holds undo of it back,
// until it is confirmed: for this AmbientEdge, not for one before it whose annotations it was made with. Else nothing but removing what depends on it
// helps: a confirmation would be about whatever goes next. The rest goes on.
func (m *maker) halt(obj, why string) bool {
	f := v1alpha1.Finding{
		Code: v1alpha1.FindingUndoHalted, Severity: v1alpha1.SeverityError, Object: obj, Message: "undo waits: " + why,
		Fix: fmt.Sprintf("kubectl annotate --overwrite ambientedge -n %s %s %s # or remove what depends on it first",
			m.Edge.Namespace, m.Edge.Name, shellWord(v1alpha1.AnnotationUndo+"="+m.Edge.UndoConfirmation())),
	}
	stays := true
	_, is := m.Edge.Annotations[v1alpha1.AnnotationUndo]
	switch {
	case !m.plan.Undoing:
		f.Severity, f.Message = v1alpha1.SeverityWarning, "AmbientEdge "+keyOf(m.Edge).String()+" does not need this any more, and leaves it: "+why
		f.Fix = "remove what depends on it; it is taken back then"
	case m.confirmed():
		f.Severity, f.Message, f.Fix = v1alpha1.SeverityInfo, "confirmed: "+why, ""
		stays = false
	case is:
		f.Message += "; the annotation " + v1alpha1.AnnotationUndo + " that it has does not confirm the undo of this AmbientEdge: it is of one before it, or was there before this one was deleted"
	}
	if slices.Contains(m.plan.Findings, f) { // two Services may lead to one waypoint
		m.plan.holds.add(&f, m.whom...)
	} else {
		m.found(f)
	}
	return stays
}

// orphan finds something that was made for the edge and has lost its owner label, by which alone it may be deleted: its step waits for that, or for a
// confirmation, and nothing else does. Whoever may make such an object can have it look like one of ours: where its namespace does not consent, and nothing else
// there is ours, nothing waits.
func (m *maker) orphan(s Step, group, kind, why string) {
	if !m.plan.Undoing {
		m.halt(s.Object, why)
		return
	}
	if ns := namespaceOf(s.Object); !m.consents(ns, group, kind) && !m.wroteIn(ns) && !m.confirmed() {
		m.found(v1alpha1.Finding{
			Code: v1alpha1.FindingUndoHalted, Severity: v1alpha1.SeverityWarning, Object: s.Object,
			Message: "undo leaves this, as its namespace does not consent to this AmbientEdge, and nothing else there is of it: " + why, Fix: "delete it there, if nobody needs it",
		})
		return
	}
	m.about([]string{s.Object}, func() {
		if m.halt(s.Object, why) {
			s.Reason = "it has lost its label"
			m.add(s)
		}
	})
}

// confirmed says whether somebody has confirmed the undo of this very AmbientEdge: by its uid, or by the plain word, when that came after the deletion
// began, and is not what it was made with.
func (m *maker) confirmed() bool {
	switch m.Edge.Annotations[v1alpha1.AnnotationUndo] {
	case m.Edge.UndoConfirmation():
		return true
	case v1alpha1.UndoConfirmed:
		return slices.ContainsFunc(m.Edge.ManagedFields, func(f metav1.ManagedFieldsEntry) bool {
			return f.FieldsV1 != nil && f.Time != nil && !f.Time.Before(m.Edge.DeletionTimestamp) &&
				hasPath(f.FieldsV1.GetRawBytes(), []string{"f:metadata", "f:annotations", "f:" + v1alpha1.AnnotationUndo})
		})
	}
	return false
}

// stay has a step wait for what depends on its object. While the AmbientEdge is being deleted an error holds it back.
func (m *maker) stay(s *Step) {
	if !m.plan.Undoing {
		s.State, s.Write, s.Reason = v1alpha1.StepBlocked, nil, "something depends on it"
	}
}

// listed joins names, the first few of many.
func listed(names []string) string {
	const most = 16
	if len(names) > most {
		return fmt.Sprintf("%s, and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}
