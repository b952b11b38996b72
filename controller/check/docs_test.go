package check

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

//go:generate go test -run TestReferenceIsCurrent . -update

const reference = "../../docs/checks.md"

func TestReferenceIsCurrent(t *testing.T) {
	var want bytes.Buffer
	writeReference(&want, All())
	if *update {
		if err := os.WriteFile(reference, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want.String(), string(got)); d != "" {
		t.Errorf("docs/checks.md is stale (run go generate ./controller/check): -want +got\n%s", d)
	}
}

// writeReference describes checks as Markdown.
func writeReference(w *bytes.Buffer, checks []Check) {
	w.WriteString(`<!-- Generated from the checks: go generate ./controller/check -->

# What isthmus check finds

[isthmus check](cli.md#isthmus-check) looks at the objects of a cluster, or of files, and names what is wrong between edge gateways and an ambient
mesh. A code means the same for ever, and where the controller has it too ([findings](findings.md)) it means the same there. The hundreds: 1 path, 2 identity and authorization,
3 enrolment, 4 network, 5 edge policy and mesh policy, 6 reliability.

**Error**: something is broken, or open, for sure. **Warning**: it is very likely, or degrades. **Info**: worth knowing. A check that cannot be sure says
nothing: files alone do not tell what the cluster has, and fields that nobody here understands may mean anything.

What no check looks at, though it breaks much: whether istiod, ztunnel and the gateways run at all; a Service whose selector fits no pod, or a targetPort where
no container listens; a backendRef to a port that its Service lacks; TLS certificates and DNS. Of files: a Gateway whose GatewayClass is not among them has
no routes that count, unless the class has the name that a known controller gives it (a note says so then), and a Service that is missing is Info at most, as the cluster may have it; so is what an AmbientEdge in files names
([ISM132](#ism132)): [isthmus plan](cli.md#isthmus-plan) asks the cluster, and so does check with --against-cluster.

An object's annotation has its findings of a code ignored, with a reason; they are listed at the end, and do not count:

` + "```yaml\nmetadata:\n  annotations:\n    isthmus.dev/ignore: \"ISM204: the caller is a batch job\"\n```\n\n" + `| code | severity | what |
| --- | --- | --- |
`)
	for i := range checks {
		c := &checks[i]
		fmt.Fprintf(w, "| [%s](#%s) | %s | %s |\n", c.Code, strings.ToLower(c.Code), severities(c), c.Title)
	}
	for i := range checks {
		c := &checks[i]
		fmt.Fprintf(w, "\n### %s\n\n**%s** (%s)\n\n%s\n\n%s\n\n*Fix:* %s\n", c.Code, c.Title, severities(c), c.Matter, c.Harm, c.Fix)
		if finds, passes := cases(c.Code); len(finds)+len(passes) > 0 {
			fmt.Fprintf(w, "\nFound in %s; not found in %s.\n", links(finds), links(passes))
		}
	}
	w.WriteString("\n## Pains, and the codes that answer them\n\n| pain | what people suffer from | codes |\n| --- | --- | --- |\n")
	answers := answersOf(checks)
	for _, p := range Pains() {
		var codes []string
		for _, code := range answers[p.ID] {
			codes = append(codes, fmt.Sprintf("[%s](#%s)", code, strings.ToLower(code)))
		}
		if len(codes) > 0 {
			fmt.Fprintf(w, "| %s | %s | %s |\n", p.ID, p.What, strings.Join(codes, ", "))
		}
	}
	w.WriteString("\n## Pains that no check can see\n\n| pain | what people suffer from | why no object shows it |\n| --- | --- | --- |\n")
	for _, p := range Pains() {
		if p.Unseen != "" && len(answers[p.ID]) == 0 {
			fmt.Fprintf(w, "| %s | %s | %s |\n", p.ID, p.What, p.Unseen)
		}
	}
}

func severities(c *Check) string {
	var all []string
	for _, s := range c.Severities {
		all = append(all, string(s))
	}
	return strings.Join(all, ", ")
}

// answersOf are the codes of checks, by pain.
func answersOf(checks []Check) map[string][]string {
	answers := map[string][]string{}
	for i := range checks {
		for _, p := range checks[i].Pains {
			if !slices.Contains(answers[p], checks[i].Code) {
				answers[p] = append(answers[p], checks[i].Code)
			}
		}
	}
	return answers
}

// cases are the files of testdata in which a check finds something, and those in which it does not.
func cases(code string) (finds, passes []string) {
	files, _ := filepath.Glob("testdata/" + code + "-*.yaml")
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		if _, found, _ := strings.Cut(string(text), separator); strings.Contains(found, code+" ") {
			finds = append(finds, f)
		} else {
			passes = append(passes, f)
		}
	}
	return finds, passes
}

// links are links to files, from docs.
func links(files []string) string {
	var all []string
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".yaml")
		all = append(all, fmt.Sprintf("[%s](../controller/check/%s)", name[len("ISM000-"):], f))
	}
	return strings.Join(all, ", ")
}

// TestChecksAreDescribed: each has what the reference and people who are told of it need.
func TestChecksAreDescribed(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range All() {
		if seen[c.Code] || len(c.Code) != 6 || !strings.HasPrefix(c.Code, "ISM") || c.Find == nil {
			t.Errorf("%s: twice, or no code, or finds nothing", c.Code)
		}
		seen[c.Code] = true
		for name, text := range map[string]string{"title": c.Title, "matter": c.Matter, "harm": c.Harm, "fix": c.Fix} {
			if text == "" || strings.TrimSpace(text) != text || strings.ContainsAny(text, "\n|") {
				t.Errorf("%s: its %s is %q", c.Code, name, text)
			}
		}
		if len(c.Severities) == 0 || !slices.IsSortedFunc(c.Severities, func(a, b v1alpha1.Severity) int { return weight(a) - weight(b) }) {
			t.Errorf("%s: its severities are %v, the worst is to be first", c.Code, c.Severities)
		}
	}
}

// unanswered are pains that objects show, and that no check answers.
func unanswered() []string {
	return []string{
		"B9", "D5", "EI02",
	}
}

// TestEveryPainIsAnsweredOrUnseen: a pain is answered, or it says why it cannot be.
func TestEveryPainIsAnsweredOrUnseen(t *testing.T) {
	answers := answersOf(All())
	var lacking []string
	known := map[string]bool{}
	for _, p := range Pains() {
		if known[p.ID] || p.What == "" {
			t.Errorf("%s is there twice, or says nothing", p.ID)
		}
		known[p.ID] = true
		switch answered := len(answers[p.ID]) > 0; {
		case answered && p.Unseen != "":
			t.Errorf("%s is answered by %v, and said to be unseen", p.ID, answers[p.ID])
		case !answered && p.Unseen == "":
			lacking = append(lacking, p.ID)
		}
	}
	if d := cmp.Diff(unanswered(), lacking); d != "" {
		t.Errorf("pains without an answer: -known +are\n%s", d)
	}
	for id, codes := range answers {
		if !known[id] {
			t.Errorf("%v answer %s, which is no pain", codes, id)
		}
	}
}
