package apply

import (
	"context"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// ConflictError says that somebody else has a field that the plan wants to write.
type ConflictError struct {
	Object string
	Fields []string // with the managers that hold them
	Err    error
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("write %s: %s belongs to somebody else; nothing was overwritten", e.Object, strings.Join(e.Fields, ", "))
}

func (e *ConflictError) Unwrap() error { return e.Err }

// Do carries out one write for an edge. It blocks for one request. An object that is gone is no error when it was to go, nor
// is one that is there when it was to be created: it is left alone, and the next plan sees it. One that was replaced since the plan
// was made is left alone too, and is an error.
func Do(ctx context.Context, c client.Writer, e *v1alpha1.AmbientEdge, w *plan.Write) error {
	u := &unstructured.Unstructured{Object: runtime.DeepCopyJSON(w.Fields)}
	if u.Object == nil {
		u.Object = map[string]any{}
	}
	u.SetAPIVersion(w.APIVersion)
	u.SetKind(w.Kind)
	u.SetNamespace(w.Key.Namespace)
	u.SetName(w.Key.Name)
	if w.Delete {
		err := c.Delete(ctx, u, client.Preconditions{UID: &w.UID}, client.PropagationPolicy(metav1.DeletePropagationForeground))
		if err = client.IgnoreNotFound(err); err != nil {
			return fmt.Errorf("delete %s: %w", w, err)
		}
		return nil
	}
	if w.UID == "" {
		// Not an apply, which would make an object ours that somebody else has made in the meantime.
		if err := c.Create(ctx, u, client.FieldOwner(e.FieldOwner())); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create %s: %w", w, err)
		}
		return nil
	}
	// With the UID the API server refuses to create what is not there any more.
	u.SetUID(w.UID)
	err := c.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(e.FieldOwner()))
	if err == nil {
		return nil
	}
	if fields := conflicts(err); len(fields) > 0 {
		return &ConflictError{Object: w.String(), Fields: fields, Err: err}
	}
	return fmt.Errorf("write %s: %w", w, err)
}

// conflicts are the fields that other managers hold.
func conflicts(err error) []string {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok || status.Status().Details == nil {
		return nil
	}
	var fields []string
	for _, cause := range status.Status().Details.Causes {
		if cause.Type == metav1.CauseTypeFieldManagerConflict {
			fields = append(fields, fmt.Sprintf("%s (%s)", cause.Field, cause.Message))
		}
	}
	return fields
}
