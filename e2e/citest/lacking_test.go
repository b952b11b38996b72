package citest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestWhatAMachineLacksFailsInCI: elsewhere it is left out, and said in the last lines.
func TestWhatAMachineLacksFailsInCI(t *testing.T) {
	const tests = `printf 'ok  \texample.com/product\t1.2s\n'`
	for name, c := range map[string]struct {
		demo string // what it says is missing
		test string
		env  func(t *testing.T, r *repository) []string
		must bool
		want string
	}{
		"a C compiler": {test: tests, env: withoutCompiler, must: true, want: "the race detector: no C compiler (install gcc or clang)"},
		"pip with Envoy": {demo: "echo 'Left out here: envoy. there is no pip'", test: tests, must: true,
			want: "waypoints, Istio's gateway, policies of layer 7: envoy. there is no pip"},
		"network namespaces": {demo: "echo 'world: they are forbidden' >&2; exit 1", test: tests, must: true,
			want: "every test on the real control plane: world: they are forbidden"},
		"nftables": {demo: "echo 'Left out here: nftables, and so refusing plaintext. not allowed'", test: tests, must: true,
			want: "nftables, and so refusing plaintext. not allowed"},
		"nothing": {test: tests},
	} {
		for _, ci := range []string{"CI=true", "CI="} {
			t.Run(name+", "+ci, func(t *testing.T) {
				r := newRepository(t, c.test)
				env := []string{ci, "PLAYED_DEMO=" + c.demo}
				if c.env != nil {
					env = append(env, c.env(t, r)...)
				}
				said, code := r.run(env, ".ci/test")
				if c.must && ci == "CI=true" {
					if code != 1 || !strings.HasSuffix(said, "isthmus: CI must have all of these:\n  - "+c.want+"\n") || strings.Contains(said, "ok  \t") {
						t.Errorf("exit code %d, want 1, what is missing in the last line, and no test", code)
					}
					return
				}
				if code != 0 || strings.Count(said, "ok  \t") < 2 {
					t.Errorf("exit code %d, want 0, and all tests", code)
				}
				_, end, is := strings.Cut(said, "left out on this machine:\n")
				if lines := strings.SplitAfter(end, "\n"); is != (c.want != "") || is && !slices.Equal(lines[:1], []string{"  - " + c.want + "\n"}) || is && len(lines) != 3 {
					t.Errorf("left out in the last lines: %q, want %q, once", end, c.want)
				}
			})
		}
	}
}

// withoutCompiler is a PATH that leads to all programs but C compilers.
func withoutCompiler(t *testing.T, r *repository) []string {
	t.Helper()
	if err := os.Remove(filepath.Join(r.dir, "tools/cc")); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, from := range filepath.SplitList(os.Getenv("PATH")) {
		programs, _ := os.ReadDir(from) // one that is not there has none
		for _, p := range programs {
			if name := p.Name(); !slices.Contains([]string{"cc", "gcc", "clang"}, name) {
				_ = os.Symlink(filepath.Join(from, name), filepath.Join(dir, name)) // the first in PATH stays
			}
		}
	}
	return []string{"PATH=" + filepath.Join(r.dir, "tools") + ":" + dir}
}
