package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// edgeReader has one AmbientEdge, or is away as long as somebody waits for it.
type edgeReader struct {
	client.Reader
	edge *v1alpha1.AmbientEdge // nil: away
}

func (r *edgeReader) Get(ctx context.Context, _ client.ObjectKey, o client.Object, _ ...client.GetOption) error {
	e, is := o.(*v1alpha1.AmbientEdge)
	if !is || r.edge == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	r.edge.DeepCopyInto(e)
	return nil
}

func (*edgeReader) List(context.Context, client.ObjectList, ...client.ListOption) error {
	return errors.New("nobody may list")
}

// approved is an AmbientEdge with an approval, which a status may be about.
func approved(digest string) *v1alpha1.AmbientEdge {
	e := &v1alpha1.AmbientEdge{}
	e.Namespace, e.Name, e.Generation = "edge", "public", 2
	if digest != "" {
		e.Annotations = map[string]string{v1alpha1.AnnotationPlan: digest + ":1,2"}
	}
	return e
}

// TestFollowingTakesNoStatusOfBefore: not one of another spec, nor one of before the approval, whatever else was written to the AmbientEdge since. Of one that
// was approved before the status counts at once: nobody has a reason to write it again.
func TestFollowingTakesNoStatusOfBefore(t *testing.T) {
	ready := func(e *v1alpha1.AmbientEdge) {
		e.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue}}
	}
	heldBack := func(e *v1alpha1.AmbientEdge) {
		e.Status.Plan.Steps = []v1alpha1.Step{{State: v1alpha1.StepDone}, {State: v1alpha1.StepHeld}}
	}
	changed := func(e *v1alpha1.AmbientEdge) {
		e.Status.Findings = []v1alpha1.Finding{{Code: v1alpha1.FindingPlanChanged, Message: "the plan has changed", Fix: "plan again"}}
	}
	for _, c := range []struct {
		name       string
		approval   string // that the AmbientEdge has
		generation int64  // that the status is about
		of         string // the approval that it is about
		status     func(*v1alpha1.AmbientEdge)
		want       string // empty: no error
	}{
		{"the rest is held back", "new", 2, "new", heldBack, "is held back"},
		{"the plan has changed", "new", 2, "new", changed, "the plan has changed"},
		{"it is ready", "new", 2, "new", ready, ""},
		{"held back before it was approved", "new", 2, "", heldBack, "is not ready after"},
		{"a finding about an approval of before", "new", 2, "old", changed, "is not ready after"},
		{"ready by an approval of before", "new", 2, "old", ready, "is not ready after"},
		{"ready before it was approved", "new", 2, "", ready, "is not ready after"},
		{"ready with another spec", "new", 1, "new", ready, "is not ready after"},
		{"the approval was taken away", "", 2, "", ready, "does not have the approval any more"},
		{"another plan was approved", "other", 2, "other", ready, "does not have the approval any more"},
	} {
		t.Run(c.name, func(t *testing.T) {
			seen := approved(c.approval)
			seen.ResourceVersion = "9" // the controller has added its finalizer, say
			c.status(seen)
			seen.Status.ObservedGeneration, seen.Status.Plan.Approval = c.generation, c.of
			var out bytes.Buffer
			a := &app{stdout: &out, getenv: func(string) string { return "" }}
			f := &applyFlags{timeout: 50 * time.Millisecond}
			doc := &applyDocument{Approval: "new"}
			err := a.follow(t.Context(), f, &edgeReader{edge: seen}, approved("new"), doc)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if err != nil {
				told := c.want == "is not ready after" && c.of != "new" && len(seen.Status.Conditions) > 0
				if where := detail(err).Where; strings.Contains(where, "not about this approval") != told {
					t.Errorf("where is %q", where)
				}
			}
			if doc.Ready != (c.want == "") {
				t.Errorf("it is said to be ready: %t", doc.Ready)
			}
		})
	}
}

func TestAnAmbientEdgeThatWasNeverSeenIsNamed(t *testing.T) {
	var out bytes.Buffer
	a := &app{stdout: &out, getenv: func(string) string { return "" }}
	f := &applyFlags{timeout: 10 * time.Millisecond}
	ended, end := context.WithCancel(t.Context())
	end()
	for _, c := range []struct {
		ctx  context.Context
		want string
	}{{t.Context(), "AmbientEdge edge/public is not ready"}, {ended, "stopped waiting"}} {
		err := a.follow(c.ctx, f, &edgeReader{}, approved("new"), &applyDocument{Approval: "new"})
		if d := detail(err); !strings.Contains(d.Message, c.want) || !strings.HasSuffix(d.Next, " edge/public") {
			t.Errorf("got %+v, want %q", d, c.want)
		}
	}
}
