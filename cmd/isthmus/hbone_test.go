package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestExampleOfHBONERuns runs the example of package hbone's README as it stands. It runs Go, which Go's cache does not see, and stands here so that the
// cache may answer for package hbone.
func TestExampleOfHBONERuns(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(repoRoot, "hbone", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(readme), "```go\npackage main\n")
	code, _, closed := strings.Cut(rest, "```")
	if !ok || !closed {
		t.Fatal("hbone/README.md has no program")
	}
	file := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(file, []byte("package main\n"+code), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "go", "run", file).CombinedOutput()
	if err != nil || string(out) != "hello spiffe://cluster.local/ns/edge/sa/gateway <nil>\n" {
		t.Errorf("%v\n%s", err, out)
	}
	if formatted, err := exec.CommandContext(t.Context(), "gofmt", "-l", file).CombinedOutput(); err != nil || len(formatted) > 0 {
		t.Errorf("gofmt: %v %s", err, formatted)
	}
	_, body, _ := strings.Cut(code, "func main() {\n")
	body, _, _ = strings.Cut(body, "\n}\n")
	if lines := strings.Count(body, "\n") + 1 - strings.Count(body, "\n\n"); lines > 15 {
		t.Errorf("the example has %d lines", lines)
	}
}
