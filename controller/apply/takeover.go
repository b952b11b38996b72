package apply

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// soleConflicts finds out whether a write would take anything from its managers but the fields that it may take over, and is the API server's answer if it
// would: a dry run applies all others without force. A write is forced as a whole, so that u gets the version of the object for which this holds; a newer
// one makes the write a conflict that the next plan sees. It blocks for two requests.
func soleConflicts(ctx context.Context, c client.Client, u *unstructured.Unstructured, w *plan.Write, opts []client.ApplyOption) error {
	there := &metav1.PartialObjectMetadata{}
	there.SetGroupVersionKind(u.GroupVersionKind())
	if err := c.Get(ctx, w.Key, there); err != nil {
		return err
	}
	u.SetResourceVersion(there.ResourceVersion)
	rest := u.DeepCopy()
	for _, path := range w.TakeOver {
		unstructured.RemoveNestedField(rest.Object, path...)
	}
	return client.NewDryRunClient(c).Apply(ctx, client.ApplyConfigurationFromUnstructured(rest), opts...)
}
