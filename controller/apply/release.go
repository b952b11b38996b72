package apply

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// release leaves an object as it is, and takes the marks of an edge from it: what was ours is held by KeptOwner, as if people had set it. It
// blocks for two requests: managed fields are one list, which has to be known as it is now.
func release(ctx context.Context, c client.Client, e *v1alpha1.AmbientEdge, w *plan.Write) error {
	o := &metav1.PartialObjectMetadata{}
	o.SetGroupVersionKind(schema.FromAPIVersionAndKind(w.APIVersion, w.Kind))
	if err := c.Get(ctx, w.Key, o); err != nil {
		return client.IgnoreNotFound(err)
	}
	if o.UID != w.UID {
		return nil // another by that name: nothing of it is ours
	}
	before := o.DeepCopy()
	now := metav1.Now()
	for i := range o.ManagedFields {
		if f := &o.ManagedFields[i]; f.Manager == e.FieldOwner() {
			f.Manager, f.Operation, f.Time = v1alpha1.KeptOwner, metav1.ManagedFieldsOperationUpdate, &now
		}
	}
	if o.Labels[v1alpha1.LabelOwner] == e.Owner() {
		delete(o.Labels, v1alpha1.LabelOwner)
	}
	delete(o.Annotations, v1alpha1.AnnotationFormer)
	return c.Patch(ctx, o, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
}
