package scale

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/controller/run"
	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/mesh/meshtest"
	"github.com/isthmus-mesh/isthmus/e2e/world"
)

// bounds are what the figures are held to.
type bounds struct {
	ready, effect, again time.Duration // promises; longer is waited, as others may have the machine
	mb, statuses         int           // statuses: written for each edge until it is ready
	rest                 time.Duration // how long to look for writes
	changes              int
}

func limits() bounds {
	if *services <= 200 {
		return bounds{ready: 20 * time.Second, effect: 2 * time.Second, again: 10 * time.Second, mb: 150, statuses: 12, rest: 4 * time.Second, changes: 20}
	}
	// The promise is 20 s and 1 s; what the machine makes of it is in docs/measurements.md. 30 s is when the controller looks again by itself.
	return bounds{ready: 8 * time.Minute, effect: 10 * time.Second, again: time.Minute, mb: 200, statuses: 20, rest: 65 * time.Second, changes: 200}
}

// table takes figures for people.
type table struct{ strings.Builder }

func (t *table) row(what, format string, args ...any) {
	fmt.Fprintf(t, "%-46s %s\n", what, fmt.Sprintf(format, args...))
}

// TestScale measures one controller's life: start, rest, changes, a second start.
func TestScale(t *testing.T) {
	if *edges < 1 || *namespaces < *edges || *services < *namespaces {
		t.Fatalf("%d edges, %d namespaces and %d Services: each needs one of the next", *edges, *namespaces, *services)
	}
	limit := limits()
	audit, args := newAudit(t)
	m := meshtest.New(t, mesh.Options{APIOnly: true, APIServerEnv: []string{"GOMEMLIMIT=off"}, APIServerArgs: args, Timeout: 3 * time.Minute})
	began := time.Now()
	populate(t, m)
	t.Logf("all objects are there after %v", time.Since(began).Round(time.Millisecond))
	ctx, cancel := context.WithCancel(t.Context())
	var bound sync.WaitGroup
	bound.Go(func() { bind(ctx, m.Client()) })
	t.Cleanup(func() {
		cancel()
		bound.Wait()
	})
	scheme, err := run.Scheme()
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(m.Config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	figures := &table{}
	defer func() {
		t.Logf("%d AmbientEdges, %d namespaces, %d Services with a route and a pod each:\n%s", *edges, *namespaces, *services, figures.String())
	}()

	servers := serversCPU(t, m)
	p := launch(t, m)
	began = time.Now()
	wait(t, limit.ready+time.Minute, func() string { return unready(t, c) })
	cold := time.Since(began)
	inTime(t, "all AmbientEdges are ready", limit.ready, cold)
	figures.row("first start until all are ready", "%.1f s; processor time: controller %.1f s, API server and etcd %.1f s", cold.Seconds(), p.cpu().Seconds(), (serversCPU(t, m) - servers).Seconds())
	settle(t, audit)
	total, kinds := audit.writes()
	figures.row("requests that write until then", "%d: %s", total, list(kinds))
	if n := kinds["patch ambientedges/status"]; n > limit.statuses**edges {
		t.Errorf("%d statuses were written for %d AmbientEdges, want at most %d for each", n, *edges, limit.statuses)
	}
	rest(t, figures, p, audit, limit)
	p.knows(t)

	alone := changes(t, c, limit, 0)
	figures.row("a label taken away is back", "%v", alone)
	stop := stir(t, c, p)
	busy := changes(t, c, limit, limit.changes)
	figures.row("the same while 100 objects a second change", "%v; %s", busy, stop())
	wait(t, limit.ready+time.Minute, func() string { return unready(t, c) })
	settle(t, audit)
	p.stop()

	total, _ = audit.writes()
	p = launch(t, m)
	began = time.Now()
	wait(t, limit.again+time.Minute, func() string {
		if n := p.reconciled(); n < *edges {
			return fmt.Sprintf("%d of %d are reconciled", n, *edges)
		}
		return ""
	})
	again := time.Since(began)
	inTime(t, "a second controller has looked at all AmbientEdges", limit.again, again)
	time.Sleep(time.Second)
	after, kinds := audit.writes()
	figures.row("second start until all are looked at", "%.1f s, %d requests that write", again.Seconds(), after-total)
	if after != total {
		t.Errorf("the second start wrote %d times: all writes are now %s", after-total, list(kinds))
	}
	now, highest := p.mb()
	figures.row("resident memory after it", "%d MB, at most %d MB", now, highest)
}

// inTime holds something to its promise.
func inTime(t *testing.T, what string, most, took time.Duration) {
	t.Helper()
	seen := fmt.Sprintf("%s in %v: it took %v", what, most, took.Round(10*time.Millisecond))
	if took > most && world.Judge(t, seen) {
		t.Error(seen)
	}
}

// rest sees that nothing is written while nothing happens.
func rest(t *testing.T, figures *table, p *process, audit *audit, limit bounds) {
	t.Helper()
	total, _ := audit.writes()
	before, cpu := p.reconciled(), p.cpu()
	time.Sleep(limit.rest)
	atRest, kinds := audit.writes()
	figures.row(fmt.Sprintf("at rest, in %v", limit.rest), "%d requests that write, %d reconciliations, %.2f s of processor time", atRest-total, p.reconciled()-before, (p.cpu() - cpu).Seconds())
	if atRest != total {
		t.Errorf("at rest the controller wrote %d times: all writes are now %s", atRest-total, list(kinds))
	}
	now, highest := p.mb()
	figures.row("controller's resident memory", "%d MB, at most %d MB", now, highest)
	if highest > limit.mb {
		t.Errorf("the controller took %d MB, want at most %d", highest, limit.mb)
	}
}

// unready says which AmbientEdges are not ready; "" when all are.
func unready(t *testing.T, c client.Client) string {
	t.Helper()
	var all v1alpha1.AmbientEdgeList
	if err := c.List(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	n, first := 0, ""
	for i := range all.Items {
		e := &all.Items[i]
		cond := meta.FindStatusCondition(e.Status.Conditions, v1alpha1.ConditionReady)
		switch {
		case cond == nil:
			n, first = n+1, e.Namespace+": nothing is reported"
		case cond.Status != "True" || cond.ObservedGeneration != e.Generation:
			n, first = n+1, e.Namespace+": "+cond.Reason+": "+cond.Message
		}
	}
	if n == 0 && len(all.Items) == *edges {
		return ""
	}
	return fmt.Sprintf("%d of %d are not ready, as %s", n, len(all.Items), first)
}

// wait looks until nothing is missing, five times a second in the short form: a look at fifty AmbientEdges is work for the API server.
func wait(t *testing.T, most time.Duration, missing func() string) {
	t.Helper()
	pause := 200 * time.Millisecond
	if *edges > 10 {
		pause = time.Second / 2
	}
	for end := time.Now().Add(most); ; time.Sleep(pause) {
		why := missing()
		if why == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("after %v %s", most, why)
		}
	}
}

// settle waits until nothing has been written for a second.
func settle(t *testing.T, a *audit) {
	t.Helper()
	last, since := -1, time.Now()
	wait(t, time.Minute, func() string {
		if n, _ := a.writes(); n != last {
			last, since = n, time.Now()
		}
		if time.Since(since) > time.Second {
			return ""
		}
		return "the controller writes"
	})
}

// times are sorted.
type times []time.Duration

func (t times) String() string {
	at := func(percent int) time.Duration { return t[(len(t)-1)*percent/100].Round(time.Millisecond) }
	return fmt.Sprintf("%d times, p50 %v, p99 %v, at most %v", len(t), at(50), at(99), at(100))
}

// changes takes the label of one Service after the other away, from a number on, and returns how long each took to come back. No Service comes
// twice: who takes a label away again and again has it his way.
func changes(t *testing.T, c client.Client, limit bounds, from int) (took times) {
	t.Helper()
	for i := from; i < min(from+limit.changes, *services); i++ {
		s := &corev1.Service{}
		s.Namespace, s.Name = fmt.Sprintf("shop-%d", shopOf(i)), fmt.Sprintf("service-%d", i)
		patch := fmt.Sprintf(`{"metadata":{"labels":{%q:null}}}`, plan.LabelUseWaypoint)
		began := time.Now()
		if err := c.Patch(t.Context(), s, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
			t.Fatal(err)
		}
		if s.Labels[plan.LabelUseWaypoint] != "" {
			t.Fatal("the label is still there")
		}
		for s.Labels[plan.LabelUseWaypoint] == "" {
			if most := limit.effect + time.Minute; time.Since(began) > most {
				t.Fatalf("the label of %s/%s is not back after %v", s.Namespace, s.Name, most)
			}
			time.Sleep(10 * time.Millisecond)
			if err := c.Get(t.Context(), client.ObjectKeyFromObject(s), s); err != nil {
				t.Fatal(err)
			}
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	if len(took) == 0 {
		t.Fatal("there are too few Services")
	}
	inTime(t, "a label that was taken away is back", limit.effect, took[len(took)-1])
	return took
}

// list is a map of counts for people.
func list(kinds map[string]int) string {
	var all []string
	for k, n := range kinds {
		all = append(all, fmt.Sprintf("%s × %d", k, n))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}
