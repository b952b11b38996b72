package run

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/apply"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// How soon to look again.
const (
	soon  = 200 * time.Millisecond // something has been written, or is waited for
	later = 30 * time.Second       // all is well, or somebody has to act: watches tell of that
)

// reconciler brings AmbientEdges about.
type reconciler struct {
	client      client.Client
	live        client.Reader // without a cache
	trustDomain string
	observeOnly bool
	events      recorder
	facts       facts
	trials      trials
	refusals    refusals
	reports     reports
	vendors     vendors

	mu      sync.Mutex // guards the field below
	written map[types.NamespacedName]*v1alpha1.AmbientEdge
}

func (r *reconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	e := &v1alpha1.AmbientEdge{}
	if err := r.client.Get(ctx, req.NamespacedName, e); apierrors.IsNotFound(err) {
		if e = r.orphaned(req.NamespacedName); e == nil {
			r.forget(req.NamespacedName)
			return reconcile.Result{}, nil
		}
	} else if err != nil {
		return reconcile.Result{}, err
	}
	if e.DeletionTimestamp != nil && !controllerutil.ContainsFinalizer(e, v1alpha1.Finalizer) {
		return reconcile.Result{}, nil // nothing was written for it
	}
	p, err := r.plan(ctx, r.client, e)
	if err == nil && p.Undoing && p.Done() {
		// The cache may not have what was written last, and what is forgotten now stays for ever.
		p, err = r.plan(ctx, r.live, e)
	}
	if err != nil {
		return reconcile.Result{}, err
	}
	question := asked(e, p)
	if f, left, held := r.refusals.held(e, p); held {
		p.Stop(f)
		return reconcile.Result{RequeueAfter: left}, r.report(ctx, e, p)
	}
	if p.Undoing && p.Done() && !p.Blocked() {
		if err = r.finalize(ctx, e.DeepCopy()); err == nil {
			return reconcile.Result{}, nil
		}
	}
	wrote := false
	if err == nil {
		wrote, err = r.write(ctx, e, p)
	}
	f, stopped := stop(e, wrote, err)
	if stopped {
		log.FromContext(ctx).Info("stopped", "reason", err.Error())
		p.Stop(f)
		err = nil
	}
	if err := errors.Join(err, r.report(ctx, e, p)); err != nil {
		return reconcile.Result{}, err
	}
	if stopped {
		return reconcile.Result{RequeueAfter: r.refusals.add(e, question, f)}, nil
	}
	r.refusals.forget(req.NamespacedName)
	if wrote || !p.Done() && !p.Blocked() && r.manages(e) {
		return reconcile.Result{RequeueAfter: soon}, nil
	}
	return reconcile.Result{RequeueAfter: later}, nil
}

// plan observes and decides.
func (r *reconciler) plan(ctx context.Context, from client.Reader, e *v1alpha1.AmbientEdge) (*plan.Plan, error) {
	s, err := observe(ctx, from, e, &r.vendors)
	if err != nil {
		return nil, err
	}
	s.TrustDomain = r.trustDomain
	r.facts.ask(ctx, s)
	return plan.Make(s), nil
}

func (r *reconciler) manages(e *v1alpha1.AmbientEdge) bool {
	return !r.observeOnly && (e.Spec.Mode == v1alpha1.ModeManage || e.DeletionTimestamp != nil)
}

// finalize lets the AmbientEdge go.
func (r *reconciler) finalize(ctx context.Context, e *v1alpha1.AmbientEdge) error {
	before := e.DeepCopy()
	controllerutil.RemoveFinalizer(e, v1alpha1.Finalizer)
	err := r.client.Patch(ctx, e, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	if err = client.IgnoreNotFound(err); err != nil {
		return apply.Explain("remove the finalizer of", "AmbientEdge "+client.ObjectKeyFromObject(e).String(), err)
	}
	if e.Spec.OnDelete == v1alpha1.OnDeleteKeep {
		record(r.events, e, kept())
	} else {
		record(r.events, e, undone())
	}
	r.forget(client.ObjectKeyFromObject(e))
	return nil
}

// forget an edge that is gone.
func (r *reconciler) forget(key types.NamespacedName) {
	r.trials.forget(key)
	r.refusals.forget(key)
	r.reports.forget(key)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.written, key)
}

// remember that something is written for e.
func (r *reconciler) remember(e *v1alpha1.AmbientEdge) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.written == nil {
		r.written = map[types.NamespacedName]*v1alpha1.AmbientEdge{}
	}
	r.written[client.ObjectKeyFromObject(e)] = e.DeepCopy()
}

// orphaned is an AmbientEdge that went without undo, as one that is being deleted: the API server lets an object go whose finalizer came
// after it had looked for one.
func (r *reconciler) orphaned(key types.NamespacedName) *v1alpha1.AmbientEdge {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.written[key]
	if e == nil {
		return nil
	}
	e = e.DeepCopy()
	now := metav1.Now()
	e.DeletionTimestamp = &now
	controllerutil.AddFinalizer(e, v1alpha1.Finalizer)
	return e
}

// report writes the status, if it has changed, and tells what has happened.
func (r *reconciler) report(ctx context.Context, e *v1alpha1.AmbientEdge, p *plan.Plan) error {
	before := e.DeepCopy()
	next := p.Status(e)
	conditions := next.Conditions
	next.Conditions = before.DeepCopy().Status.Conditions
	for _, c := range conditions {
		c.LastTransitionTime = metav1.Time{}
		meta.SetStatusCondition(&next.Conditions, c)
	}
	e.Status = next
	if equality.Semantic.DeepEqual(before.Status, e.Status) {
		return nil
	}
	if err := r.client.Status().Patch(ctx, e, client.MergeFrom(before)); err != nil {
		return client.IgnoreNotFound(fmt.Errorf("write status: %w", err))
	}
	last := r.reports.before(before)
	r.reports.add(e)
	record(r.events, e, transitions(&last, &e.Status, p.Undoing)...)
	return nil
}

// requests asks for every edge: any of the watched objects may concern any.
func (r *reconciler) requests(ctx context.Context, _ client.Object) []reconcile.Request {
	var list v1alpha1.AmbientEdgeList
	if err := r.client.List(ctx, &list); err != nil {
		log.FromContext(ctx).Error(err, "list AmbientEdges")
		return nil
	}
	requests := make([]reconcile.Request, len(list.Items))
	for i := range list.Items {
		requests[i].NamespacedName = types.NamespacedName{Namespace: list.Items[i].Namespace, Name: list.Items[i].Name}
	}
	return requests
}
