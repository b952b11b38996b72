package run

import (
	"context"

	"google.golang.org/protobuf/proto"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	cr "sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// watch asks for the AmbientEdges that a change concerns: before it and after it.
type watch struct{ r *reconciler }

// queue takes requests.
type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// Create is called for each object that is there at the start, too.
func (w watch) Create(_ context.Context, e cr.CreateEvent, q queue) { w.ask(q, e.Object) }

// Update leaves out what the cache does not keep, such as the times in a pod's status.
func (w watch) Update(_ context.Context, e cr.UpdateEvent, q queue) {
	if !w.r.reports.own(e.ObjectNew) && !alike(e.ObjectOld, e.ObjectNew) {
		w.ask(q, e.ObjectOld, e.ObjectNew)
	}
}

// Delete asks those who looked at an object.
func (w watch) Delete(_ context.Context, e cr.DeleteEvent, q queue) { w.ask(q, e.Object) }

// Generic does not happen.
func (w watch) Generic(_ context.Context, e cr.GenericEvent, q queue) { w.ask(q, e.Object) }

func (w watch) ask(q queue, objects ...client.Object) {
	concerned := set{}
	for _, o := range objects {
		w.r.concerns.whom(o, concerned)
	}
	w.enqueue(q, concerned)
}

// everybody asks for all AmbientEdges that were looked at.
func (w watch) everybody(q queue) {
	all := set{}
	w.r.concerns.everybody(all)
	w.enqueue(q, all)
}

func (w watch) enqueue(q queue, concerned set) {
	for e := range concerned {
		if wait := w.r.pace.changed(e); wait > 0 {
			q.AddAfter(reconcile.Request{NamespacedName: e}, wait)
		} else {
			q.Add(reconcile.Request{NamespacedName: e})
		}
	}
}

// alike says whether two versions of an object differ in nothing that is kept. Who holds its fields counts, when he wrote them does not, but for
// pods: of these only the capture is kept.
func alike(a, b client.Object) bool {
	if a == nil || b == nil || a.GetUID() != b.GetUID() {
		return false
	}
	if _, ok := b.(*v1alpha1.AmbientEdge); ok {
		return a.GetResourceVersion() == b.GetResourceVersion()
	}
	a, b = timeless(a), timeless(b)
	// Istio's specs are protobuf messages, which DeepEqual panics on. Of their statuses nothing is kept, but of policies of ours: istiod says there that it
	// has them.
	switch a := a.(type) {
	case *securityv1.AuthorizationPolicy:
		b, same := b.(*securityv1.AuthorizationPolicy)
		return same && equality.Semantic.DeepEqual(a.ObjectMeta, b.ObjectMeta) && proto.Equal(&a.Spec, &b.Spec) && proto.Equal(&a.Status, &b.Status)
	case *securityv1.PeerAuthentication:
		b, same := b.(*securityv1.PeerAuthentication)
		return same && equality.Semantic.DeepEqual(a.ObjectMeta, b.ObjectMeta) && proto.Equal(&a.Spec, &b.Spec)
	case *securityv1.RequestAuthentication:
		b, same := b.(*securityv1.RequestAuthentication)
		return same && equality.Semantic.DeepEqual(a.ObjectMeta, b.ObjectMeta) && proto.Equal(&a.Spec, &b.Spec)
	}
	return equality.Semantic.DeepEqual(a, b)
}

// timeless is an object without what changes with every write to it.
func timeless(o client.Object) client.Object {
	o, _ = o.DeepCopyObject().(client.Object)
	o.SetResourceVersion("")
	if _, ok := o.(*corev1.Pod); ok {
		return o
	}
	fields := make([]metav1.ManagedFieldsEntry, len(o.GetManagedFields()))
	for i, f := range o.GetManagedFields() {
		f.Time = nil
		fields[i] = f
	}
	o.SetManagedFields(fields)
	return o
}
