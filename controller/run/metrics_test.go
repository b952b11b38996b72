package run

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// series are what a registry gathers, as name{labels} value.
func series(t *testing.T, c prometheus.Collector) (all []string) {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(c)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			all = append(all, fmt.Sprintf("%s{%s} %v", f.GetName(), strings.Join(labels, ","), m.GetGauge().GetValue()))
		}
	}
	slices.Sort(all)
	return all
}

func TestMetricsSumUpPlans(t *testing.T) {
	var m metrics
	s := fresh()
	m.note(s.Edge, plan.Make(s))
	other := fresh()
	other.Edge.Name, other.Edge.Spec.Mode = "other", ""
	other.Namespaces[1].Annotations = nil
	m.note(other.Edge, plan.Make(other))
	want := []string{
		"isthmus_backends{state=direct} 0", "isthmus_backends{state=held} 2", "isthmus_backends{state=waiting} 2", "isthmus_backends{state=wired} 0",
		"isthmus_edges{mode=Manage,reason=InProgress} 1", "isthmus_edges{mode=Observe,reason=Blocked} 1",
		"isthmus_findings{code=ISM302,severity=Error} 1",
	}
	if d := cmp.Diff(want, series(t, &m)); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	other.Edge.Spec.Waypoint = &v1alpha1.Waypoint{Policy: v1alpha1.WaypointNone}
	m.note(other.Edge, plan.Make(other))
	if got := series(t, &m); !slices.Contains(got, "isthmus_backends{state=direct} 2") || !slices.Contains(got, "isthmus_backends{state=waiting} 2") {
		t.Errorf("got %q", got)
	}
	m.forget(edgeKey(s))
	m.forget(edgeKey(other))
	if got := series(t, &m); len(got) != 4 {
		t.Errorf("of edges that are gone there is %q", got)
	}
}

func TestSeveralControllersMayRegister(t *testing.T) {
	var first, second metrics
	if err := first.register(); err != nil {
		t.Fatal(err)
	}
	if err := second.register(); err != nil {
		t.Fatal(err)
	}
	first.effect(time.Now()) // it counts for nobody, and does no harm
}
