package story_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/programs"
	"github.com/isthmus-mesh/isthmus/e2e/story"
	"github.com/isthmus-mesh/isthmus/e2e/story/state"
)

const root = "../.."

// blocks are README's blocks of code in a language.
func blocks(t *testing.T, language string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, part := range strings.Split(string(text), "\n```"+language+"\n")[1:] {
		block, _, ok := strings.Cut(part, "\n```")
		if !ok {
			t.Fatalf("a block of %s has no end", language)
		}
		all = append(all, block)
	}
	return all
}

// TestReadmeProgram compiles README's program.
func TestReadmeProgram(t *testing.T) {
	code := blocks(t, "go")
	if len(code) != 1 {
		t.Fatalf("README has %d programs, want 1", len(code))
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "main.go")
	if err := os.WriteFile(path, []byte(code[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "program"), path)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("README's program does not compile: %v\n%s", err, out)
	}
}

// TestReadmeCommands runs README's commands in the scene that they are written for.
func TestReadmeCommands(t *testing.T) {
	scripts := blocks(t, "sh")
	if len(scripts) != 2 {
		t.Fatalf("README has %d blocks of commands, want 2", len(scripts))
	}
	for line := range strings.Lines(scripts[0]) { // they run this test, among others
		target := strings.TrimPrefix(strings.Fields(line)[0]+" "+strings.Fields(line)[1], "make ")
		cmd := exec.CommandContext(t.Context(), "make", "-n", target)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", line, err, out)
		}
	}
	ctx := t.Context()
	w := shared.Get(t)
	if !w.Envoy {
		t.Log("without Envoy a waypoint that the commands ask for never answers: the commands run, the edge does not become ready")
	}
	bin := t.TempDir()
	if err := os.Symlink(w.Programs.Path(programs.Kubectl), filepath.Join(bin, "kubectl")); err != nil {
		t.Fatal(err)
	}
	sh := func(script string) (string, error) {
		cmd := exec.CommandContext(ctx, "sh", "-euxc", script)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "KUBECONFIG="+w.Kubeconfig, "PATH="+bin+":"+os.Getenv("PATH"))
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := w.NS.Start(cmd); err != nil {
			return "", err
		}
		err := cmd.Wait()
		return out.String(), err
	}
	// kubectl notes on what is installed what it has applied.
	if out, err := sh("kubectl apply -k manifests"); err != nil {
		t.Fatal(err, out)
	}
	before, err := state.Read(ctx, w.Config)
	if err != nil {
		t.Fatal(err)
	}
	out, err := sh(scripts[1])
	t.Log(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Plan of AmbientEdge edge/public", "steps are left", "ambientedge.isthmus.dev/public created", "NAME"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not said", want)
		}
	}
	for deadline := time.Now().Add(30 * time.Second); w.Envoy; time.Sleep(200 * time.Millisecond) {
		if out, err = sh("bin/isthmus status edge/public --require-ready"); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(out, err)
		}
	}
	if p, err := w.FromOutside(ctx, story.Plain); w.Envoy && (err != nil || p.Status != 200 || p.Clear) {
		t.Errorf("after README's commands: %+v, %v; want 200 that nobody can read", p, err)
	}
	if _, _, err := w.Leave(ctx); err != nil {
		t.Fatal(err)
	}
	if diff, err := w.Same(ctx, before); err != nil || len(diff) > 0 {
		t.Errorf("after the AmbientEdge is deleted: %q, %v", diff, err)
	}
}
