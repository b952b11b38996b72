package v1alpha1_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestGeneratedIsCurrent generates into another folder by the command of go generate, and compares.
func TestGeneratedIsCurrent(t *testing.T) {
	if testing.Short() && os.Getenv("CI") != "true" {
		t.Skip("builds controller-gen")
	}
	text, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "//go:generate ")
	command, _, _ := strings.Cut(rest, "\n")
	args := strings.Fields(command)
	if !ok || len(args) == 0 || args[0] != "go" {
		t.Fatalf("doc.go has no command of go generate: %q", args)
	}
	dir := t.TempDir()
	for i, a := range args {
		if strings.HasPrefix(a, "output:crd:dir=") {
			args[i] = "output:crd:dir=" + dir
		}
	}
	args = append(args, "output:object:dir="+dir)
	if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	for name, committed := range map[string]string{
		"zz_generated.deepcopy.go":      "zz_generated.deepcopy.go",
		"isthmus.dev_ambientedges.yaml": "../../../manifests/crd/isthmus.dev_ambientedges.yaml",
	} {
		want, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(committed)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), string(got)); d != "" {
			t.Errorf("%s is stale (run go generate ./controller/...): -want +got\n%s", committed, d)
		}
	}
}
