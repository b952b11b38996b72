package check

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "rewrite the findings in testdata")

const separator = "---findings---\n"

// TestGolden: each file of testdata has objects, and after a separator what is found. Files are named for the check that they are about: ISM204-why.yaml.
// One whose first line is "# unread" has objects that cannot be read. One whose first line is "# cluster" is a cluster, where statuses tell and what is missing is missing; others are files. Of a case that is named for a
// check the findings of its hundred are shown, as its objects need not be without fault in what it is not about; of others all are.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			in, want, _ := strings.Cut(string(text), separator)
			checks := All()
			if name := filepath.Base(file); strings.HasPrefix(name, "ISM") {
				checks = slices.DeleteFunc(checks, func(c Check) bool { return c.Code[:4] != name[:4] })
			}
			got := say(Run(worldOf(t, in), checks))
			if *update {
				if err := os.WriteFile(file, []byte(in+separator+got), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != want {
				t.Errorf("found\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// TestEveryCheckHasBothCases: one that finds, and one beside it that does not.
func TestEveryCheckHasBothCases(t *testing.T) {
	for _, c := range All() {
		files, _ := filepath.Glob("testdata/" + c.Code + "-*.yaml")
		var finds, passes bool
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			_, want, _ := strings.Cut(string(text), separator)
			if strings.Contains(want, c.Code+" ") {
				finds = true
			} else {
				passes = true
			}
		}
		if !finds || !passes {
			t.Errorf("%s: testdata has a case that finds it: %v, one that does not: %v", c.Code, finds, passes)
		}
	}
}

// worldOf reads YAML documents.
func worldOf(t *testing.T, text string) *World {
	t.Helper()
	cluster := strings.HasPrefix(text, "# cluster\n")
	b := NewBuilder(Mesh{Known: true}, !cluster)
	line := 1
	for doc := range strings.SplitSeq(text, "---\n") {
		var o map[string]any
		if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
			t.Fatal(err)
		}
		if len(o) > 0 {
			u := &unstructured.Unstructured{Object: o}
			if u.GetNamespace() == "" && !slices.Contains([]string{"Namespace", "GatewayClass", "IngressClass", "ValidatingWebhookConfiguration"}, u.GetKind()) {
				t.Fatalf("%s %s has no namespace", u.GetKind(), u.GetName())
			}
			b.Add(u, fmt.Sprintf("case.yaml:%d", line))
		}
		line += strings.Count(doc, "\n") + 1
	}
	w := b.World()
	if w.Unread() > 0 && !strings.HasPrefix(text, "# unread\n") {
		t.Fatalf("an object cannot be read: %v", w.faults)
	}
	return w
}

// say writes findings as golden files have them.
func say(list []Finding) string {
	var w bytes.Buffer
	for i := range list {
		f := &list[i]
		fmt.Fprintf(&w, "%s %s %s", f.Code, f.Severity, f.Object)
		if f.Field != "" {
			fmt.Fprintf(&w, " %s", f.Field)
		}
		fmt.Fprintf(&w, " (%s)\n  %s\n", f.Where, f.Message)
		if f.Fix != "" {
			fmt.Fprintf(&w, "  fix: %s\n", f.Fix)
		}
		for line := range strings.Lines(f.Patch) {
			fmt.Fprintf(&w, "  | %s\n", strings.TrimRight(line, "\n"))
		}
		for _, o := range f.Related {
			fmt.Fprintf(&w, "  see: %s\n", o)
		}
		if f.Ignored != "" {
			fmt.Fprintf(&w, "  ignored: %s\n", f.Ignored)
		}
	}
	return w.String()
}
