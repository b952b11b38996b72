package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

const edgeYAML = `apiVersion: isthmus.dev/v1alpha1
kind: AmbientEdge
metadata: {name: public, namespace: edge}
spec:
  workloadRefs: [{kind: Deployment, name: gateway}]
  backends: {services: [{namespace: shop, name: orders}]}
`

func TestReadingAnEdge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "edge.yaml")
	for _, c := range []struct {
		name, text string
		want       string // of the error; empty: none
	}{
		{"good", edgeYAML, ""},
		{"beside others", "kind: Namespace\n---\n# a comment\n---\n" + edgeYAML + "---\n", ""},
		{"with a separator first", "---\n" + edgeYAML, ""},
		{"with a byte order mark", "\uFEFF" + edgeYAML, ""},
		{"nothing", "", "there is no AmbientEdge"},
		{"something else", "apiVersion: v1\nkind: Pod\n", "there is no AmbientEdge, but Pod"},
		{"a misspelt kind", strings.Replace(edgeYAML, "AmbientEdge", "AmbientEdg", 1), "there is no AmbientEdge, but AmbientEdg"},
		{"a word that YAML takes for false", edgeYAML + "  mode: Off\n", `spec.mode takes a text, and is true or false: YAML reads Off`},
		{"two", edgeYAML + "---\n" + edgeYAML, "more than one"},
		{"another version", strings.Replace(edgeYAML, "v1alpha1", "v9", 1), "does not know AmbientEdge of isthmus.dev/v9"},
		{"no YAML", "kind: [", "no YAML"},
		{"unknown field", strings.Replace(edgeYAML, "backends", "backend", 1), `unknown field "spec.backend"`},
		{"field twice", edgeYAML + "  mode: Observe\n  mode: Manage\n", `"mode" already set`},
		{"longer than is read, which would cut its spec", edgeYAML + strings.Repeat("# more\n", 1<<20) + "  mode: Manage\n", "longer than 4 MiB"},
		{"a Service without its namespace", strings.Replace(edgeYAML, "namespace: shop, ", "", 1), "spec.backends.services[0] has no namespace"},
		{"wrong type", strings.Replace(edgeYAML, "[{kind: Deployment, name: gateway}]", "gateway", 1), "spec.workloadRefs takes a list, and is a text"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			for name, a := range map[string]*app{path: {}, "-": {stdin: strings.NewReader(c.text)}} {
				e, err := a.readEdge(name, true)
				switch {
				case c.want == "" && (err != nil || e.Name != "public" || len(e.Spec.WorkloadRefs) != 1):
					t.Errorf("%s: got %+v, %v", name, e, err)
				case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
					t.Errorf("%s: got %v, want %q", name, err, c.want)
				case c.want != "" && strings.Contains(err.Error(), "v1alpha1."):
					t.Errorf("%s: it names a type of Go: %v", name, err)
				case c.want != "" && exitCode(err) != exitFailed:
					t.Errorf("%s: exit code %d", name, exitCode(err))
				}
			}
		})
	}
	r := isthmus(t, "plan", "-f", "/nonexistent/edge.yaml")
	r.want(t, exitFailed, r.stderr, "cannot read the AmbientEdge", "/nonexistent/edge.yaml", "no such file", "next:")
	r = isthmus(t, "plan", "-f", t.TempDir())
	r.want(t, exitFailed, r.stderr, "cannot read the AmbientEdge", "it is a folder", "next:", "--from takes a folder")
	r = isthmus(t, "plan", "-f", "a.yaml", "-f", "b.yaml")
	r.want(t, exitUsage, r.stderr, "-f names one file, not 2")
}

func TestPlanOfAnEdgeOnPaper(t *testing.T) {
	e := &v1alpha1.AmbientEdge{}
	if err := strict([]byte(edgeYAML), e); err != nil {
		t.Fatal(err)
	}
	s := &plan.Snapshot{Edge: e, Namespaces: []corev1.Namespace{{ObjectMeta: metav1.ObjectMeta{Name: "edge"}}}}
	d := newPlanDocument(e, s, []string{"a note"})
	if !d.Blocked || d.Done || d.Mode != v1alpha1.ModeObserve || len(d.Findings) == 0 || len(d.Notes) != 1 || len(s.Edges) != 1 {
		t.Errorf("a gateway that is not there: got %+v", d)
	}
	err := d.blocked()
	if err == nil || err.Error() != "the plan is blocked: ISM101 at Service shop/orders, ISM300 at Deployment edge/gateway" || detail(err).Next == "" {
		t.Errorf("got %v", err)
	}
	if f := d.Findings[0]; strings.Contains(err.Error()+detail(err).Next, f.Message) || strings.Contains(detail(err).Next, f.Fix) {
		t.Errorf("%v tells again what the findings say", err)
	}
	var out bytes.Buffer
	if err := d.print(&page{w: &out, width: 80}); err != nil {
		t.Fatal(err)
	}
	result{code: exitOK}.want(t, exitOK, out.String(), "Plan of AmbientEdge edge/public, mode Observe: blocked", "FINDINGS", "ISM101", "ISM300")
	newPlanDocument(e, s, nil)
	if len(s.Edges) != 1 {
		t.Errorf("the edge itself is there %d times", len(s.Edges))
	}
}

func TestPlanSummary(t *testing.T) {
	step := func(states ...v1alpha1.StepState) (list []planStep) {
		for _, s := range states {
			list = append(list, planStep{Step: v1alpha1.Step{State: s}})
		}
		return list
	}
	for _, c := range []struct {
		name string
		doc  planDocument
		want string
	}{
		{"blocked", planDocument{Blocked: true, Steps: step("Blocked")}, "blocked, nothing is written"},
		{"one of two held back", planDocument{Held: []string{"b/orders"}, Backends: make([]v1alpha1.BackendStatus, 2), Steps: step("Next", "Held")}, "2 of 2 steps are left, and 1 of 2 backends held back"},
		{"done", planDocument{Done: true, Steps: step("Done")}, "nothing is left to do"},
		{"unknown is no work", planDocument{Unknown: 1, Steps: step("Done", "Unknown")}, "nothing is left to write; 1 of 2 steps only the controller can see"},
		{"left and unknown", planDocument{Mode: "Manage", Unknown: 1, Steps: step("Done", "Unknown", "Later")}, "1 of 3 steps are left; 1 of 3 steps only the controller can see"},
		{"left", planDocument{Mode: "Manage", Steps: step("Next", "Later")}, "2 of 2 steps are left"},
		{"observing", planDocument{Mode: "Observe", Steps: step("Next", "Later")}, "2 of 2 steps are left, and mode Observe takes none"},
		{"undoing", planDocument{Mode: "Observe", Undoing: true, Steps: step("Next")}, "1 of 1 steps are left"},
	} {
		if got, _ := c.doc.summary(); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
