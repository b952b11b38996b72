package plan

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// Stands says whether there is something that undo of the AmbientEdge would take back, or halt for: what was written for it, or for one before it of its
// name that went without undo. It costs a plan.
func Stands(s *Snapshot) bool {
	gone, now := *s, metav1.Now()
	gone.Edge = s.Edge.DeepCopy()
	gone.Edge.DeletionTimestamp = &now
	undo := Make(&gone)
	return len(undo.Wanted()) > 0 || slices.ContainsFunc(undo.Findings, func(f v1alpha1.Finding) bool {
		return f.Code == v1alpha1.FindingUndoHalted && f.Severity == v1alpha1.SeverityError
	})
}
