package plan_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// TestPlannedIsWhatPlansFind: who asks for the findings of all AmbientEdges gets those that the plan of each has, where nobody is asked.
func TestPlannedIsWhatPlansFind(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	found, seen := 0, 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		in, _, _ := strings.Cut(string(text), "---plan---\n")
		s := snapshot(t, in)
		views := plan.Survey(s)
		for i, got := range plan.Planned(s, views) {
			var want []v1alpha1.Finding
			if e := &s.Edges[i]; e.DeletionTimestamp == nil {
				look := *s
				look.Edge, look.Hearsay = e, true
				want = plan.Make(&look).Findings
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s: AmbientEdge %s: -its plan +what is said of it\n%s", file, s.Edges[i].Name, d)
			}
			found += len(want)
		}
		for i := range views {
			if views[i].Exists {
				seen++
			}
		}
	}
	if found == 0 || seen == 0 {
		t.Errorf("there were %d findings, and %d gateways of AmbientEdges", found, seen)
	}
}

// TestASurveyIsTheSameOnAnyMachine: gateways are looked at on all processors, and share what is read once.
func TestASurveyIsTheSameOnAnyMachine(t *testing.T) {
	survey := func(processors int) (seen []string) {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(processors))
		for _, v := range plan.Survey(surveyed(4)) {
			seen = append(seen, fmt.Sprintln(v.String(), v.Exists, v.Edge.Name, v.Identities, v.Inside, v.Routes, v.Findings))
			for _, b := range v.Backends {
				seen = append(seen, fmt.Sprintln(b.Key, b.Routes, b.Waypoint, b.Bound, b.Sends, b.Why))
			}
		}
		return seen
	}
	if d := cmp.Diff(survey(1), survey(8)); d != "" {
		t.Errorf("-on one processor +on eight\n%s", d)
	}
}

// TestAtOnceCallsForEach: once, and it waits for all.
func TestAtOnceCallsForEach(t *testing.T) {
	for _, n := range []int{-1, 0, 1, 1000} {
		calls := make([]int, max(n, 0))
		plan.AtOnce(n, func(i int) { calls[i]++ })
		for i, times := range calls {
			if times != 1 {
				t.Errorf("of %d number %d was called %d times", n, i, times)
			}
		}
	}
}
