package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/programs"
)

func TestShellCheckFindsNothing(t *testing.T) {
	set, err := programs.Ensure(t.Context(), []programs.Name{programs.ShellCheck}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range set.Missing() {
		t.Skip(m.Reason)
	}
	if out, err := exec.CommandContext(t.Context(), set.Path(programs.ShellCheck), "demo.sh").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// stage is a clone with nothing in it but the script, and a PATH with nothing in it but what stands in for the tools.
type stage struct {
	t           *testing.T
	root, calls string
}

// stands are what stands in for a tool, after it has noted how it was called.
var stands = map[string]string{
	"go":       `while [ $# -gt 0 ]; do [ "$1" != -o ] || out=$2; shift; done; [ ! -d "$out" ] && : >"$out" || :`,
	"docker":   `[ "$1" != version ] || echo amd64`,
	"kind":     `case "$1 $2" in "get clusters") cat "$STAGE/clusters";; "create cluster") echo $$ >"$STAGE/creating"; exec sleep 300;; esac`,
	"kubectl":  ``,
	"istioctl": ``,
}

func newStage(t *testing.T, without ...string) *stage {
	t.Helper()
	s := &stage{t: t, root: t.TempDir()}
	s.calls = filepath.Join(s.root, "calls")
	script, err := filepath.Abs("demo.sh")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"e2e/kind", ".ci", "path", "tmp"} {
		if err := os.MkdirAll(filepath.Join(s.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(script, filepath.Join(s.root, "e2e/kind/demo.sh")); err != nil {
		t.Fatal(err)
	}
	for _, tool := range []string{"bash", "sh", "dirname", "date", "mkdir", "mktemp", "rm", "sleep", "tail", "tr", "cut", "cat", "grep", "sed", "awk"} {
		path, err := exec.LookPath(tool)
		if err == nil {
			err = os.Symlink(path, filepath.Join(s.root, "path", tool))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s.write("clusters", "kind\n", 0o644)
	s.write("calls", "", 0o644)
	s.write(".ci/need", "", 0o755)
	for name, does := range stands {
		s.stand(name, does)
	}
	for _, name := range without {
		if err := os.Remove(filepath.Join(s.root, "path", name)); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// stand makes what stands in for a tool.
func (s *stage) stand(name, does string) {
	s.t.Helper()
	s.write("path/"+name, "#!/bin/sh\necho \""+name+" $*\" >>\"$STAGE/calls\"\n"+does+"\n", 0o755)
}

func (s *stage) write(name, text string, mode os.FileMode) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.root, name), []byte(text), mode); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) read(name string) string {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.root, name))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// demo is the script, started by nobody yet; out has what it says.
func (s *stage) demo(ctx context.Context, out *bytes.Buffer, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(s.root, "path", "bash"), append([]string{filepath.Join(s.root, "e2e/kind/demo.sh")}, args...)...)
	cmd.Env = []string{"PATH=" + filepath.Join(s.root, "path"), "STAGE=" + s.root, "HOME=" + s.root, "TMPDIR=" + filepath.Join(s.root, "tmp")}
	cmd.Stdout, cmd.Stderr = out, out
	return cmd
}

// left are the files that the script has made and not removed.
func (s *stage) left() []string {
	s.t.Helper()
	var all []string
	for _, pattern := range []string{"bin/*", "tmp/*"} {
		files, err := filepath.Glob(filepath.Join(s.root, pattern))
		if err != nil {
			s.t.Fatal(err)
		}
		all = append(all, files...)
	}
	return all
}

func TestWhatIsMissingIsSaidAtOnce(t *testing.T) {
	s := newStage(t, "kind", "istioctl", "docker")
	var out bytes.Buffer
	if err := s.demo(t.Context(), &out).Run(); err == nil {
		t.Error("it went on")
	}
	for _, want := range []string{"there is no kind in PATH: go install sigs.k8s.io/kind@", "there is no istioctl in PATH: install", "there is no docker in PATH: install"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, out.String())
		}
	}
	if calls := s.read("calls"); calls != "" || len(s.left()) > 0 {
		t.Errorf("it called %s and left %q", calls, s.left())
	}
}

func TestAClusterOfTheSameNameIsLeftAlone(t *testing.T) {
	s := newStage(t)
	s.write("clusters", "kind\nisthmus-demo\n", 0o644)
	var out bytes.Buffer
	if err := s.demo(t.Context(), &out).Run(); err == nil || !strings.Contains(out.String(), "kind delete cluster --name isthmus-demo removes it") {
		t.Errorf("%v, and it says:\n%s", err, out.String())
	}
	if calls := s.read("calls"); strings.Contains(calls, "delete") || strings.Contains(calls, "create") || strings.Contains(calls, "rmi") {
		t.Errorf("it called\n%s", calls)
	}
}

// TestANameThatIsTakenMeanwhile is that of a cluster which somebody makes while the images are being built: it is not ours to remove.
func TestANameThatIsTakenMeanwhile(t *testing.T) {
	s := newStage(t)
	s.stand("docker", `case $1 in version) echo amd64;; build) echo isthmus-demo >>"$STAGE/clusters";; esac`)
	s.stand("kind", `case "$1 $2" in "get clusters") cat "$STAGE/clusters";; "create cluster") exit 1;; esac`) // as kind does then
	var out bytes.Buffer
	if err := s.demo(t.Context(), &out).Run(); err == nil || !strings.Contains(out.String(), "there is a cluster isthmus-demo already") {
		t.Errorf("%v, and it says:\n%s", err, out.String())
	}
	calls := s.read("calls")
	if strings.Contains(calls, "kind delete") || strings.Contains(calls, "kind create") {
		t.Errorf("it called\n%s", calls)
	}
	if !strings.Contains(calls, "docker rmi isthmus:isthmus-demo ") || len(s.left()) > 0 {
		t.Errorf("it left %q, and called\n%s", s.left(), calls)
	}
}

func TestWithoutAnAnswerNoNameIsFree(t *testing.T) {
	s := newStage(t)
	s.stand("kind", `[ "$1 $2" != "get clusters" ]`)
	var out bytes.Buffer
	if err := s.demo(t.Context(), &out).Run(); err == nil || !strings.Contains(out.String(), "see what kind get clusters says") {
		t.Errorf("%v, and it says:\n%s", err, out.String())
	}
	if calls := s.read("calls"); strings.Contains(calls, "delete") || strings.Contains(calls, "create") || strings.Contains(calls, "build") {
		t.Errorf("it called\n%s", calls)
	}
}

// TestAClusterThatStaysIsSaid, also where the story, here cut off once there is a cluster, was told to its end.
func TestAClusterThatStaysIsSaid(t *testing.T) {
	s := newStage(t)
	s.stand("kind", `[ "$1" != delete ] || { echo "it clings" >&2; exit 1; }`)
	script := filepath.Join(s.root, "e2e/kind/demo.sh")
	text, _, found := strings.Cut(s.read("e2e/kind/demo.sh"), "\nrun \"Loading the images")
	if err := os.Remove(script); err != nil || !found {
		t.Fatalf("%v, and there is a place to cut: %t", err, found)
	}
	s.write("e2e/kind/demo.sh", text+"\n", 0o644)
	var out bytes.Buffer
	cmd := s.demo(t.Context(), &out)
	err := cmd.Run()
	if cmd.ProcessState.ExitCode() != 1 || strings.Contains(out.String(), "Nothing of it is left") {
		t.Errorf("%v, and it says:\n%s", err, out.String())
	}
	for _, want := range []string{"it clings", "cluster isthmus-demo is still there: kind delete cluster --name isthmus-demo removes it"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, out.String())
		}
	}
}

func TestImagesOfOnesOwnNeedNames(t *testing.T) {
	s := newStage(t)
	var out bytes.Buffer
	cmd := s.demo(t.Context(), &out)
	cmd.Env = append(cmd.Env, "IMAGES=local")
	if err := cmd.Run(); err == nil || !strings.Contains(out.String(), "IMAGES=local needs ISTIO_HUB and ISTIO_TAG") {
		t.Errorf("%v, and it says:\n%s", err, out.String())
	}
}

// TestInterruptedItLeavesNothing, in the middle of what takes longest, and also where the cluster was to be kept.
func TestInterruptedItLeavesNothing(t *testing.T) {
	for name, signal := range map[string]syscall.Signal{"by Ctrl-C": syscall.SIGINT, "by kill": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			var out bytes.Buffer
			cmd := s.demo(t.Context(), &out, "--keep")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			pid := s.creating()
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			err := cmd.Wait()
			if cmd.ProcessState.ExitCode() != 130 {
				t.Errorf("it ended with %v:\n%s", err, out.String())
			}
			calls := s.read("calls")
			for _, want := range []string{"kind delete cluster --name isthmus-demo ", "docker rmi isthmus:isthmus-demo story/orders "} {
				if strings.Count(calls, want) != 1 {
					t.Errorf("%q was not called once:\n%s", want, calls)
				}
			}
			if strings.Count(calls, "kind delete") != 1 {
				t.Errorf("it deletes more:\n%s", calls)
			}
			if left := s.left(); len(left) > 0 {
				t.Errorf("it left %q", left)
			}
			if _, err := os.Stat("/proc/" + pid); err == nil {
				t.Errorf("process %s of kind create cluster lives on", pid)
			}
		})
	}
}

// creating waits until the cluster is being made, and is the process that makes it.
func (s *stage) creating() string {
	s.t.Helper()
	for range 600 {
		if pid, err := os.ReadFile(filepath.Join(s.root, "creating")); err == nil && bytes.HasSuffix(pid, []byte("\n")) {
			return string(bytes.TrimSpace(pid))
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.t.Fatal("no cluster was made in 30 s")
	return ""
}
