package run

import (
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// reporting is a controller that reports to a cluster.
func reporting(t *testing.T) (*reconciler, *cluster, func(p *plan.Plan) time.Duration) {
	t.Helper()
	api := newCluster(t, nil)
	api.s.Edge.ResourceVersion = "1"
	r := &reconciler{client: api}
	return r, api, func(p *plan.Plan) time.Duration {
		t.Helper()
		wait, err := r.report(t.Context(), api.s.Edge.DeepCopy(), p)
		if err != nil {
			t.Fatal(err)
		}
		return wait
	}
}

// progress is a plan of which n of ten steps of wiring are done.
func progress(n int) *plan.Plan {
	p := &plan.Plan{Digest: "same"}
	for i := range 10 {
		s := plan.Step{Step: v1alpha1.Step{ID: plan.VerbWire + " Service shop/" + strconv.Itoa(i), Verb: plan.VerbWire, State: v1alpha1.StepNext}}
		if i < n {
			s.State = v1alpha1.StepDone
		}
		p.Steps = append(p.Steps, s)
	}
	return p
}

func TestOneStepIsOneStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, api, report := reporting(t)
		report(progress(0))
		for n := 1; n < 10; n++ { // Service after Service is bound
			if wait := report(progress(n)); wait <= 0 || wait > reportEvery {
				t.Errorf("after %d it is told in %v", n, wait)
			}
		}
		if api.statuses != 1 {
			t.Errorf("%d statuses were written within a step", api.statuses)
		}
		p := progress(10)
		p.Steps = append(p.Steps, plan.Step{Step: v1alpha1.Step{ID: "Switch", Verb: plan.VerbSwitch, State: v1alpha1.StepNext}})
		if wait := report(p); wait != 0 || api.statuses != 2 {
			t.Errorf("the next step is told in %v, and %d statuses were written", wait, api.statuses)
		}
		p.Steps[3].Reason = "why not"
		report(p)
		time.Sleep(reportEvery)
		if report(p); api.statuses != 3 {
			t.Errorf("a second later %d statuses were written", api.statuses)
		}
		time.Sleep(time.Hour)
		if report(p); api.statuses != 3 {
			t.Errorf("nothing has changed, and %d statuses were written", api.statuses)
		}
	})
}

func TestNewsDoNotWait(t *testing.T) {
	for name, change := range map[string]func(p *plan.Plan, e *v1alpha1.AmbientEdge){
		"a finding":    func(p *plan.Plan, _ *v1alpha1.AmbientEdge) { p.Stop(refusedAt("Service shop/orders")) },
		"another spec": func(_ *plan.Plan, e *v1alpha1.AmbientEdge) { e.Generation++ },
		"an approval": func(_ *plan.Plan, e *v1alpha1.AmbientEdge) {
			e.Annotations = map[string]string{v1alpha1.AnnotationPlan: "0123:4,5"}
		},
		"other steps":      func(p *plan.Plan, _ *v1alpha1.AmbientEdge) { p.Digest = "other" },
		"all that is left": func(p *plan.Plan, _ *v1alpha1.AmbientEdge) { *p = *progress(10) },
	} {
		t.Run(name, func(t *testing.T) {
			_, api, report := reporting(t)
			p := progress(1)
			report(p)
			change(p, api.s.Edge)
			if wait := report(p); wait != 0 || api.statuses != 2 {
				t.Errorf("it is told in %v, and %d statuses were written", wait, api.statuses)
			}
		})
	}
}

// TestACacheThatLagsBehindIsNotBelieved lets the cache show an AmbientEdge as it was before our own report.
func TestACacheThatLagsBehindIsNotBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, api, report := reporting(t)
		old := api.s.Edge.DeepCopy()
		report(progress(3))
		written := api.s.Edge.DeepCopy()
		if !r.reports.own(written) || r.reports.own(old) {
			t.Error("it does not know its own report")
		}
		time.Sleep(stale - time.Second)
		old.DeepCopyInto(api.s.Edge)
		report(progress(3))
		if api.statuses != 1 {
			t.Error("the same was reported again")
		}
		written.ResourceVersion = "100"
		written.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: "Lies"}}
		written.DeepCopyInto(api.s.Edge)
		if report(progress(3)); api.statuses != 2 {
			t.Error("somebody else wrote the status, and it stays")
		}
		reasons := []string{}
		for _, c := range api.s.Edge.Status.Conditions {
			reasons = append(reasons, c.Reason)
		}
		if slices.Contains(reasons, "Lies") {
			t.Errorf("reasons are %q", reasons)
		}
	})
}

func TestOlderVersions(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{{"9", "10", true}, {"10", "9", false}, {"10", "10", false}, {"", "10", false}, {"x", "10", false}, {"9", "", false}} {
		if got := older(c.a, c.b); got != c.want {
			t.Errorf("%q before %q: %v", c.a, c.b, got)
		}
	}
}
