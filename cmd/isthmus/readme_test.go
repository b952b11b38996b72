package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestReadmeShowsWhatIsFound: README's example of isthmus check is what it says, but for the time that it takes.
func TestReadmeShowsWhatIsFound(t *testing.T) {
	t.Chdir(repoRoot)
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	const begin = "```console\n$ isthmus check "
	before, rest, ok := strings.Cut(string(text), begin)
	args, rest, ok2 := strings.Cut(rest, "\n")
	shown, after, ok3 := strings.Cut(rest, "```")
	if !ok || !ok2 || !ok3 {
		t.Fatal("README does not show isthmus check")
	}
	r := isthmus(t, append([]string{"check"}, strings.Fields(args)...)...)
	took := regexp.MustCompile(` in \d+\.\d s`)
	got := took.ReplaceAllString(r.stdout, " in 0.0 s")
	if *update {
		if err := os.WriteFile("README.md", []byte(before+begin+args+"\n"+got+"```"+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want := took.ReplaceAllString(shown, " in 0.0 s"); got != want || r.code != exitFailed {
		t.Errorf("exit code %d; README shows\n%s\nand it says\n%s", r.code, want, got)
	}
}

// TestReadmeListsTheCommands: but those that every program has, and the controller, which is told of above them.
func TestReadmeListsTheCommands(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(text), "- **A command**")
	line, _, _ = strings.Cut(line, "\n")
	for _, c := range newRoot(&app{getenv: os.Getenv}).Commands() {
		switch c.Name() {
		case "completion", "controller", "help", "version":
			continue
		}
		if !strings.Contains(line, "`"+c.Name()+"`") && !strings.Contains(line, "`isthmus "+c.Name()+"`") {
			t.Errorf("README does not list isthmus %s", c.Name())
		}
	}
}

// TestReadmeIsShort: people read it.
func TestReadmeIsShort(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n"); n > 150 {
		t.Errorf("README has %d lines", n)
	}
}
