package world_test

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/isthmus-mesh/isthmus/e2e/world"
)

func newNS(t *testing.T, name string) *world.NS {
	t.Helper()
	ns, err := world.NewNS(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

func TestSocketsOfANamespaceAreReachedInItOnly(t *testing.T) {
	a, b := newNS(t, "a"), newNS(t, "b")
	l, err := a.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go echoOnce(l)
	for name, c := range map[string]struct {
		ns *world.NS
		ok bool
	}{"the same": {a, true}, "another": {b, false}} {
		conn, err := c.ns.DialContext(t.Context(), "tcp", l.Addr().String())
		if (err == nil) != c.ok {
			t.Errorf("%s namespace: got %v", name, err)
		}
		if err != nil {
			continue
		}
		_, _ = conn.Write([]byte("x"))
		_ = conn.(*net.TCPConn).CloseWrite()
		if got, err := io.ReadAll(conn); err != nil || string(got) != "heard x" {
			t.Errorf("%s namespace: got %q, %v", name, got, err)
		}
		conn.Close()
	}
	if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("the listener is reachable from the world's own namespace")
	}
	pc, err := a.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	u, err := a.DialContext(t.Context(), "udp", pc.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if _, err := u.Write([]byte("datagram")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	if n, _, err := pc.ReadFrom(buf); err != nil || string(buf[:n]) != "datagram" {
		t.Errorf("datagram: got %q, %v", buf[:n], err)
	}
}

func TestStartedProcessIsInTheNamespace(t *testing.T) {
	ns := newNS(t, "p")
	var inode string
	err := ns.Do(func() error {
		var err error
		inode, err = os.Readlink("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := world.FuncCommand("links")
	cmd.Stdout = w
	if err := ns.Start(cmd); err != nil {
		t.Fatal(err)
	}
	w.Close()
	out, _ := io.ReadAll(r)
	if err := cmd.Wait(); err != nil || string(out) != "lo:true" {
		t.Errorf("got %q, %v", out, err)
	}
	if here, err := os.Readlink("/proc/thread-self/ns/net"); err != nil || here == inode {
		t.Errorf("Do has not come back: %s, %v", here, err)
	}
}

func TestDoRestoresEveryThread(t *testing.T) {
	ns := newNS(t, "many")
	home, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			_ = ns.Do(func() error { runtime.Gosched(); return errors.New("refused") })
		})
	}
	wg.Wait()
	_ = ns.Do(func() error { runtime.Goexit(); return nil })
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		got, err := os.Readlink("/proc/self/task/" + task.Name() + "/ns/net")
		if err == nil && got != home {
			t.Errorf("thread %s is in %s, home is %s", task.Name(), got, home)
		}
	}
}

func TestNamespaceRefuses(t *testing.T) {
	ns := newNS(t, "r")
	if _, err := ns.DialContext(t.Context(), "tcp", "localhost:80"); err == nil || !strings.Contains(err.Error(), "no names") {
		t.Errorf("dial a name: got %v", err)
	}
	if _, err := ns.Listen("tcp", "localhost:0"); err == nil {
		t.Error("listen on a name: no error")
	}
	if _, err := ns.ListenPacket("udp", "1.2.3.4"); err == nil {
		t.Error("listen without a port: no error")
	}
	if ns.FD() < 0 {
		t.Error("no file descriptor")
	}
	for range 2 {
		if err := ns.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	if _, err := ns.DialContext(t.Context(), "tcp", "127.0.0.1:80"); !errors.Is(err, os.ErrClosed) {
		t.Errorf("dial after close: got %v", err)
	}
	if ns.FD() != -1 {
		t.Error("file descriptor after close")
	}
}
