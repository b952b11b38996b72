package world_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/world"
)

// output runs c outside and returns what it wrote.
func output(ctx context.Context, t *testing.T, c world.HostCommand) (string, error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c.Stdout, c.Stderr = w, w
	err = c.Run(ctx)
	w.Close()
	b, readErr := io.ReadAll(r)
	if readErr != nil {
		t.Fatal(readErr)
	}
	return string(b), err
}

// echoOnce answers each connection after its half-close.
func echoOnce(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		b, _ := io.ReadAll(c)
		_, _ = c.Write(append([]byte("heard "), b...))
		c.Close()
	}
}

func TestPublishedPortIsReachedFromOutsideOnly(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	go echoOnce(inner)
	addr, err := world.Publish(ctx, func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", inner.Addr().String())
	})
	if err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Errorf("%s is reachable inside", addr)
	}
	out, err := output(t.Context(), t, world.HostCommand{Func: "ask", Argv: []string{addr}})
	if err != nil || out != "heard hello" {
		t.Errorf("from outside: got %q, %v", out, err)
	}
	cancel()
	out, err = output(t.Context(), t, world.HostCommand{Func: "ask", Argv: []string{addr}})
	if err == nil && strings.Contains(out, "heard") {
		t.Errorf("after the end of ctx: still answered %q", out)
	}
}

func TestHostListenRefuses(t *testing.T) {
	l, err := world.HostListen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, c := range map[string]struct{ address, want string }{
		"a busy port":       {l.Addr().String(), "another program has that port"},
		"all addresses":     {"0.0.0.0:0", "only loopback"},
		"no port":           {"127.0.0.1", "only loopback"},
		"a name, not an ip": {"localhost:0", "only loopback"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := world.HostListen(c.address)
			if err == nil {
				l.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestHostCommand(t *testing.T) {
	inside, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	out, err := output(t.Context(), t, world.HostCommand{Argv: []string{"readlink", "/proc/self/ns/net"}})
	if err != nil || out == "" || strings.TrimSpace(out) == inside {
		t.Errorf("network namespace of a host command: got %q, %v, inside is %q", out, err, inside)
	}
	out, err = output(t.Context(), t, world.HostCommand{
		Argv: []string{"sh", "-c", "pwd; echo $A; exit 5"}, Env: []string{"A=b", "PATH=" + os.Getenv("PATH")}, Dir: "/usr"})
	exit, ok := errors.AsType[*world.HostExitError](err)
	if !ok || exit.Code != 5 || exit.Program != "sh" || out != "/usr\nb\n" {
		t.Errorf("environment, directory, exit code: got %q, %v", out, err)
	}
	for name, c := range map[string]world.HostCommand{
		"unknown program": {Argv: []string{"no-such-program"}},
		"nothing":         {},
	} {
		if err := c.Run(t.Context()); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestCancelKillsHostCommandAndItsChildren(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- world.HostCommand{Argv: []string{"sh", "-c", "sleep 3600 & echo up; wait"}, Stdout: w}.Run(ctx)
		w.Close()
	}()
	if err := r.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := io.ReadAll(r); err != nil {
		t.Errorf("a child lives on: %v", err)
	}
}
