package command

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/programs"
	"github.com/isthmus-mesh/isthmus/e2e/world"
)

// Result is what a command said and how it ended.
type Result struct {
	Stdout, Stderr string
	Code           int
	Took           time.Duration
}

// Build builds the command for one test and returns its path.
func Build(t *testing.T) string {
	t.Helper()
	path, err := programs.Isthmus(t.Context(), t.TempDir(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Run runs the command at path to its end, 30 s at most: in ns, or where the test runs when that is nil. env counts before what the test itself has.
func Run(t *testing.T, path string, ns *world.NS, env []string, args ...string) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := cmd.Start
	if ns != nil {
		start = func() error { return ns.Start(cmd) }
	}
	begin := time.Now()
	if err := start(); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	r := Result{Stdout: stdout.String(), Stderr: stderr.String(), Took: time.Since(begin)}
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		r.Code = e.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	t.Logf("isthmus %s: exit code %d after %v\n%s%s", strings.Join(args, " "), r.Code, r.Took.Round(time.Millisecond), r.Stdout, r.Stderr)
	return r
}

// Want checks the code, and that all parts are said in stream, in order.
func (r Result) Want(t *testing.T, code int, stream string, parts ...string) {
	t.Helper()
	if r.Code != code {
		t.Errorf("exit code %d, want %d", r.Code, code)
	}
	for _, p := range parts {
		at := strings.Index(stream, p)
		if at < 0 {
			t.Errorf("%q is not said (in this order)", p)
			return
		}
		stream = stream[at+len(p):]
	}
}
