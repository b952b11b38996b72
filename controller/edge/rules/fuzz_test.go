package rules_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/controller/edge/rules"
)

// FuzzOf reads objects that others write, and of which no API server need have checked anything. It must not panic, and must not make more of them
// than stands there.
func FuzzOf(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		f.Fatal("no files", err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		in, _, _ := strings.Cut(string(raw), divider)
		f.Add(in)
		// Lists of other things than objects, objects that are texts, and texts that are objects.
		f.Add(strings.ReplaceAll(in, "[{", "[1, x, {"))
		f.Add(strings.NewReplacer("spec: {", "spec: [", "}\n---", "]\n---").Replace(in))
		f.Add(strings.NewReplacer("name: ", "name: {a: ", ", port", "}, port").Replace(in))
		f.Add(strings.NewReplacer(": {", ": x # {", ": [", ": {a: [1], b: [").Replace(in))
	}
	f.Fuzz(func(t *testing.T, in string) {
		if len(in) > 1<<16 {
			return
		}
		var w world
		var gateway rules.Gateway
		var routes []rules.Route
		for i, part := range strings.Split(in, "\n---") {
			var object map[string]any
			if i > 40 || yaml.Unmarshal([]byte(part), &object) != nil || len(object) == 0 {
				continue
			}
			o := &unstructured.Unstructured{Object: object}
			w = append(w, o)
			ref := rules.Ref{Group: o.GroupVersionKind().Group, Kind: o.GetKind(), Namespace: o.GetNamespace(), Name: o.GetName()}
			if ref.Kind == "Gateway" {
				gateway.Ref = ref
			} else {
				routes = append(routes, rules.Route{Ref: ref})
			}
		}
		first, _, _ := strings.Cut(in, "\n")
		set := rules.Of(strings.TrimPrefix(first, "# "), gateway, routes, w)
		// A Middleware may stand in 64 chains for each place that refers to it; all else stands once.
		if most := 64 * (len(in) + 64); len(set.Rules) > most {
			t.Errorf("%d rules of %d bytes", len(set.Rules), len(in))
		}
		for i := range set.Rules {
			r := &set.Rules[i]
			if len(r.Unknown) > 33 {
				t.Errorf("%d unknown fields of one rule", len(r.Unknown))
			}
			for _, target := range r.Targets {
				set.At(gateway.Ref, rules.Place{Listener: target.Section, Route: target.Object, Section: target.Section, Service: target.Object})
			}
		}
	})
}
