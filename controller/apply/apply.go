package apply

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// Do carries out one write for an edge. It blocks for one request, for two where an object is to be released, and for three where a field is taken over. An
// object that is gone is no error when it was to go, nor is one that is there when it was to be created: it is left alone, and the next plan
// sees it. One that was replaced since the plan was made is left alone too, and is an error unless it was to be released. Errors are as those
// of Explain. It returns the object's resource version after the write; none where it is gone, was left alone, or was released.
func Do(ctx context.Context, c client.Client, e *v1alpha1.AmbientEdge, w *plan.Write) (version string, err error) {
	u := &unstructured.Unstructured{Object: runtime.DeepCopyJSON(w.Fields)}
	if u.Object == nil {
		u.Object = map[string]any{}
	}
	u.SetAPIVersion(w.APIVersion)
	u.SetKind(w.Kind)
	u.SetNamespace(w.Key.Namespace)
	u.SetName(w.Key.Name)
	if w.Delete {
		how := metav1.DeletePropagationBackground
		if w.Kind == "Gateway" {
			how = metav1.DeletePropagationForeground // it stays until what istiod made of it is gone; policies have nothing like that
		}
		err := c.Delete(ctx, u, client.Preconditions{UID: &w.UID}, client.PropagationPolicy(how))
		return "", Explain("delete", w.String(), client.IgnoreNotFound(err))
	}
	if w.Release {
		return "", Explain("release", w.String(), release(ctx, c, e, w))
	}
	if w.UID == "" {
		// Not an apply, which would make an object ours that somebody else has made in the meantime. Fields that its kind does not have are
		// refused, as an apply does, rather than left out.
		err := c.Create(ctx, u, client.FieldOwner(e.FieldOwner()), client.FieldValidation(metav1.FieldValidationStrict))
		return u.GetResourceVersion(), Explain("create", w.String(), client.IgnoreAlreadyExists(err))
	}
	if w.Restore {
		// Not an apply either: what is given back is not to be ours.
		u.SetUID(w.UID)
		patch, err := u.MarshalJSON()
		if err == nil {
			err = c.Patch(ctx, u, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(v1alpha1.RestoreOwner))
		}
		return u.GetResourceVersion(), Explain("restore", w.String(), err)
	}
	// With the UID the API server refuses to create what is not there any more.
	u.SetUID(w.UID)
	if w.Force {
		// Not an apply, which leaves what was created and is not among its fields: ours as it is, by another way to write.
		patch, err := u.MarshalJSON()
		if err == nil {
			err = c.Patch(ctx, u, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(e.FieldOwner()))
		}
		return u.GetResourceVersion(), Explain("write", w.String(), err)
	}
	opts := []client.ApplyOption{client.FieldOwner(e.FieldOwner())}
	if len(w.TakeOver) > 0 {
		if err := soleConflicts(ctx, c, u, w, opts); err != nil {
			return "", Explain("write", w.String(), err)
		}
		opts = append(opts, client.ForceOwnership)
	}
	err = c.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), opts...)
	return u.GetResourceVersion(), Explain("write", w.String(), err)
}

// Try finds out whether the API server would let a write through, and writes nothing. It blocks for one request, and for two where an
// object is to be created: what is made must be taken back one day, and this finds missing rights to do so. Its errors are those of Do.
// A webhook that knows no dry run says nothing about the write, which meets it again: that is no error.
func Try(ctx context.Context, c client.Client, e *v1alpha1.AmbientEdge, w *plan.Write) error {
	dry := client.NewDryRunClient(c)
	_, err := Do(ctx, dry, e, w)
	if err == nil && !w.Delete && w.UID == "" {
		back := *w
		back.Delete = true
		_, err = Do(ctx, dry, e, &back)
	}
	if noDryRun(err) {
		return nil
	}
	return err
}
