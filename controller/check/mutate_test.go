package check

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// seeds are the manifests of testdata: each file its documents, without what is found.
func seeds(t testing.TB) (files [][]map[string]any) {
	t.Helper()
	var paths []string
	for _, pattern := range []string{"testdata/*.yaml", "testdata/corpus/*.yaml"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, found...)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		in, _, _ := strings.Cut(string(text), separator)
		var docs []map[string]any
		for doc := range strings.SplitSeq(in, "---\n") {
			var o map[string]any
			if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
				t.Fatal(err)
			}
			if len(o) > 0 {
				docs = append(docs, o)
			}
		}
		files = append(files, docs)
	}
	if len(files) == 0 {
		t.Fatal("there are no manifests")
	}
	return files
}

// runAll has all checks look at documents, of files or of a cluster. What is not as its kind should be is left out.
func runAll(docs []map[string]any, paper bool) {
	b := NewBuilder(Mesh{Known: true}, paper)
	for i, o := range docs {
		if o["kind"] != "" {
			b.Add(&unstructured.Unstructured{Object: o}, fmt.Sprintf("a.yaml:%d", i))
		}
	}
	Run(b.World(), All())
}

// mutation changes trees at random, and in the same way each time.
type mutation struct{ rng *rand.Rand }

// odd are values that nobody expects.
func (m mutation) odd() any {
	return []any{
		nil, "", "*", "/", "none", "istio.io/", "\x00", strings.Repeat("x", 300), int64(0), int64(-1), int64(1 << 40), 1.5, true, map[string]any{}, []any{}, []any{nil}, []any{"a", int64(1)},
		map[string]any{"name": "orders"}, "cluster.local/ns/shop/sa/orders", "spiffe://", "10.0.0.0/99", "::/0", "{**}", "waypoint", "ambient",
	}[m.rng.IntN(25)]
}

// tree is v with one change in about n places.
func (m mutation) tree(v any, n int) any {
	if m.rng.IntN(n) == 0 {
		return m.odd()
	}
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		keys := sortedKeys(v)
		for _, k := range keys {
			switch m.rng.IntN(n) {
			case 0: // it is not there
			case 1: // it has another's name
				out[keys[m.rng.IntN(len(keys))]] = m.tree(v[k], n)
			default:
				out[k] = m.tree(v[k], n)
			}
		}
		return out
	case []any:
		var out []any
		for _, item := range v {
			out = append(out, m.tree(item, n))
			if m.rng.IntN(n) == 0 {
				out = append(out, m.tree(item, n)) // twice
			}
		}
		return out
	}
	return v
}

// manifests are documents with changes; what names them stays as a rule, as nothing else of them would be looked at.
func (m mutation) manifests(docs []map[string]any) (out []map[string]any) {
	n := 8 + m.rng.IntN(60)
	for _, d := range docs {
		if m.rng.IntN(12) == 0 {
			continue
		}
		o, is := m.tree(d, n).(map[string]any)
		if !is {
			continue
		}
		if m.rng.IntN(10) > 0 {
			o["apiVersion"], o["kind"] = d["apiVersion"], d["kind"]
		}
		out = append(out, o)
	}
	return out
}

// TestMutatedManifestsNeverPanic: 10,000 files of manifests with random faults are looked at, as files and as a cluster.
func TestMutatedManifestsNeverPanic(t *testing.T) {
	files := seeds(t)
	m := mutation{rand.New(rand.NewPCG(1, 2))}
	var docs []map[string]any
	var i int
	defer func() {
		if r := recover(); r != nil {
			text, _ := yaml.Marshal(docs)
			t.Fatalf("mutation %d: %v\n%s\n%s", i, r, debug.Stack(), text)
		}
	}()
	for i = range 10_000 {
		docs = m.manifests(files[m.rng.IntN(len(files))])
		if i%5 == 0 { // of two files at once
			docs = append(docs, m.manifests(files[m.rng.IntN(len(files))])...)
		}
		runAll(docs, i%2 == 0)
	}
}

// FuzzManifests: no YAML makes checks panic.
func FuzzManifests(f *testing.F) {
	for _, docs := range seeds(f) {
		var b bytes.Buffer
		for _, d := range docs {
			text, err := yaml.Marshal(d)
			if err != nil {
				f.Fatal(err)
			}
			b.WriteString("---\n" + string(text))
		}
		f.Add(b.Bytes(), true)
		f.Add(b.Bytes(), false)
	}
	f.Fuzz(func(_ *testing.T, text []byte, paper bool) {
		var docs []map[string]any
		for doc := range bytes.SplitSeq(text, []byte("---\n")) {
			var o map[string]any
			if yaml.Unmarshal(doc, &o) == nil && len(o) > 0 {
				docs = append(docs, o)
			}
		}
		runAll(docs, paper)
	})
}
