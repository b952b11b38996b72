package soak

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/e2e/story"
)

// size is what a process and its descendants hold.
type size struct{ kB, fds, threads int }

func (s size) plus(o size) size { return size{s.kB + o.kB, s.fds + o.fds, s.threads + o.threads} }

// role is what people call a container, whichever pod it is in by now.
func role(p *corev1.Pod, container string) string {
	who := p.Labels["app"]
	for _, label := range []string{"gateway.networking.k8s.io/gateway-name", "app.kubernetes.io/name"} {
		if v := p.Labels[label]; v != "" {
			who = v
		}
	}
	if container == "capture" {
		return "capture of " + who
	}
	return who
}

// growth follows the sizes of all processes of pods.
type growth struct {
	w       *story.World
	began   time.Time
	samples map[string][]sample         // by role
	lives   map[string]map[int][]sample // by role and process
}

func newGrowth(w *story.World) *growth {
	return &growth{w: w, began: time.Now(), samples: map[string][]sample{}, lives: map[string]map[int][]sample{}}
}

type sample struct {
	at   time.Duration
	size size
}

// look takes a sample of each pod that is not about to end. Of several in a role it keeps the greatest.
func (g *growth) look(ctx context.Context) error {
	var pods corev1.PodList
	if err := g.w.Client().List(ctx, &pods); err != nil {
		return err
	}
	families, err := families()
	if err != nil {
		return err
	}
	found := map[string]size{}
	for i := range pods.Items {
		p := &pods.Items[i]
		if p.DeletionTimestamp != nil || p.Status.Phase != corev1.PodRunning {
			continue
		}
		for container, pid := range g.w.Node.PIDs(p.Namespace, p.Name) {
			r, s := role(p, container), families.size(pid)
			if s.kB == 0 {
				continue // it has just ended
			}
			if g.lives[r] == nil {
				g.lives[r] = map[int][]sample{}
			}
			g.lives[r][pid] = append(g.lives[r][pid], sample{time.Since(g.began), s})
			if s.kB > found[r].kB {
				found[r] = s
			}
		}
	}
	for r, s := range found {
		g.samples[r] = append(g.samples[r], sample{time.Since(g.began), s})
	}
	return nil
}

// parents is every process's children.
type parents map[int][]int

func families() (parents, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	all := parents{}
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(text), ") ") // the name may have spaces
		if f := strings.Fields(rest); len(f) > 1 {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			parent, _ := strconv.Atoi(f[1])
			all[parent] = append(all[parent], pid)
		}
	}
	return all, nil
}

// size of a process that has ended is zero.
func (f parents) size(pid int) size {
	var s size
	dir := fmt.Sprintf("/proc/%d/", pid)
	text, _ := os.ReadFile(dir + "status")
	for line := range strings.Lines(string(text)) {
		_, _ = fmt.Sscanf(line, "VmRSS: %d kB", &s.kB)
		_, _ = fmt.Sscanf(line, "Threads: %d", &s.threads)
	}
	fds, _ := os.ReadDir(dir + "fd")
	s.fds = len(fds)
	for _, child := range f[pid] {
		s = s.plus(f.size(child))
	}
	return s
}

// median of the samples between two moments.
func median(all []sample, from, to time.Duration) (size, bool) {
	var kB, fds, threads []int
	for _, s := range all {
		if s.at >= from && s.at <= to {
			kB, fds, threads = append(kB, s.size.kB), append(fds, s.size.fds), append(threads, s.size.threads)
		}
	}
	if len(kB) == 0 {
		return size{}, false
	}
	middle := func(v []int) int {
		slices.Sort(v)
		return v[len(v)/2]
	}
	return size{middle(kB), middle(fds), middle(threads)}, true
}

// judge compares the first quarter with the last, follows trends, prints both, and fails on growth. The slack of the quarters is that of a
// heap that settles and of runtime threads: it is for runs that are too short for a trend, and finds what is gross.
func (g *growth) judge(t *testing.T) {
	t.Helper()
	total := time.Since(g.began)
	var b strings.Builder
	fmt.Fprintf(&b, "%-28s %15s %15s %15s\n", "medians, first > last 1/4", "resident MB", "descriptors", "threads")
	for _, r := range slices.Sorted(maps.Keys(g.samples)) {
		first, ok1 := median(g.samples[r], 0, total/4)
		last, ok2 := median(g.samples[r], total*3/4, total)
		if !ok1 || !ok2 {
			t.Errorf("%s: no samples in the first or in the last quarter", r)
			continue
		}
		fmt.Fprintf(&b, "%-28s %6.1f > %6.1f %6d > %6d %6d > %6d\n", r, float64(first.kB)/1024, float64(last.kB)/1024, first.fds, last.fds, first.threads, last.threads)
		for _, what := range grown(first, last) {
			t.Errorf("%s: %s", r, what)
		}
	}
	t.Logf("sizes:\n%s", b.String())
	b.Reset()
	fmt.Fprintf(&b, "%-28s %s\n", "growth an hour", "± its standard error, and the smallest leak that would be seen")
	for _, r := range slices.Sorted(maps.Keys(g.lives)) {
		fmt.Fprintf(&b, "%-28s", r)
		for _, q := range quantities {
			tr, ok := fit(g.points(r, q.of), q.slack)
			if !ok {
				fmt.Fprintf(&b, " no process lived for %v: only gross growth would be seen", warmUp+minLife)
				break
			}
			fmt.Fprintf(&b, " %s %+.1f ± %.1f, sees %.1f;", q.unit, tr.slope, tr.noise, tr.sees())
			if tr.leaks() {
				t.Errorf("%s leaks %.1f ± %.1f %s an hour", r, tr.slope, tr.noise, q.unit)
			}
		}
		b.WriteByte('\n')
	}
	t.Logf("trends:\n%s", b.String())
}

// quantities are what may leak, and what a process may gain in its life though it does not.
var quantities = []struct {
	unit  string
	of    func(size) float64
	slack float64
}{
	{"MB", func(s size) float64 { return float64(s.kB) / 1024 }, 4},
	{"descriptors", func(s size) float64 { return float64(s.fds) }, 6},
	{"threads", func(s size) float64 { return float64(s.threads) }, 4},
}

// points are the lives of a role in one quantity.
func (g *growth) points(role string, of func(size) float64) [][]point {
	var all [][]point
	for _, life := range g.lives[role] {
		var l []point
		for _, s := range life {
			l = append(l, point{s.at, of(s.size)})
		}
		all = append(all, l)
	}
	return all
}

// grown says what is gross in a change of size.
func grown(first, last size) (what []string) {
	if last.kB > first.kB*5/4+16<<10 {
		what = append(what, fmt.Sprintf("grew from %d to %d kB", first.kB, last.kB))
	}
	if last.fds > first.fds+24 {
		what = append(what, fmt.Sprintf("had %d descriptors, and has %d", first.fds, last.fds))
	}
	if last.threads > first.threads+12 {
		what = append(what, fmt.Sprintf("had %d threads, and has %d", first.threads, last.threads))
	}
	return what
}
