package apply_test

import (
	"errors"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/controller/apply"
)

// TestWhatIsTakenOverIsAskedAboutFirst: one request reads the version, one tries the rest without force, and one writes.
func TestWhatIsTakenOverIsAskedAboutFirst(t *testing.T) {
	w := write("u")
	w.TakeOver = [][]string{{"metadata", "labels", "a"}}
	if err := do(t.Context(), answering(t, nil, nil, nil), edge, w); err != nil {
		t.Error(err)
	}
	if len(w.Fields["metadata"].(map[string]any)["labels"].(map[string]any)) != 1 {
		t.Errorf("the write was changed: %v", w.Fields)
	}
	conflict := status(apierrors.NewApplyConflict([]metav1.StatusCause{{Type: metav1.CauseTypeFieldManagerConflict, Field: ".metadata.labels.b", Message: `conflict with "helm"`}}, "Apply failed"))
	err := do(t.Context(), answering(t, nil, conflict), edge, w)
	if c, ok := errors.AsType[*apply.ConflictError](err); !ok || len(c.Fields) != 1 {
		t.Errorf("the error is %v", err)
	}
	gone := status(apierrors.NewNotFound(services, "orders"))
	if err := do(t.Context(), answering(t, gone), edge, w); err == nil {
		t.Error("the object is gone, and nobody says so")
	}
}
