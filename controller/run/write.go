package run

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/apply"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// write carries out what the plan writes now, and says whether it wrote. Before the first write all are tried, and later on those that are
// new; trials says which. The finalizer comes next, so that nothing is written that would stay. What was written already and is not seen yet is
// not written again. Undo tries nothing: its writes do not need each other, and each leaves what works without the rest, so that one which
// is refused keeps none from being made.
func (r *reconciler) write(ctx context.Context, e *v1alpha1.AmbientEdge, s *plan.Snapshot, p *plan.Plan) (did outcome, err error) {
	key := client.ObjectKeyFromObject(e)
	writes := p.Writes()
	if len(writes) == 0 || !r.manages(e) {
		if p.Done() || p.Blocked() || !r.manages(e) {
			r.trials.forget(key)
		}
		return outcome{}, nil
	}
	all := len(writes)
	if writes, err = r.fights.left(e, s, writes); err != nil {
		return outcome{}, err
	}
	did.waits = len(writes) < all
	if len(writes) == 0 {
		return did, nil
	}
	if r.opening(key) {
		did.waits = true
		return did, nil
	}
	defer func() {
		if did.wrote && slices.ContainsFunc(writes, unlocks) {
			r.open(key)
		}
	}()
	if p.Undoing {
		did.wrote, err = r.takeBack(ctx, e, writes)
		return did, err
	}
	if err := r.trials.all(ctx, direct{r.client, r.live}, e, p); err != nil {
		return did, err
	}
	if !controllerutil.ContainsFinalizer(e, v1alpha1.Finalizer) {
		next := e.DeepCopy()
		controllerutil.AddFinalizer(next, v1alpha1.Finalizer)
		if err := r.client.Patch(ctx, next, client.MergeFromWithOptions(e.DeepCopy(), client.MergeFromWithOptimisticLock{})); err != nil {
			return did, apply.Explain("add a finalizer to", "AmbientEdge "+key.String(), err)
		}
		next.DeepCopyInto(e)
	}
	r.remember(e)
	did.wrote, err = r.carry(ctx, e, writes)
	return did, err
}

// heard is how long istiod and ztunnels may take to hear that a lock is gone. Nobody tells when they have: a Service that leads to its pods before would
// be denied there for a moment.
const heard = 2 * time.Second

// unlocks says whether a write takes a lock away.
func unlocks(w *plan.Write) bool { return w.Delete && w.Kind == "AuthorizationPolicy" }

// open notes that a lock was taken away.
func (r *reconciler) open(key types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.opened == nil {
		r.opened = map[types.NamespacedName]time.Time{}
	}
	r.opened[key] = time.Now()
}

// opening says whether that was so short ago that nothing else is to be taken away yet.
func (r *reconciler) opening(key types.NamespacedName) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Since(r.opened[key]) < heard
}

// outcome of write.
type outcome struct {
	wrote bool
	waits bool // for the cache to show what was written before
}

// carry makes writes in order, those of independent Services together, and says whether it made any.
func (r *reconciler) carry(ctx context.Context, e *v1alpha1.AmbientEdge, writes []*plan.Write) (bool, error) {
	var wrote atomic.Bool
	for _, batch := range batches(writes) {
		err := each(len(batch), atOnce, func(i int) error {
			w := batch[i]
			log.FromContext(ctx).Info("write", "object", w.String(), "delete", w.Delete, "fields", w.Fields)
			version, err := apply.Do(ctx, direct{r.client, r.live}, e, w)
			if err != nil {
				return err
			}
			wrote.Store(true)
			d, err := digestOf(w)
			if err == nil && version != "" {
				r.fights.add(e, d, version)
			}
			return err
		})
		if err != nil {
			r.trials.forget(client.ObjectKeyFromObject(e))
			return wrote.Load(), err
		}
	}
	return wrote.Load(), nil
}

// batches cuts writes into those that may be made together: Services do not wait for each other, as the plan has it (see plan.Step). Objects
// of all other kinds are written one by one.
func batches(writes []*plan.Write) [][]*plan.Write {
	var list [][]*plan.Write
	for i, w := range writes {
		if i > 0 && w.Kind == "Service" && writes[i-1].Kind == "Service" {
			list[len(list)-1] = append(list[len(list)-1], w)
		} else {
			list = append(list, []*plan.Write{w})
		}
	}
	return list
}

// takeBack makes the writes of undo that the API server lets through, and says whether it made any. Of several errors it returns the first that
// somebody has to do something about.
func (r *reconciler) takeBack(ctx context.Context, e *v1alpha1.AmbientEdge, writes []*plan.Write) (bool, error) {
	errs := make([]error, len(writes))
	done := 0
	for _, batch := range batches(writes) {
		_ = each(len(batch), atOnce, func(i int) error {
			w := batch[i]
			log.FromContext(ctx).Info("take back", "object", w.String(), "delete", w.Delete, "fields", w.Fields, "release", w.Release)
			_, errs[done+i] = apply.Do(ctx, direct{r.client, r.live}, e, w)
			return nil // the others are made all the same
		})
		done += len(batch)
	}
	wrote := slices.Contains(errs, nil)
	for _, err := range errs {
		if _, told := stop(e, wrote, err); err != nil && told {
			return wrote, err
		}
	}
	return wrote, errors.Join(errs...)
}

// stop is the finding for an error of a write that somebody has to do something about, if it is one.
func stop(e *v1alpha1.AmbientEdge, wrote bool, err error) (v1alpha1.Finding, bool) {
	if conflict, ok := errors.AsType[*apply.ConflictError](err); ok {
		return v1alpha1.Finding{
			Code: v1alpha1.FindingForeignValue, Severity: v1alpha1.SeverityError, Object: conflict.Object, Message: conflict.Error(),
			Fix: "remove it there, or let its manager set the same value",
		}, true
	}
	if lost, ok := errors.AsType[*lostError](err); ok {
		return lost.finding(), true
	}
	refused, ok := errors.AsType[*apply.RefusedError](err)
	if !ok {
		return v1alpha1.Finding{}, false
	}
	f := v1alpha1.Finding{Code: v1alpha1.FindingRefused, Severity: v1alpha1.SeverityError, Object: refused.Object}
	done, instead := "nothing was written", "set spec.mode to Observe"
	switch {
	case e.DeletionTimestamp != nil && e.Spec.OnDelete == v1alpha1.OnDeleteKeep:
		done, instead = "what is not released yet stays marked as of this AmbientEdge", "take finalizer "+v1alpha1.Finalizer+" from it to leave it so"
	case e.DeletionTimestamp != nil:
		done, instead = "what is not taken back yet stays until then", "set spec.onDelete to Keep to leave all as it is"
	case wrote || controllerutil.ContainsFinalizer(e, v1alpha1.Finalizer):
		done, instead = "what was written before stays, and goes with the AmbientEdge", "delete the AmbientEdge to take all back"
	}
	f.Message = fmt.Sprintf("%v; %s", err, done)
	f.Fix = "change what refuses it, an admission policy, webhook or quota that is named here; or " + instead
	if name := refused.Webhook(); name != "" {
		f.Fix = fmt.Sprintf("bring webhook %s back: its Service and what it is for are in kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations -o yaml; or %s", name, instead)
	} else if refused.Rights() {
		f.Fix = "give the account that is named here the ClusterRole isthmus-manage, as manifests/install/bindings.yaml does; or " + instead
	} else if _, later := errors.AsType[*laterError](err); later {
		f.Fix += fmt.Sprintf("; or, if it passes when the steps before are done: kubectl annotate ambientedge -n %s %s %s=%s", e.Namespace, e.Name, v1alpha1.AnnotationBegin, v1alpha1.BeginConfirmed)
	}
	return f, true
}
