package world_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/world"
)

// nested is the test binary in a role, as the process outside of a world of its own.
func nested(role string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleEnv+"="+role)
	cmd.Stderr = os.Stderr
	return cmd
}

// asNobody takes all power away from cmd.
func asNobody(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if uids, err := os.ReadFile("/proc/self/uid_map"); err != nil || len(strings.Fields(string(uids))) != 3 ||
		strings.Fields(string(uids))[2] == "1" {
		t.Skip("this world has one user only: it is the run of an ordinary user already")
	}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
}

func TestInsideIsAloneAndItsLoopbackIsUp(t *testing.T) {
	if got := linkNames(); got != "lo:true" {
		t.Errorf("links: got %q, want lo:true", got)
	}
	if !world.Inside() {
		t.Error("Inside is false")
	}
}

func TestNestedWorld(t *testing.T) {
	for _, ordinary := range []bool{false, true} {
		t.Run("ordinary user "+strconv.FormatBool(ordinary), func(t *testing.T) {
			cmd := nested("who")
			if ordinary {
				asNobody(t, cmd)
			}
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Fields(string(out))
			if len(got) != 3 || got[0] != "0" || got[2] != "lo:true" {
				t.Fatalf("uid, pid, links: got %q", out)
			}
			if pid, err := strconv.Atoi(got[1]); err != nil || pid < 2 || pid > 20 {
				t.Errorf("pid %s is not of a new process namespace", got[1])
			}
		})
	}
}

func TestExitCodeIsTheProgrammes(t *testing.T) {
	for role, want := range map[string]int{"code": 42, "die": 128 + 9, "orphans": 0} {
		t.Run(role, func(t *testing.T) {
			err := nested(role).Run()
			got := 0
			if exit, ok := errors.AsType[*exec.ExitError](err); ok {
				got = exit.ExitCode()
			} else if err != nil {
				t.Fatal(err)
			}
			if got != want {
				t.Errorf("exit code: got %d, want %d", got, want)
			}
		})
	}
}

func TestForbiddenNamespacesSkipExceptInCI(t *testing.T) {
	for ci, want := range map[string]int{"true": 1, "": 0} {
		t.Run("CI="+ci, func(t *testing.T) {
			cmd := nested("forbidden")
			cmd.Env = append(cmd.Env, "CI="+ci)
			asNobody(t, cmd) // the limit is then that of his own user namespace
			out, err := cmd.Output()
			if err != nil && cmd.ProcessState == nil {
				t.Fatal(err)
			}
			if code := cmd.ProcessState.ExitCode(); code != want || !strings.Contains(string(out), "max_net_namespaces") {
				t.Errorf("got exit code %d and %q, want %d and a remedy", code, out, want)
			}
		})
	}
}

func TestStandardInputReachesTheProgram(t *testing.T) {
	cmd := nested("cat")
	cmd.Stdin = strings.NewReader("through")
	out, err := cmd.Output()
	if err != nil || string(out) != "through" {
		t.Fatalf("got %q, %v", out, err)
	}
}

// start starts cmd and returns its output, which ends when the last process that holds it is gone.
func start(t *testing.T, cmd *exec.Cmd) (*bufio.Reader, *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := r.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return bufio.NewReader(r), r
}

func wantLine(t *testing.T, r *bufio.Reader, want string) {
	t.Helper()
	got, err := r.ReadString('\n')
	if err != nil || got != want+"\n" {
		t.Fatalf("read line: got %q, %v, want %q", got, err, want)
	}
}

func TestKillNineLeavesNothing(t *testing.T) {
	for _, ordinary := range []bool{false, true} {
		t.Run("ordinary user "+strconv.FormatBool(ordinary), func(t *testing.T) {
			cmd := nested("family")
			if ordinary {
				asNobody(t, cmd)
			}
			out, _ := start(t, cmd)
			wantLine(t, out, "sleeping")
			wantLine(t, out, "sleeping")
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			if rest, err := io.ReadAll(out); err != nil || len(rest) > 0 {
				t.Fatalf("a process of the world lives on: %q, %v", rest, err)
			}
		})
	}
}

func TestSignalsAreRelayedOnce(t *testing.T) {
	cmd := nested("signal")
	out, _ := start(t, cmd)
	wantLine(t, out, "ready")
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGUSR1, syscall.SIGTERM} {
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		wantLine(t, out, s.String())
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 7 {
		t.Errorf("exit code: got %d, want 7", code)
	}
}

// orphans leaves processes behind that end, and waits until pid 1 has reaped them.
func orphans() int {
	cmd := exec.Command("/bin/sh", "-c", "(sleep 0 & echo $!) & wait")
	out, err := cmd.Output()
	if err != nil {
		return 1
	}
	pid := string(bytes.TrimSpace(out))
	for range 500 {
		if _, err := os.Stat(filepath.Join("/proc", pid)); errors.Is(err, os.ErrNotExist) {
			return 0
		}
		time.Sleep(10 * time.Millisecond)
	}
	return 2
}

func TestFuncCommand(t *testing.T) {
	cmd := world.FuncCommand("say", "one", "two")
	cmd.Env = []string{} // the name does not travel in it
	out, err := cmd.Output()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != 3 || string(out) != "one two" {
		t.Errorf("got %q, %v", out, err)
	}
	err = world.FuncCommand("unknown").Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 127 {
		t.Errorf("unknown function: got %v", err)
	}
}
