package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// followEvery is how often the AmbientEdge is looked at.
const followEvery = 200 * time.Millisecond

// follow tells of the steps as they are done, until the AmbientEdge is ready. applied is what was written. A status counts that is about its spec, and about
// the approval of doc: whatever else has changed the AmbientEdge since, as the controller does with its finalizer, one of before the approval does not.
func (a *app) follow(ctx context.Context, f *applyFlags, c client.Reader, applied *v1alpha1.AmbientEdge, doc *applyDocument) error {
	begin := time.Now()
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	key := client.ObjectKeyFromObject(applied)
	told := map[string]bool{}
	e := applied.DeepCopy()
	var last error
	for {
		next := &v1alpha1.AmbientEdge{}
		last = c.Get(ctx, key, next)
		switch {
		case apierrors.IsNotFound(last):
			return &failure{what: "AmbientEdge " + key.String() + " was deleted", next: "plan again"}
		case apierrors.IsForbidden(last):
			return explainApply("AmbientEdge "+key.String()+" is applied, and cannot be followed", last)
		case last == nil:
			e = next
			doc.Status = &e.Status
			if plan.ApprovedAs(e) != doc.Approval {
				return &failure{
					what: "AmbientEdge " + key.String() + " does not have the approval any more: somebody has taken it away, or approved another plan",
					next: "isthmus status " + key.String() + " says what is done; plan again",
				}
			}
			fresh := e.Status.ObservedGeneration == e.Generation && e.Status.Plan.Approval == doc.Approval
			if fresh {
				a.tellSteps(e, told, begin)
			}
			if s := newEdgeStatus(e); fresh && s.Ready {
				doc.Ready = true
				a.say("Ready after %s.\n", seconds(time.Since(begin)))
				return nil
			}
			if held := heldBack(e); fresh && held != nil {
				return held
			}
			if fresh && onlyHeld(e) {
				return &failure{
					what: "what was approved is done; what is left of AmbientEdge " + key.String() + " is held back", next: "isthmus status " + key.String() + " says by what; mend it, plan again, and apply that plan",
				}
			}
		}
		select {
		case <-ctx.Done():
			return a.notReady(outer, f, c, e, last, doc.Approval)
		case <-time.After(followEvery):
		}
	}
}

// tellSteps tells of steps that are done, and were not told.
func (a *app) tellSteps(e *v1alpha1.AmbientEdge, told map[string]bool, begin time.Time) {
	for _, s := range e.Status.Plan.Steps {
		if s.State == v1alpha1.StepDone && !told[s.ID] {
			told[s.ID] = true
			a.say("%7s  %-8s %s  %s\n", seconds(time.Since(begin)), s.Verb, s.Object, oneLine(s.Reason))
		}
	}
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// heldBack is the error of a plan that has changed since it was approved, or nil.
func heldBack(e *v1alpha1.AmbientEdge) error {
	for _, f := range e.Status.Findings {
		if f.Code == v1alpha1.FindingPlanChanged {
			return &failure{what: f.Message, where: "AmbientEdge " + e.Namespace + "/" + e.Name, next: f.Fix}
		}
	}
	return nil
}

// onlyHeld says whether nothing is left to be done, or waited for, but what findings about single backends hold back.
func onlyHeld(e *v1alpha1.AmbientEdge) bool {
	held := false
	for _, s := range e.Status.Plan.Steps {
		switch s.State {
		case v1alpha1.StepDone:
		case v1alpha1.StepHeld:
			held = true
		default:
			return false
		}
	}
	return held
}

// notReady says why it did not get ready in time.
func (a *app) notReady(outer context.Context, f *applyFlags, c client.Reader, e *v1alpha1.AmbientEdge, last error, approval string) error {
	if err := outer.Err(); err != nil {
		return &failure{what: "stopped waiting; the controller goes on", next: "isthmus status " + e.Namespace + "/" + e.Name}
	}
	if last != nil && !errors.Is(last, context.DeadlineExceeded) {
		return explainApply("the AmbientEdge is applied, and cannot be followed", last)
	}
	s := newEdgeStatus(e)
	_, why := s.ready()
	if s.Current && !s.unseen() && e.Status.Plan.Approval != approval {
		why = "its status is not about this approval; a controller, or a CRD, of before approvals were told there never says so: upgrade both"
	}
	fail := &failure{what: fmt.Sprintf("AmbientEdge %s/%s is not ready after %s", e.Namespace, e.Name, f.timeout), where: why, next: "isthmus status " + e.Namespace + "/" + e.Name}
	ctx, cancel := context.WithTimeout(outer, f.kube.timeout)
	defer cancel()
	if idle := idleController(ctx, c, time.Now()); idle != "" {
		fail.err = errors.New(idle)
	}
	if a.output == outputJSON {
		return fail
	}
	return errors.Join(a.page(a.stdout).findings(e.Status.Findings, int(e.Status.FindingsLeftOut)), fail)
}
