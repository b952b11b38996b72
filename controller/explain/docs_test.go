package explain

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"
)

const document = "../../docs/explain.md"

// example is a case of testdata that the documentation shows, with one of its questions.
var example = regexp.MustCompile("(<!-- case ([a-z0-9-]+): (.+) -->\n```text\n)([^`]*)```\n")

// TestDocumentationShowsWhatIsSaid: the examples of docs/explain.md are answers to cases of testdata.
func TestDocumentationShowsWhatIsSaid(t *testing.T) {
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	shown := 0
	want := example.ReplaceAllStringFunc(string(text), func(block string) string {
		shown++
		at := example.FindStringSubmatch(block)
		return at[1] + answerOf(t, at[2], at[3]) + "```\n"
	})
	if shown < 2 {
		t.Errorf("%d examples are shown", shown)
	}
	if *update {
		if err := os.WriteFile(document, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want != string(text) {
		t.Errorf("docs/explain.md is stale: go test ./controller/explain -update")
	}
}

// answerOf asks a question of a case, below the command that asks it.
func answerOf(t *testing.T, name, line string) string {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	in, rest, _ := strings.Cut(string(text), questions)
	asked, _, _ := strings.Cut(rest, answers)
	if !strings.Contains("\n"+asked, "\n"+line+"\n") {
		t.Fatalf("%s does not ask %q", name, line)
	}
	words := strings.Fields(line)
	command := "$ isthmus explain --from " + words[0] + " --to " + words[1]
	for _, w := range words[2:] {
		if name, value, is := strings.Cut(w, "="); is {
			w = name + " " + value
		}
		command += " --" + w
	}
	var out bytes.Buffer
	out.WriteString(command + "\n")
	say(t, &out, worldOf(t, in), words)
	return strings.TrimRight(out.String(), "\n") + "\n"
}
