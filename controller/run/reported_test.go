package run

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// status takes every status, as the API server does.
type status struct{ client.SubResourceWriter }

func (status) Patch(context.Context, client.Object, client.Patch, ...client.SubResourcePatchOption) error {
	return nil
}

func (s *server) Status() client.SubResourceWriter { return status{} }

// The namespace is labelled and reported on, and the cache still has the edge of before: the step must be told of, once.
func TestEventsDoNotDependOnTheCache(t *testing.T) {
	var got notes
	r := &reconciler{client: &server{}, events: &got}
	report := func(s *plan.Snapshot) {
		t.Helper()
		if _, err := r.report(t.Context(), s.Edge, plan.Make(s)); err != nil {
			t.Fatal(err)
		}
	}
	labelled := func() *plan.Snapshot {
		s := fresh()
		s.Namespaces[0].Labels = map[string]string{plan.LabelDataplaneMode: "ambient"}
		return s
	}
	enrolled := notes{"edge/public Normal StepDone Enrol [Namespace /edge] Enrol Namespace edge: it is labelled already, not by us"}

	report(fresh())
	report(labelled())
	if d := cmp.Diff(enrolled, got); d != "" {
		t.Errorf("the cache has no status yet: -want +got\n%s", d)
	}
	got = nil
	s := labelled()
	s.Edge.Status = plan.Make(fresh()).Status(s.Edge)
	report(s)
	if got != nil {
		t.Errorf("the cache has an older status: %q again", got)
	}

	made := labelled() // anew, under the same name
	made.Edge.UID = "another"
	report(made)
	if got != nil {
		t.Errorf("another edge of the same name: %q", got)
	}
	r.forget(client.ObjectKeyFromObject(made.Edge))
	if n := len(r.reports.last); n != 0 {
		t.Errorf("%d reports are kept for edges that are gone", n)
	}
}
