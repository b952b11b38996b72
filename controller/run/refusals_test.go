package run

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// refusedAt is a finding that an object was refused.
func refusedAt(object string) v1alpha1.Finding {
	return v1alpha1.Finding{Code: v1alpha1.FindingRefused, Severity: v1alpha1.SeverityError, Object: object}
}

// of is the write to an object in a plan.
func of(t *testing.T, p *plan.Plan, object string) *plan.Write {
	t.Helper()
	for _, w := range p.Ahead() {
		if w.String() == object {
			return w
		}
	}
	t.Fatalf("nothing is written to %s", object)
	return nil
}

const stockService = "Service shop/stock"

// heldIn says whether a refusal still stands in a new plan, and for how long.
func heldIn(r *refusals, s *plan.Snapshot) (*plan.Plan, time.Duration) {
	p := plan.Make(s)
	return p, r.hold(s.Edge, p)
}

func TestARefusalIsAskedAboutLessAndLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r refusals
		s := fresh()
		p := plan.Make(s)
		f := refusedAt(stockService)
		if _, left := heldIn(&r, s); left > 0 {
			t.Error("nothing was refused, and it is held back")
		}
		question := asked(s.Edge, p, of(t, p, stockService))
		for _, want := range []int{2, 4, 8, 16, 32, 60, 60} {
			pause := r.add(s.Edge, stockService, question, f)
			if pause != time.Duration(want)*time.Second {
				t.Errorf("the pause is %v, want %d s", pause, want)
			}
			time.Sleep(pause - time.Second)
			if p, left := heldIn(&r, s); left != time.Second || !p.Says(f) || !p.HeldBack(f) {
				t.Errorf("a second before its end: %+v, %v", p.Findings, left)
			}
			time.Sleep(time.Second)
			if p, left := heldIn(&r, s); left > 0 || p.Wrong() {
				t.Error("it is held back after the pause")
			}
		}
		if pause := r.add(s.Edge, "Service shop/orders", question, refusedAt("Service shop/orders")); pause != firstPause {
			t.Errorf("another object is refused, and the pause is %v", pause)
		}
		p.Hold(of(t, p, stockService), f)
		if r.keep(s.Edge, p); len(r.last[client.ObjectKeyFromObject(s.Edge)]) != 1 {
			t.Errorf("what went well is kept, or what was refused is not: %v", r.last)
		}
		r.forget(client.ObjectKeyFromObject(s.Edge))
		if _, left := heldIn(&r, s); left > 0 {
			t.Error("it was forgotten, and is held back")
		}
		if pause := r.add(s.Edge, stockService, question, f); pause != firstPause {
			t.Errorf("after it went well the pause is %v", pause)
		}
	})
}

// TestWhatWasChangedIsAskedAtOnce: of a Service by a change of what is asked of it, of the edge by any.
func TestWhatWasChangedIsAskedAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		change func(s *plan.Snapshot)
		stays  string // for which object
	}{
		"the spec":       {func(s *plan.Snapshot) { s.Edge.Generation++ }, ""},
		"an annotation":  {func(s *plan.Snapshot) { s.Edge.Annotations = map[string]string{"try": "again"} }, ""},
		"what is to do":  {more, stockService},
		"it is deleted":  {func(s *plan.Snapshot) { now := metav1.Now(); s.Edge.DeletionTimestamp = &now }, ""},
		"another object": {func(s *plan.Snapshot) { s.Edge.UID = "another" }, ""},
	} {
		for _, object := range []string{stockService, "Namespace edge", ""} {
			t.Run(name+" "+object, func(t *testing.T) {
				var r refusals
				s := fresh()
				p := plan.Make(s)
				var w *plan.Write
				if object != "" {
					w = of(t, p, object)
				}
				r.add(s.Edge, object, asked(s.Edge, p, w), refusedAt(object))
				if p, left := heldIn(&r, s); left == 0 || !p.Wrong() || p.Blocked() != (object != stockService) {
					t.Fatal("the same is not held back, or more than it")
				}
				c.change(s)
				if p, left := heldIn(&r, s); (left > 0) != (c.stays == object && object != "") || p.Wrong() != (left > 0) {
					t.Errorf("it is held back for %v: %+v", left, p.Findings)
				}
			})
		}
	}
}

// cluster is a server that has the objects of a snapshot too, and takes statuses.
type cluster struct {
	*server
	*reader
	statuses int
}

// newCluster has the objects of fresh, and what refuses writes.
func newCluster(t *testing.T, answers map[string]error) *cluster {
	t.Helper()
	return &cluster{server: &server{answers: answers}, reader: newReader(t, fresh())}
}

func (c *cluster) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	return c.reader.Get(ctx, key, o, opts...)
}

func (c *cluster) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	return c.reader.List(ctx, list, opts...)
}

func (c *cluster) Status() client.SubResourceWriter { return statusWriter{c: c} }

type statusWriter struct {
	client.SubResourceWriter
	c *cluster
}

func (w statusWriter) Patch(_ context.Context, o client.Object, _ client.Patch, _ ...client.SubResourcePatchOption) error {
	w.c.statuses++
	e := o.(*v1alpha1.AmbientEdge)
	if n, err := strconv.Atoi(w.c.s.Edge.ResourceVersion); err == nil {
		e.ResourceVersion = strconv.Itoa(n + 1)
	}
	e.DeepCopyInto(w.c.s.Edge)
	return nil
}

// silent is a Prober that nobody answers.
type silent struct{}

func (silent) Answers(context.Context, netip.AddrPort, []spiffeid.ID, string) error {
	return errors.New("nobody answers")
}

func (silent) Serves(context.Context, netip.AddrPort, []spiffeid.ID, string, []byte) error {
	return errors.New("nobody answers")
}

// TestARefusedTrialIsNotRepeatedAllTheTime lets the cluster stir every second beside what the controller asks for itself.
func TestARefusedTrialIsNotRepeatedAllTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newCluster(t, map[string]error{"apply stock": denied})
		var told notes
		r := &reconciler{client: api, live: api, events: &told, facts: facts{prober: silent{}}}
		look := func() time.Duration {
			t.Helper()
			res, err := r.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(api.s.Edge)})
			if err != nil {
				t.Fatal(err)
			}
			return res.RequeueAfter
		}
		tried := 0
		for begin := time.Now(); time.Since(begin) < 5*time.Minute; time.Sleep(time.Second) {
			wait := look()
			if wait <= 0 || wait > lastPause {
				t.Fatalf("the next look is in %v", wait)
			}
			if slices.Contains(api.did(), "try apply stock") {
				tried++
			}
			if f := api.s.Edge.Status.Findings; len(f) != 1 || f[0].Code != v1alpha1.FindingRefused {
				t.Fatalf("findings are %+v", f)
			}
		}
		if tried < 5 || tried > 10 { // after 0, 2, 6, 14, 30, 62, 122, 182 and 242 s
			t.Errorf("it was tried %d times in five minutes", tried)
		}
		if len(told) != 1 || api.statuses != 2 { // what helps is another thing when something was written
			t.Errorf("%d statuses were written, and %q told", api.statuses, told)
		}
		api.answers = nil
		api.s.Edge.Annotations = map[string]string{"look": "now"}
		if look(); len(api.did()) == 0 {
			t.Error("the AmbientEdge was changed, and nothing is tried")
		}
	})
}
