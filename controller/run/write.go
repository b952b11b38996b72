package run

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
// new; trials says which. The finalizer comes next, so that nothing is written that would stay; where something stands already, of an AmbientEdge of the
// same name before, it comes at once, whether there is something to write or not. What was written already and is not seen yet is
// not written again. Undo tries nothing: its writes leave what works without the rest. What somebody has to do something about is held back in the plan,
// with what depends on it, and the rest is written.
func (r *reconciler) write(ctx context.Context, e *v1alpha1.AmbientEdge, s *plan.Snapshot, p *plan.Plan) (did outcome, err error) {
	key := client.ObjectKeyFromObject(e)
	if r.manages(e) && !p.Undoing && !controllerutil.ContainsFinalizer(e, v1alpha1.Finalizer) && !r.remembers(e) && plan.Stands(s) {
		if err := r.own(ctx, e); err != nil {
			return outcome{}, err
		}
	}
	writes := p.Writes()
	if len(writes) == 0 || !r.manages(e) {
		if p.Done() || p.Blocked() || !r.manages(e) {
			r.trials.forget(key)
		}
		return outcome{}, nil
	}
	all := len(writes)
	hold := func(w *plan.Write, err error) { r.hold(ctx, e, p, w, err, &did) }
	if writes, err = r.fights.left(e, s, writes, hold); err != nil {
		return outcome{}, err
	}
	did.waits = len(writes)+did.held < all
	if writes = still(p, writes); len(writes) == 0 {
		return did, nil
	}
	if r.opening(key) {
		did.waits = true
		return did, nil
	}
	slow := slices.ContainsFunc(writes, func(w *plan.Write) bool { return unlocks(w) || p.Unswitches(w) || w.Kind == "Service" && p.Unpairs() })
	defer func() {
		if did.wrote && slow {
			r.open(key)
		}
	}()
	if p.Undoing {
		did.wrote, err = r.carry(ctx, e, p, writes, "take back", hold)
		return did, err
	}
	if err := r.trials.all(ctx, direct{r.client, r.live}, e, p, hold); err != nil {
		return did, err
	}
	if writes = still(p, writes); len(writes) == 0 {
		return did, nil
	}
	if err := r.own(ctx, e); err != nil {
		return did, err
	}
	held := did.held
	did.wrote, err = r.carry(ctx, e, p, writes, "write", hold)
	if err != nil || did.held > held {
		r.trials.forget(key)
	}
	return did, err
}

// own sees that e has the finalizer, by which it is undone.
func (r *reconciler) own(ctx context.Context, e *v1alpha1.AmbientEdge) error {
	if !controllerutil.ContainsFinalizer(e, v1alpha1.Finalizer) {
		next := e.DeepCopy()
		controllerutil.AddFinalizer(next, v1alpha1.Finalizer)
		if err := r.client.Patch(ctx, next, client.MergeFromWithOptions(e.DeepCopy(), client.MergeFromWithOptimisticLock{})); err != nil {
			return apply.Explain("add a finalizer to", "AmbientEdge "+client.ObjectKeyFromObject(e).String(), err)
		}
		next.DeepCopyInto(e)
	}
	r.remember(e)
	return nil
}

// still are the writes that the plan has yet, when some were held back.
func still(p *plan.Plan, writes []*plan.Write) []*plan.Write {
	left := p.Writes()
	return slices.DeleteFunc(slices.Clone(writes), func(w *plan.Write) bool { return !slices.Contains(left, w) })
}

// hold has a plan hold back what an error of a write is about, and remembers it.
func (r *reconciler) hold(ctx context.Context, e *v1alpha1.AmbientEdge, p *plan.Plan, w *plan.Write, err error, did *outcome) {
	f, _ := stop(e, did.wrote, err)
	if f.Code == v1alpha1.FindingRefused && p.Apart(w) && !p.Alone(w) {
		f.Message = err.Error() + "; what depends on it waits, and the others go on"
	}
	log.FromContext(ctx).Info("held back", "object", w.String(), "reason", err.Error())
	pause := r.refusals.add(e, w.String(), asked(e, p, w), f)
	if did.held++; did.pause == 0 || pause < did.pause {
		did.pause = pause
	}
	p.Hold(w, f)
}

// heard is how long istiod and ztunnels may take to hear that a lock is gone. Nobody tells when they have: a Service that leads to its pods before would
// be denied there for a moment. So it is with a Service that is led to its pods again: what its waypoint enforces for us stays until all have heard. And so it
// is with gateways whose switch was taken away: while they send to a Service's address they come by its waypoint, which may hear before ztunnels that it is
// none any more, and answers 503 then.
const heard = 2 * time.Second

// unlocks says whether a write takes a lock away.
func unlocks(w *plan.Write) bool { return w.Delete && w.Kind == "AuthorizationPolicy" }

// open notes that a lock was taken away, or something else of which others are to hear.
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
	waits bool          // for the cache to show what was written before
	held  int           // writes that were refused, or are not made any more
	pause time.Duration // until the first of those may be tried again; zero: there is none
}

// carry makes writes in order, those of independent Services together, and says whether it made any. One that fails keeps only those from being made that
// depend on it. What somebody has to do something about is handed to refused.
func (r *reconciler) carry(ctx context.Context, e *v1alpha1.AmbientEdge, p *plan.Plan, writes []*plan.Write, how string, refused func(*plan.Write, error)) (wrote bool, err error) {
	var failed []error
	for _, batch := range batches(writes) {
		batch = still(p, batch)
		errs := make([]error, len(batch))
		_ = each(len(batch), atOnce, func(i int) error {
			errs[i] = r.carryOne(ctx, e, p, batch[i], how)
			return nil // the others are made all the same
		})
		wrote = wrote || slices.Contains(errs, nil)
		for i, err := range errs {
			if _, told := stop(e, wrote, err); told {
				refused(batch[i], err)
			} else if err != nil {
				failed = append(failed, err)
				if !p.Undoing && !p.Apart(batch[i]) {
					return wrote, errors.Join(failed...)
				}
			}
		}
	}
	return wrote, errors.Join(failed...)
}

func (r *reconciler) carryOne(ctx context.Context, e *v1alpha1.AmbientEdge, p *plan.Plan, w *plan.Write, how string) error {
	log.FromContext(ctx).Info(how, "object", w.String(), "delete", w.Delete, "fields", w.Fields, "release", w.Release)
	version, err := apply.Do(ctx, direct{r.client, r.live}, e, w)
	if err != nil || version == "" || p.Undoing {
		return err
	}
	d, err := digestOf(w)
	if err == nil {
		r.fights.add(e, d, version)
	}
	return err
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
