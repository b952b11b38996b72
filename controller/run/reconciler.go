package run

import (
	"context"
	"errors"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
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
	soon   = 200 * time.Millisecond // something has been written, or is waited for: see pace.waits
	later  = 30 * time.Second       // all is well, or somebody has to act: watches tell of that
	unsaid = time.Second            // somebody has to act, and no watch tells of that
)

// reconciler brings AmbientEdges about.
type reconciler struct {
	client      client.Client
	live        client.Reader // without a cache
	trustDomain string
	aliases     []string // of the mesh's trust domain
	// rootNamespace is the mesh's; empty means istio-system.
	rootNamespace string
	observeOnly   bool
	events        recorder
	facts         facts
	trials        trials
	refusals      refusals
	fights        fights
	reports       reports
	concerns      concerns
	pace          pace
	metrics       metrics
	vendors       vendors // by the cache
	direct        vendors // without it

	mu      sync.Mutex // guards the fields below
	written map[types.NamespacedName]*v1alpha1.AmbientEdge
	opened  map[types.NamespacedName]time.Time // when something was taken away last of which others are to hear first
}

// Reconcile looks at an AmbientEdge, and does what is next.
func (r *reconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	since := r.pace.begin(req.NamespacedName)
	result, err := r.reconcile(ctx, req, since)
	if err == nil {
		since = time.Time{}
	}
	r.pace.end(req.NamespacedName, since)
	return result, err
}

func (r *reconciler) reconcile(ctx context.Context, req reconcile.Request, since time.Time) (reconcile.Result, error) {
	e := &v1alpha1.AmbientEdge{}
	if err := r.client.Get(ctx, req.NamespacedName, e); apierrors.IsNotFound(err) {
		if e = r.orphaned(req.NamespacedName); e == nil {
			r.forget(req.NamespacedName)
			return reconcile.Result{}, nil
		}
	} else if err != nil {
		return reconcile.Result{}, err
	} else if e.DeletionTimestamp != nil {
		r.letGo(req.NamespacedName)
	}
	if e.DeletionTimestamp != nil && !controllerutil.ContainsFinalizer(e, v1alpha1.Finalizer) {
		return reconcile.Result{}, nil // nothing was written for it
	}
	s, err := r.look(ctx, e)
	if err != nil {
		return reconcile.Result{}, err
	}
	p := r.plan(ctx, s)
	if p.Undoing && p.Done() {
		// The cache may not have what was written last, and what is forgotten now stays for ever.
		if s, err = observe(ctx, r.live, e, &r.direct, client.Limit(pageSize)); err != nil {
			return reconcile.Result{}, err
		}
		p = r.plan(ctx, s)
	}
	left := r.refusals.hold(e, p)
	if p.Undoing && p.Done() && !p.Wrong() && r.manages(e) {
		if err = r.finalize(ctx, e.DeepCopy(), p); err == nil {
			return reconcile.Result{}, nil
		}
	}
	var did outcome
	if err == nil {
		did, err = r.write(ctx, e, s, p)
	}
	if did.wrote {
		r.metrics.effect(since)
	}
	if f, is := stop(e, did.wrote, err); is { // of the AmbientEdge itself
		log.FromContext(ctx).Info("stopped", "reason", err.Error())
		did.pause = r.refusals.add(e, "", asked(e, p, nil), f)
		p.Stop(f)
		err = nil
	}
	wait, reportErr := r.report(ctx, e, p)
	if err := errors.Join(err, reportErr); err != nil {
		return reconcile.Result{}, err
	}
	r.refusals.keep(e, p)
	again, waits := later, r.pace.waits(req.NamespacedName, standing(e, p))
	switch {
	case did.wrote || did.waits:
		again = soon
	case p.Pending() && !p.Blocked() && r.manages(e):
		again = waits
	}
	if unanswered(s) && r.manages(e) { // be the plan blocked: no watch tells when one answers
		again = min(again, waits)
	}
	if s.Unable != "" {
		again = min(again, unsaid)
	}
	if p.Undoing && p.Wrong() {
		again = min(again, unsaid)
	}
	for _, pause := range []time.Duration{wait, left, did.pause} {
		if pause > 0 {
			again = min(again, pause)
		}
	}
	return reconcile.Result{RequeueAfter: again}, nil
}

// unanswered says whether a waypoint that was asked does not answer, or does not serve a Service.
func unanswered(s *plan.Snapshot) bool {
	silent := func(facts map[types.NamespacedName]plan.WaypointFact) bool {
		for _, f := range facts {
			if !f.Answers {
				return true
			}
		}
		return false
	}
	for _, f := range s.Shown {
		if !f.Answers && s.Unable == "" {
			return true
		}
	}
	return s.Unable == "" && (silent(s.Waypoints) || silent(s.Served))
}

// plan decides on what was observed, and on what is found out by asking.
func (r *reconciler) plan(ctx context.Context, s *plan.Snapshot) *plan.Plan {
	s.TrustDomain, s.TrustDomainAliases, s.RootNamespace, s.ObserveOnly = r.trustDomain, r.aliases, r.rootNamespace, r.observeOnly
	r.facts.ask(ctx, s)
	return plan.Make(s)
}

// forget an edge that is gone.
func (r *reconciler) forget(e types.NamespacedName) {
	r.facts.leave(e)
	r.trials.forget(e)
	r.refusals.forget(e)
	r.fights.forget(e)
	r.reports.forget(e)
	r.concerns.forget(e)
	r.pace.forget(e)
	r.metrics.forget(e)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.written, e)
	delete(r.opened, e)
}

func (r *reconciler) manages(e *v1alpha1.AmbientEdge) bool {
	return !r.observeOnly && (e.Spec.Mode == v1alpha1.ModeManage || e.DeletionTimestamp != nil)
}

// finalize lets the AmbientEdge go, whose undo is done, and tells of its last steps.
func (r *reconciler) finalize(ctx context.Context, e *v1alpha1.AmbientEdge, p *plan.Plan) error {
	before := e.DeepCopy()
	controllerutil.RemoveFinalizer(e, v1alpha1.Finalizer)
	err := r.client.Patch(ctx, e, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	if err = client.IgnoreNotFound(err); err != nil {
		return apply.Explain("remove the finalizer of", "AmbientEdge "+client.ObjectKeyFromObject(e).String(), err)
	}
	last, now := r.reports.before(e), p.Status(e)
	record(r.events, e, stepsDone(last.Plan.Steps, now.Plan.Steps, p)...)
	if e.Spec.OnDelete == v1alpha1.OnDeleteKeep {
		record(r.events, e, kept())
	} else {
		record(r.events, e, undone())
	}
	r.forget(client.ObjectKeyFromObject(e))
	return nil
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

// remembers says whether e was remembered: the cache may not show its finalizer yet.
func (r *reconciler) remembers(e *v1alpha1.AmbientEdge) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.written[client.ObjectKeyFromObject(e)]
	return was != nil && was.UID == e.UID
}

// letGo forgets what was written for an edge whose deletion was seen: undo hangs on its finalizer from now on, and whoever takes that off by
// hand has decided that the rest stays.
func (r *reconciler) letGo(key types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.written, key)
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
