package citest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// repository is a small one with this project's scripts and a go command that says what the test wants.
type repository struct {
	t   *testing.T
	dir string
}

// newRepository has a go command of which test answers go test: a part of a shell script, whose arguments are those of go.
func newRepository(t *testing.T, test string) *repository {
	t.Helper()
	r := &repository{t, t.TempDir()}
	for _, name := range []string{"compile", "demo", "failed", "fuzz", "modules", "need", "stories", "test", "unless"} {
		text, err := os.ReadFile(filepath.Join("../../.ci", name))
		if err != nil {
			t.Fatal(err)
		}
		r.write(".ci/"+name, string(text), 0o755)
	}
	r.write("go.mod", "module example.com/product\n", 0o644)
	r.write("e2e/go.mod", "module example.com/product/e2e\n", 0o644)
	r.write("tools/cc", "#!/bin/sh\n", 0o755)
	r.write("tools/sleep", "#!/bin/sh\n", 0o755) // nobody waits for a calm machine
	r.write("tools/go", `#!/bin/sh
case "$1 $2" in
"env GOVERSION") echo "${PLAYED_GOVERSION:-go1.26.0}" ;;
"env GOCACHE") echo "${PLAYED_GOCACHE:-}" ;;
"env GOMODCACHE") echo "${PLAYED_GOMODCACHE:-}" ;;
"env "*) ;;
"vet "*) ;;
"list "*) case "$PWD" in */e2e) echo example.com/product/e2e ;; *) echo example.com/product ;; esac ;;
"build "*) printf '#!/bin/sh\n%s\n' "${PLAYED_DEMO:-}" >../bin/demo; chmod +x ../bin/demo ;;
"test "*)
`+test+`
;;
*) echo "go $* is not played" >&2; exit 2 ;;
esac
`, 0o755)
	r.write("bin/none", "", 0o644)
	return r
}

func (r *repository) write(name, text string, mode os.FileMode) {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		r.t.Fatal(err)
	}
}

// run runs a script, with variables of the environment, and returns what it says and its exit code.
func (r *repository) run(env []string, script string, args ...string) (string, int) {
	r.t.Helper()
	cmd := exec.CommandContext(r.t.Context(), "sh", append([]string{filepath.Join(r.dir, script)}, args...)...)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(r.dir, "tools")+":"+os.Getenv("PATH"), "STATE="+r.dir, "GOFLAGS=", "CI=", "CC=", "ISTHMUS_UNJUDGED=")
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	if _, is := errors.AsType[*exec.ExitError](err); err != nil && !is {
		r.t.Fatal(err)
	}
	r.t.Logf("%s %s: exit code %d\n%s", script, strings.Join(args, " "), cmd.ProcessState.ExitCode(), out)
	return string(out), cmd.ProcessState.ExitCode()
}

// has wants all of some texts in said, and none of others.
func has(t *testing.T, said string, want, not []string) {
	t.Helper()
	for _, text := range want {
		if !strings.Contains(said, text) {
			t.Errorf("it does not say %q", text)
		}
	}
	for _, text := range not {
		if strings.Contains(said, text) {
			t.Errorf("it says %q", text)
		}
	}
}
