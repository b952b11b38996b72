package check

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// TestPointsHaveAllOfTheirPolicies: those that are found by the index are those that a search through all finds.
func TestPointsHaveAllOfTheirPolicies(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var pods, services, policies int
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		in, _, _ := strings.Cut(string(text), separator)
		w := worldOf(t, in)
		same := func(got, want *policy.Point, of string) {
			policies += len(want.Policies())
			if !slices.Equal(sorted(got), sorted(want)) {
				t.Errorf("%s: %s: got %v, want %v", file, of, got.Policies(), want.Policies())
			}
		}
		for i := range w.Pods {
			p := &w.Pods[i]
			pods++
			same(w.before(p.Namespace, p.Labels), w.Evaluator().Ztunnel(policy.Workload{Namespace: p.Namespace, Labels: p.Labels}), p.Name)
		}
		for i := range w.Services {
			s := &w.Services[i]
			waypoint, ok := w.leadsTo(s)
			if !ok {
				continue
			}
			services++
			same(w.behind(waypoint, objectKey(s.Namespace, s.Name)), w.Evaluator().Waypoint(
				policy.Target{Kind: policy.KindGateway, Namespace: waypoint.Namespace, Name: waypoint.Name},
				policy.Target{Kind: policy.KindService, Namespace: s.Namespace, Name: s.Name},
			), s.Name)
		}
	}
	if pods < 50 || services < 20 || policies < 50 {
		t.Errorf("only %d pods, %d Services and %d policies were looked at", pods, services, policies)
	}
}

// sorted names the policies of a point.
func sorted(p *policy.Point) (names []string) {
	for _, ref := range p.Policies() {
		names = append(names, ref.String())
	}
	slices.Sort(names)
	return names
}
