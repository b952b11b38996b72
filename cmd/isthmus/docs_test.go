package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

//go:generate go test -run TestReferenceIsCurrent|TestReadmeShowsWhatIsFound . -update

var update = flag.Bool("update", false, "write docs/cli.md, and what README shows, anew")

const reference = "../../docs/cli.md"

func TestReferenceIsCurrent(t *testing.T) {
	t.Setenv("POD_NAMESPACE", "")
	var want bytes.Buffer
	writeReference(&want, newRoot(&app{getenv: func(string) string { return "" }}))
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
		t.Errorf("docs/cli.md is stale (run go generate ./cmd/isthmus): -want +got\n%s", d)
	}
}

// writeReference describes root and its commands as Markdown.
func writeReference(w *bytes.Buffer, root *cobra.Command) {
	w.WriteString("<!-- Generated from the commands: go generate ./cmd/isthmus -->\n\n# The command isthmus\n\n")
	long, codes, _ := strings.Cut(root.Long, "Exit codes:\n")
	codes, rest, _ := strings.Cut(codes, "\n\n")
	fmt.Fprintf(w, "%s\n\n| exit code | meaning |\n| --- | --- |\n", strings.TrimSpace(long))
	for _, line := range strings.Split(codes, "\n") {
		code, meaning, _ := strings.Cut(strings.TrimSpace(line), "  ")
		fmt.Fprintf(w, "| %s | %s |\n", code, meaning)
	}
	fmt.Fprintf(w, "\n%s\n\n```sh\n%s\n```\n\n", strings.TrimSpace(rest), unindent(root.Example))
	w.WriteString("| command | what it does |\n| --- | --- |\n")
	var commands []*cobra.Command
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() {
			commands = append(commands, c)
			fmt.Fprintf(w, "| [%s](#%s) | %s |\n", c.CommandPath(), strings.ReplaceAll(c.CommandPath(), " ", "-"), c.Short)
		}
	}
	for _, c := range commands {
		fmt.Fprintf(w, "\n## %s\n\n```text\n%s\n```\n\n%s\n\n```sh\n%s\n```\n\n", c.CommandPath(), strings.TrimSuffix(c.UseLine(), " [flags]"), c.Long, unindent(c.Example))
		writeFlags(w, c.NonInheritedFlags())
	}
	w.WriteString("\n## Flags of all commands\n\n")
	writeFlags(w, root.PersistentFlags())
}

func writeFlags(w *bytes.Buffer, flags *pflag.FlagSet) {
	var rows []string
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		if value != "" {
			name += " " + value
		}
		def := f.DefValue
		if def == "false" || def == "[]" {
			def = ""
		}
		if def != "" {
			def = "`" + strings.Trim(def, "[]") + "`"
		}
		rows = append(rows, fmt.Sprintf("| `%s` | %s | %s |\n", name, strings.ReplaceAll(usage, "|", "\\|"), def))
	})
	if len(rows) == 0 {
		return
	}
	w.WriteString("| flag | meaning | default |\n| --- | --- | --- |\n" + strings.Join(rows, ""))
}

// unindent takes two blanks from the start of each line.
func unindent(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimPrefix(l, "  ")
	}
	return strings.Join(lines, "\n")
}
