package explain

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/controller/check"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

var update = flag.Bool("update", false, "rewrite the answers in testdata")

const (
	questions = "---questions---\n"
	answers   = "---answers---\n"
)

// TestGolden: each file of testdata has objects, questions, a line each, and the drawings of their answers. One whose first line is "# cluster" is a cluster,
// where statuses tell; others are files. A question is FROM TO, then NAME=VALUE of the request; "why-not" asks for changes too.
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
			in, rest, ok := strings.Cut(string(text), questions)
			if !ok {
				t.Fatal("there are no questions")
			}
			asked, want, _ := strings.Cut(rest, answers)
			w := worldOf(t, in)
			var got bytes.Buffer
			for line := range strings.Lines(asked) {
				fmt.Fprintf(&got, "> %s", line)
				say(t, &got, w, strings.Fields(line))
			}
			for line := range strings.Lines(got.String()) {
				// A word that is too long stays whole.
				if n := utf8.RuneCountInString(strings.TrimSpace(line)); n > Width && strings.Contains(strings.TrimSpace(line), " ") && !strings.Contains(line, "kubectl") && !strings.HasPrefix(line, "error:") {
					t.Errorf("a line has %d columns: %s", n, line)
				}
			}
			if *update {
				if err := os.WriteFile(file, []byte(in+questions+asked+answers+got.String()), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got.String() != want {
				t.Errorf("got\n%s\nwant\n%s", got.String(), want)
			}
		})
	}
}

// say answers a question.
func say(t *testing.T, out *bytes.Buffer, w *check.World, words []string) {
	t.Helper()
	q, whyNot := question(t, words)
	x := New(w)
	a, err := x.Answer(q)
	if err != nil {
		fmt.Fprintf(out, "error: %v", err)
		if no, ok := err.(*NotFoundError); ok && len(no.Known) > 0 { //nolint:errorlint // it is never wrapped
			fmt.Fprintf(out, "; there is %s", strings.Join(no.Known, ", "))
		}
		fmt.Fprintln(out)
		return
	}
	if err := Draw(out, &a, 0, nil); err != nil {
		t.Fatal(err)
	}
	if whyNot {
		if err := DrawChanges(out, x.WhyNot(&a), 0, nil); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Fprintln(out)
}

// question reads FROM TO NAME=VALUE...
func question(t *testing.T, words []string) (q Question, whyNot bool) {
	t.Helper()
	var err error
	if q.From, err = ParseSource(words[0]); err != nil {
		t.Fatal(err)
	}
	if q.To, err = ParseTarget(words[1]); err != nil {
		t.Fatal(err)
	}
	for _, word := range words[2:] {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "method":
			q.Request.Method = policy.Of(value)
		case "path":
			q.Request.Path = policy.Of(value)
		case "host":
			q.Request.Host = policy.Of(value)
		case "iss":
			q.Request.Token = policy.Of(policy.Token{Claims: map[string]any{"iss": value, "sub": "somebody"}, Partial: true})
		case "why-not":
			whyNot = true
		default:
			t.Fatalf("nobody knows %q", name)
		}
	}
	return q, whyNot
}

// worldOf reads YAML documents.
func worldOf(t testing.TB, text string) *check.World {
	t.Helper()
	b := check.NewBuilder(check.Mesh{Known: true}, !strings.HasPrefix(text, "# cluster\n"))
	line := 1
	for doc := range strings.SplitSeq(text, "---\n") {
		var o map[string]any
		if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		if len(o) > 0 {
			b.Add(&unstructured.Unstructured{Object: o}, fmt.Sprintf("case.yaml:%d", line))
		}
		line += strings.Count(doc, "\n") + 1
	}
	return b.World()
}
