package world_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/world"
)

// ordered is a process that runs a command by the socket at args[0].
func ordered(args []string) int {
	code, err := world.Exec(context.Background(), args[0], args[1:])
	if err != nil {
		fmt.Println("error:", err)
		return 77
	}
	return code
}

// TestExec has commands run for a process of the test, as one on the host would ask.
func TestExec(t *testing.T) {
	// A path that is too long for a socket's name.
	path := filepath.Join(t.TempDir(), strings.Repeat("long", 25), "exec")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	wait, err := world.ServeExec(ctx, path, func(ctx context.Context, argv []string, std [3]*os.File) (int, error) {
		if argv[0] == "nobody" {
			return 0, errors.New("there is no nobody")
		}
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = std[0], std[1], std[2]
		_ = cmd.Run()
		return cmd.ProcessState.ExitCode(), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	order := func(args ...string) *exec.Cmd {
		return world.FuncCommand("ordered", append([]string{path}, args...)...)
	}
	for name, c := range map[string]struct {
		args []string
		in   string
		out  string
		code int
	}{
		"its standard files and its exit code": {args: []string{"sh", "-c", "cat; exit 3"}, in: "hello", out: "hello", code: 3},
		"an error":                             {args: []string{"nobody", "there"}, out: "error: there is no nobody\n", code: 77},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := order(c.args...)
			cmd.Stdin = strings.NewReader(c.in)
			out, _ := cmd.Output()
			if code := cmd.ProcessState.ExitCode(); string(out) != c.out || code != c.code {
				t.Errorf("got %q and exit code %d, want %q and %d", out, code, c.out, c.code)
			}
		})
	}
	t.Run("it ends with who asked", func(t *testing.T) {
		cmd := order("sh", "-c", "echo runs; exec sleep 1000")
		out, pipe := start(t, cmd)
		wantLine(t, out, "runs")
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if err := pipe.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if rest, err := out.ReadString('\n'); rest != "" || os.IsTimeout(err) {
			t.Errorf("it lives on: %q, %v", rest, err)
		}
	})
	t.Run("it ends with the world", func(t *testing.T) {
		cmd := order("sh", "-c", "echo runs; exec sleep 1000")
		out, _ := start(t, cmd)
		wantLine(t, out, "runs")
		cancel()
		wait()
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code == 0 {
			t.Error("it ended well")
		}
	})
}
