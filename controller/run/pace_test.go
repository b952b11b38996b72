package run

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// willing is a Prober that everybody answers.
type willing struct{}

func (willing) Answers(context.Context, netip.AddrPort, []spiffeid.ID, string) error { return nil }

func (willing) Serves(context.Context, netip.AddrPort, []spiffeid.ID, string, []byte) error {
	return nil
}

// TestWhatWaitsForOthersIsLookedAtLess: a waypoint that stays silent, and a policy that its vendor rejects, are waited for as long as it takes.
func TestWhatWaitsForOthersIsLookedAtLess(t *testing.T) {
	all := cases(t)
	for name, prober := range map[string]Prober{"waypoint-does-not-answer": silent{}, "tenant-with-a-silent-waypoint": silent{}, "envoy-gateway-trap-not-accepted": willing{},
		"enrolment-would-lead-to-a-silent-waypoint-that-is-not-asked-for": silent{},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := all[name]
				s.Edge.ResourceVersion = "1"
				api := &cluster{server: &server{}, reader: newReader(t, s)}
				var told notes
				r := &reconciler{client: api, live: api, events: &told, facts: facts{prober: prober}}
				looks := func(span time.Duration) (n int) {
					t.Helper()
					for end := time.Now().Add(span); time.Now().Before(end); n++ {
						res, err := r.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(s.Edge)})
						if err != nil {
							t.Fatal(err)
						}
						time.Sleep(res.RequeueAfter)
					}
					return n
				}
				if n := looks(patience); n < 45 {
					t.Errorf("in the beginning it is looked at %d times in %v", n, patience)
				}
				if n := looks(10 * time.Minute); n < 100 || n > 125 {
					t.Errorf("later on it is looked at %d times in ten minutes", n)
				}
				if len(s.Edge.Status.Findings) == 0 {
					t.Error("nothing is found: this test is about nothing")
				}
				s.Edge.Generation++
				if n := looks(patience); n < 45 {
					t.Errorf("with another spec it is looked at %d times in %v", n, patience)
				}
			})
		})
	}
}

// TestHowAPlanStands: what is told in other words is the same, what is done is not.
func TestHowAPlanStands(t *testing.T) {
	of := func(change func(*plan.Plan, *v1alpha1.AmbientEdge)) digest {
		e, p := &v1alpha1.AmbientEdge{}, progress(1)
		p.Steps[1].Reason = "it does not answer: connection refused"
		p.Findings = []v1alpha1.Finding{{Code: v1alpha1.FindingWaypointSilent, Severity: v1alpha1.SeverityWarning, Object: "Gateway shop/waypoint", Message: "connection refused"}}
		change(p, e)
		return standing(e, p)
	}
	was := of(func(*plan.Plan, *v1alpha1.AmbientEdge) {})
	for name, c := range map[string]struct {
		same   bool
		change func(*plan.Plan, *v1alpha1.AmbientEdge)
	}{
		"another error":    {true, func(p *plan.Plan, _ *v1alpha1.AmbientEdge) { p.Steps[1].Reason = "it does not answer: timeout" }},
		"another message":  {true, func(p *plan.Plan, _ *v1alpha1.AmbientEdge) { p.Findings[0].Message = "timeout" }},
		"another reason":   {false, func(p *plan.Plan, _ *v1alpha1.AmbientEdge) { p.Steps[1].Reason = "it answers" }},
		"a step is done":   {false, func(p *plan.Plan, _ *v1alpha1.AmbientEdge) { p.Steps[1].State = v1alpha1.StepDone }},
		"a step is new":    {false, func(p *plan.Plan, _ *v1alpha1.AmbientEdge) { p.Steps = append(p.Steps, plan.Step{}) }},
		"a finding ends":   {false, func(p *plan.Plan, _ *v1alpha1.AmbientEdge) { p.Findings = nil }},
		"a finding errs":   {false, func(p *plan.Plan, _ *v1alpha1.AmbientEdge) { p.Findings[0].Severity = v1alpha1.SeverityError }},
		"the spec is new":  {false, func(_ *plan.Plan, e *v1alpha1.AmbientEdge) { e.Generation++ }},
		"nothing is other": {true, func(*plan.Plan, *v1alpha1.AmbientEdge) {}},
	} {
		if is := of(c.change); (is == was) != c.same {
			t.Errorf("%s: the same is %t", name, is == was)
		}
	}
}

func TestChangesAreGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pace
		e := types.NamespacedName{Namespace: "edge", Name: "public"}
		first := time.Now()
		if wait := p.changed(e); wait != 0 {
			t.Errorf("the first change waits for %v", wait)
		}
		time.Sleep(10 * time.Millisecond)
		p.changed(e)
		if since := p.begin(e); !since.Equal(first) {
			t.Errorf("it waits since %v, want since the first change", since)
		}
		if wait := p.changed(e); wait != gather {
			t.Errorf("while it is reconciled a change waits for %v", wait)
		}
		p.end(e, time.Time{})
		time.Sleep(gather / 2)
		if wait := p.changed(e); wait != gather/2 {
			t.Errorf("soon after a change waits for %v", wait)
		}
		time.Sleep(gather)
		if wait := p.changed(e); wait != 0 {
			t.Errorf("later a change waits for %v", wait)
		}
		since := p.begin(e)
		p.end(e, since) // it has failed
		if again := p.begin(e); !again.Equal(since) {
			t.Errorf("after an error it waits since %v, want %v", again, since)
		}
		p.end(e, time.Time{})
		if again := p.begin(e); !again.IsZero() {
			t.Errorf("nothing has changed, and something waits since %v", again)
		}
	})
}
