package scale

import (
	"context"
	"fmt"
	"slices"
	"strings"
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
)

// bounds of the short form; the long one has what it needs.
type bounds struct {
	ready, effect, again time.Duration
	mb                   int
	rest                 time.Duration // how long to look for writes
	changes              int
}

func limits() bounds {
	if *edges <= 5 && *services <= 50 {
		return bounds{ready: 20 * time.Second, effect: 2 * time.Second, again: 10 * time.Second, mb: 150, rest: 4 * time.Second, changes: 10}
	}
	// 30 s is when the controller looks again by itself. 256 MB is the limit in its manifest.
	return bounds{ready: 10 * time.Minute, effect: 30 * time.Second, again: time.Minute, mb: 256, rest: 65 * time.Second, changes: 50}
}

// TestScale measures one controller's life: start, rest, changes, a second start.
func TestScale(t *testing.T) {
	if *edges < 1 || *services < *edges || *services > 64**edges {
		t.Fatalf("%d edges and %d Services: there must be 1 to 64 Services to an edge", *edges, *services)
	}
	limit := limits()
	audit, args := newAudit(t)
	m := meshtest.New(t, mesh.Options{APIOnly: true, APIServerEnv: []string{"GOMEMLIMIT=off"}, APIServerArgs: args})
	began := time.Now()
	populate(t, m)
	t.Logf("%d AmbientEdges and %d Services are there after %v", *edges, *services, time.Since(began).Round(time.Millisecond))
	ctx, cancel := context.WithCancel(t.Context())
	bound := make(chan error, 1)
	go func() { bound <- bind(ctx, m.Client()) }()
	t.Cleanup(func() {
		cancel()
		if err := <-bound; err != nil {
			t.Error(err)
		}
	})
	scheme, err := run.Scheme()
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(m.Config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	row := func(what, format string, args ...any) {
		fmt.Fprintf(&table, "%-46s %s\n", what, fmt.Sprintf(format, args...))
	}

	p := launch(t, m)
	began = time.Now()
	wait(t, limit.ready, func() string { return unready(t, c) })
	cold := time.Since(began)
	row("first start until all are ready", "%.1f s, %.1f s of processor time", cold.Seconds(), p.cpu().Seconds())
	settle(t, audit)
	total, kinds := audit.writes()
	row("requests that write until then", "%d: %s", total, list(kinds))

	before, cpu := p.reconciled(), p.cpu()
	time.Sleep(limit.rest)
	atRest, _ := audit.writes()
	row(fmt.Sprintf("at rest, in %v", limit.rest), "%d requests that write, %d reconciliations, %.2f s of processor time", atRest-total, p.reconciled()-before, (p.cpu() - cpu).Seconds())
	if atRest != total {
		_, kinds := audit.writes()
		t.Errorf("at rest the controller wrote %d times: all writes are now %s", atRest-total, list(kinds))
	}
	now, highest := p.mb()
	row("controller's resident memory", "%d MB, at most %d MB", now, highest)
	if highest > limit.mb {
		t.Errorf("the controller took %d MB, want at most %d", highest, limit.mb)
	}

	cpu = p.cpu()
	took := changes(t, c, limit)
	row(fmt.Sprintf("a label taken away is back, %d times", len(took)), "p50 %v, p99 %v, %.2f s of processor time each", took[len(took)/2].Round(time.Millisecond), took[len(took)*99/100].Round(time.Millisecond), (p.cpu()-cpu).Seconds()/float64(len(took)))
	if worst := took[len(took)-1]; worst > limit.effect {
		t.Errorf("a change took %v to have its effect, want at most %v", worst, limit.effect)
	}
	wait(t, limit.ready, func() string { return unready(t, c) })
	settle(t, audit)
	p.stop()

	total, _ = audit.writes()
	p = launch(t, m)
	began = time.Now()
	wait(t, limit.again, func() string {
		if n := p.reconciled(); n < *edges {
			return fmt.Sprintf("%d of %d are reconciled", n, *edges)
		}
		return ""
	})
	again := time.Since(began)
	time.Sleep(time.Second)
	after, kinds := audit.writes()
	row("second start until all are looked at", "%.1f s, %d requests that write", again.Seconds(), after-total)
	if after != total {
		t.Errorf("the second start wrote %d times: all writes are now %s", after-total, list(kinds))
	}
	now, highest = p.mb()
	row("resident memory after it", "%d MB, at most %d MB", now, highest)
	t.Logf("%d AmbientEdges, %d Services:\n%s", *edges, *services, table.String())
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

// wait looks every 50 ms until nothing is missing.
func wait(t *testing.T, most time.Duration, missing func() string) {
	t.Helper()
	for end := time.Now().Add(most); ; time.Sleep(50 * time.Millisecond) {
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
	wait(t, 30*time.Second, func() string {
		if n, _ := a.writes(); n != last {
			last, since = n, time.Now()
		}
		if time.Since(since) > time.Second {
			return ""
		}
		return "the controller writes"
	})
}

// changes takes the label of one Service after the other away, and returns how long each took to come back, sorted.
func changes(t *testing.T, c client.Client, limit bounds) []time.Duration {
	t.Helper()
	var took []time.Duration
	for i := range min(limit.changes, *services) {
		s := &corev1.Service{}
		s.Namespace, s.Name = fmt.Sprintf("shop-%d", i%*edges), fmt.Sprintf("service-%d", i)
		patch := fmt.Sprintf(`{"metadata":{"labels":{%q:null}}}`, plan.LabelUseWaypoint)
		began := time.Now()
		if err := c.Patch(t.Context(), s, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
			t.Fatal(err)
		}
		if s.Labels[plan.LabelUseWaypoint] != "" {
			t.Fatal("the label is still there")
		}
		for s.Labels[plan.LabelUseWaypoint] == "" {
			if time.Since(began) > limit.effect {
				t.Fatalf("the label of %s/%s is not back after %v", s.Namespace, s.Name, limit.effect)
			}
			time.Sleep(5 * time.Millisecond)
			if err := c.Get(t.Context(), client.ObjectKeyFromObject(s), s); err != nil {
				t.Fatal(err)
			}
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
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
