package run

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// reportEvery is how long progress within a step may wait to be told.
const reportEvery = time.Second

// reports remembers which status was written last for each edge. The zero value remembers none.
type reports struct {
	mu   sync.Mutex // guards the field below
	last map[types.NamespacedName]reported
}

// reported is a status that was written.
type reported struct {
	at      time.Time
	version string // of the AmbientEdge, with it
	uid     types.UID
	status  v1alpha1.AmbientEdgeStatus
}

// own says whether an object is an AmbientEdge as our own report has made it.
func (r *reports) own(o client.Object) bool {
	e, ok := o.(*v1alpha1.AmbientEdge)
	if !ok {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last[client.ObjectKeyFromObject(e)].version == e.ResourceVersion
}

// of is what was reported last for e, if e is older than that: the cache may lag behind.
func (r *reports) of(e *v1alpha1.AmbientEdge) (at time.Time, status *v1alpha1.AmbientEdgeStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last, ok := r.last[client.ObjectKeyFromObject(e)]
	if !ok || last.uid != e.UID {
		return time.Time{}, nil
	}
	if older(e.ResourceVersion, last.version) && time.Since(last.at) < stale {
		return last.at, last.status.DeepCopy()
	}
	return last.at, nil
}

// before is the status that was reported last, or the one of e where we have not reported on it. Whoever compares with an older one tells of a
// step twice, or of one that was done meanwhile never.
func (r *reports) before(e *v1alpha1.AmbientEdge) *v1alpha1.AmbientEdgeStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last, ok := r.last[client.ObjectKeyFromObject(e)]; ok && last.uid == e.UID {
		return last.status.DeepCopy()
	}
	return &e.Status
}

func (r *reports) add(e *v1alpha1.AmbientEdge) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil {
		r.last = map[types.NamespacedName]reported{}
	}
	r.last[client.ObjectKeyFromObject(e)] = reported{at: time.Now(), version: e.ResourceVersion, uid: e.UID, status: *e.Status.DeepCopy()}
}

func (r *reports) forget(e types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.last, e)
}

// older compares resource versions, which are numbers that grow. One that is none is not older.
func older(a, b string) bool {
	x, err1 := strconv.ParseUint(a, 10, 64)
	y, err2 := strconv.ParseUint(b, 10, 64)
	return err1 == nil && err2 == nil && x < y
}

// report writes the status, if it has changed, and tells what has happened. Where only a step goes on, the status waits until there is more to
// tell, and report says for how long at most.
func (r *reconciler) report(ctx context.Context, e *v1alpha1.AmbientEdge, p *plan.Plan) (wait time.Duration, err error) {
	r.metrics.note(e, p)
	at, newer := r.reports.of(e)
	if newer != nil {
		e.Status = *newer
	}
	before := e.DeepCopy()
	next := p.Status(e)
	conditions := next.Conditions
	next.Conditions = before.DeepCopy().Status.Conditions
	for _, c := range conditions {
		c.LastTransitionTime = metav1.Time{}
		meta.SetStatusCondition(&next.Conditions, c)
	}
	if equality.Semantic.DeepEqual(before.Status, next) {
		return 0, nil
	}
	if left := reportEvery - time.Since(at); left > 0 && !news(&before.Status, &next) {
		return left, nil
	}
	e.Status = next
	if err := r.client.Status().Patch(ctx, e, client.MergeFrom(before)); err != nil {
		return 0, client.IgnoreNotFound(fmt.Errorf("write status: %w", err))
	}
	last := r.reports.before(before)
	r.reports.add(e)
	record(r.events, e, transitions(last, &e.Status, p)...)
	return 0, nil
}

// news says whether a status tells more than that the same step goes on: of another spec or approval, other conditions, findings or steps, or of the step
// that is done.
func news(before, after *v1alpha1.AmbientEdgeStatus) bool {
	if before.ObservedGeneration != after.ObservedGeneration || before.Plan.Digest != after.Plan.Digest ||
		before.Plan.Approval != after.Plan.Approval || turnOf(before) != turnOf(after) ||
		len(before.Conditions) != len(after.Conditions) || len(before.Findings) != len(after.Findings) {
		return true
	}
	for i := range after.Conditions {
		if a, b := &before.Conditions[i], &after.Conditions[i]; a.Type != b.Type || a.Status != b.Status || a.Reason != b.Reason {
			return true
		}
	}
	for i := range after.Findings {
		if a, b := &before.Findings[i], &after.Findings[i]; a.Code != b.Code || a.Object != b.Object || a.Severity != b.Severity {
			return true
		}
	}
	return false
}

// turnOf is what the first step does that is left.
func turnOf(s *v1alpha1.AmbientEdgeStatus) string {
	for i := range s.Plan.Steps {
		if s.Plan.Steps[i].State != v1alpha1.StepDone {
			return s.Plan.Steps[i].Verb
		}
	}
	return ""
}
