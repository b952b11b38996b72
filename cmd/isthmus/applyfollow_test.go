package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

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

func versioned(resourceVersion string) *v1alpha1.AmbientEdge {
	e := &v1alpha1.AmbientEdge{}
	e.Namespace, e.Name, e.ResourceVersion, e.Generation = "edge", "public", resourceVersion, 1
	return e
}

// TestFollowingAPlanThatWasAppliedBefore: applying it changes nothing, so that nobody has a reason to write the status again.
func TestFollowingAPlanThatWasAppliedBefore(t *testing.T) {
	some, none := &planDocument{Changes: make([]planChange, 1)}, &planDocument{}
	heldBack := func(e *v1alpha1.AmbientEdge) {
		e.Status.Plan.Steps = []v1alpha1.Step{{State: v1alpha1.StepDone}, {State: v1alpha1.StepHeld}}
	}
	changed := func(e *v1alpha1.AmbientEdge) {
		e.Status.Findings = []v1alpha1.Finding{{Code: v1alpha1.FindingPlanChanged, Message: "the plan has changed", Fix: "plan again"}}
	}
	for _, c := range []struct {
		name   string
		before *v1alpha1.AmbientEdge // when it was applied
		now    *planDocument
		status func(*v1alpha1.AmbientEdge) // of version 2, which was applied
		want   string
	}{
		{"applied before, and the rest is held back", versioned("2"), some, heldBack, "is held back"},
		{"applied before, and the plan has changed", versioned("2"), some, changed, "the plan has changed"},
		{"nothing is left to be written", versioned("1"), none, heldBack, "is held back"},
		{"a status of before it was approved", versioned("1"), some, heldBack, "is not ready after"},
		{"a finding of before it was approved", versioned("1"), some, changed, "is not ready after"},
		{"new", nil, some, heldBack, "is not ready after"},
	} {
		t.Run(c.name, func(t *testing.T) {
			applied := versioned("2")
			seen := applied.DeepCopy()
			seen.Status.ObservedGeneration = 1
			c.status(seen)
			var out bytes.Buffer
			a := &app{stdout: &out, getenv: func(string) string { return "" }}
			f := &applyFlags{timeout: 50 * time.Millisecond}
			err := a.follow(t.Context(), f, &edgeReader{edge: seen}, applied, outdates(c.before, applied, c.now), &applyDocument{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
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
		err := a.follow(c.ctx, f, &edgeReader{}, versioned("2"), true, &applyDocument{})
		if d := detail(err); !strings.Contains(d.Message, c.want) || !strings.HasSuffix(d.Next, " edge/public") {
			t.Errorf("got %+v, want %q", d, c.want)
		}
	}
}
