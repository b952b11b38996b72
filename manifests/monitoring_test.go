package manifests

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/controller/run"
)

// TestMonitoringAsksForWhatThereIs is about our own metrics; e2e/scale looks for all of them in what a controller serves.
func TestMonitoringAsksForWhatThereIs(t *testing.T) {
	names, err := Metrics()
	if err != nil {
		t.Fatal(err)
	}
	asked := map[string]bool{}
	for _, name := range names {
		if !strings.HasPrefix(name, "isthmus_") {
			continue
		}
		for _, part := range []string{"_bucket", "_count", "_sum"} {
			name = strings.TrimSuffix(name, part)
		}
		if asked[name] = true; !slices.Contains(run.Metrics(), name) {
			t.Errorf("there is no metric %s", name)
		}
	}
	for _, name := range run.Metrics() {
		if !asked[name] {
			t.Errorf("nobody looks at %s", name)
		}
	}
}

func TestAlertsTellPeopleWhatToDo(t *testing.T) {
	text, err := files.ReadFile("monitoring/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var rule struct {
		Spec struct {
			Groups []struct {
				Rules []struct {
					Alert, Expr string
					Labels      struct{ Severity string }
					Annotations struct{ Summary, Description string }
				}
			}
		}
	}
	if err := yaml.Unmarshal(text, &rule); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, g := range rule.Spec.Groups {
		for _, r := range g.Rules {
			n++
			if r.Alert == "" || r.Expr == "" || r.Labels.Severity == "" || r.Annotations.Summary == "" || r.Annotations.Description == "" {
				t.Errorf("%+v lacks something", r)
			}
		}
	}
	if n == 0 {
		t.Error("there is no alert")
	}
}

func TestDashboardHasPanelsOfItsOwn(t *testing.T) {
	text, err := files.ReadFile("monitoring/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			ID      int
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for i, p := range board.Panels {
		if seen[p.ID] || p.Title == "" || len(p.Targets) == 0 {
			t.Errorf("panel %+v lacks something, or comes twice", p)
		}
		seen[p.ID] = true
		for _, o := range board.Panels[:i] {
			a, b := p.GridPos, o.GridPos
			if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("%s is over %s", p.Title, o.Title)
			}
		}
	}
}
