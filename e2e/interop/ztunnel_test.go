package interop

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/ztunnel"
	"github.com/isthmus-mesh/isthmus/hbone"
)

// realZtunnel is what ztunnels are run with. No package registry has one, so that its lack is no failure with CI=true either.
func (w *world) realZtunnel(t *testing.T) ztunnel.Config {
	t.Helper()
	path := os.Getenv(ztunnel.Env)
	if path == "" {
		t.Skip(ztunnel.Env + " is not set: there is no real ztunnel to meet")
	}
	return ztunnel.Config{Program: path, CA: w.ca}
}

// ztunnelServer is a real ztunnel in front of the application.
func (w *world) ztunnelServer(t *testing.T) *ztunnel.Ztunnel {
	t.Helper()
	z, err := ztunnel.Serve(t.Context(), w.realZtunnel(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { endZtunnel(t, z) })
	return z
}

// ztunnelClient is a real ztunnel whose next hop is at addr.
func (w *world) ztunnelClient(t *testing.T, addr netip.AddrPort) *ztunnel.Ztunnel {
	t.Helper()
	z, err := ztunnel.Dial(t.Context(), w.realZtunnel(t), addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { endZtunnel(t, z) })
	return z
}

func endZtunnel(t *testing.T, z *ztunnel.Ztunnel) {
	if t.Failed() {
		t.Logf("ztunnel says: %s", z.Log())
	}
	z.Close()
}

// asideServer is our server, which serveAside gives an address of its own, so that a ztunnel's mesh can name it.
func (w *world) asideServer() *hbone.Server {
	return &hbone.Server{Identity: w.ca.Source(orders), Connect: func(ctx context.Context, r *hbone.ConnectRequest) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", r.Authority)
	}}
}

func serveAside(t *testing.T, server *hbone.Server) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// some is what is sent before an abort.
const some = 100_000

// readsOn is an application that tells when some bytes have come, and how its reading ends.
func readsOn(arrived, ended chan<- error) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		defer c.Close()
		_, err := io.CopyN(io.Discard, c, some)
		arrived <- err
		_, err = io.Copy(io.Discard, c)
		ended <- err
	}
}

// through is a connection to the application by a ztunnel that Dial started.
func (w *world) through(t *testing.T, target netip.AddrPort) *net.TCPConn {
	t.Helper()
	c, err := ztunnel.Connect(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return c
}

func TestOurDialerAndZtunnel(t *testing.T) {
	w := newWorld(t, echo)
	w.ztunnelServer(t)
	d := w.dialer(t, netip.MustParseAddrPort(ztunnel.Inbound))
	if err := exchange(w.dial(t, d), random(1, megabytes<<20)); err != nil {
		t.Error(err)
	}
	var wg sync.WaitGroup
	for i := range 450 { // it refuses the 201st on a connection
		c := w.dial(t, d)
		wg.Go(func() {
			for range 3 {
				if err := exchange(c, random(uint64(i), 5000)); err != nil {
					t.Errorf("tunnel %d: %v", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	for name, c := range map[string]struct {
		address string
		want    int
	}{
		"a closed port":     {closedPort(t), http.StatusServiceUnavailable},
		"another address":   {"127.0.0.7:80", http.StatusBadRequest},
		"its own port":      {ztunnel.Inbound, http.StatusServiceUnavailable},
		"an unknown name":   {"nobody.shop.svc.cluster.local:80", http.StatusServiceUnavailable},
		"a port of nothing": {"127.0.0.1:0", http.StatusServiceUnavailable},
	} {
		if _, err := d.DialContext(t.Context(), "tcp", c.address); status(err) != c.want {
			t.Errorf("%s: got %v, want %d", name, err, c.want)
		}
	}
}

func TestOurDialerAndZtunnelsHalfClose(t *testing.T) {
	halfClose(t, func(t *testing.T, app func(*net.TCPConn)) halfCloser {
		w := newWorld(t, app)
		w.ztunnelServer(t)
		return w.dial(t, w.dialer(t, netip.MustParseAddrPort(ztunnel.Inbound))).(halfCloser)
	})
}

// What ztunnel makes of an end that is none is its own affair: nothing may hang, and we see what it sends.
func TestOurDialerAndZtunnelsAborts(t *testing.T) {
	t.Run("the application resets", func(t *testing.T) {
		w := newWorld(t, resets)
		w.ztunnelServer(t)
		c := w.dial(t, w.dialer(t, netip.MustParseAddrPort(ztunnel.Inbound)))
		_, _ = c.Write([]byte("x"))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("read gave %v, want EOF: so ztunnel ends a direction that was reset", err)
		}
		var err error
		for end := time.Now().Add(20 * time.Second); err == nil && time.Now().Before(end); {
			_, err = c.Write(make([]byte, 10_000))
		}
		if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("write gave %v, want that nobody reads", err)
		}
	})
	t.Run("we abort", func(t *testing.T) {
		arrived, got := make(chan error, 1), make(chan error, 1)
		w := newWorld(t, readsOn(arrived, got))
		w.ztunnelServer(t)
		c := w.dial(t, w.dialer(t, netip.MustParseAddrPort(ztunnel.Inbound)))
		if _, err := c.Write(random(1, some)); err != nil {
			t.Fatal(err)
		}
		if err := <-arrived; err != nil {
			t.Fatal(err)
		}
		c.Close() // without an end of our direction
		select {
		case err := <-got:
			t.Logf("the application read %v", err)
		case <-time.After(20 * time.Second):
			t.Error("the application sees no end")
		}
	})
}

// A ztunnel that is asked to end lets tunnels go on for five seconds, and then closes its connections: no end of a direction, so none for our reader.
func TestOurDialerAndZtunnelsDrain(t *testing.T) {
	w := newWorld(t, echo)
	z := w.ztunnelServer(t)
	d := w.dialer(t, netip.MustParseAddrPort(ztunnel.Inbound))
	c := w.dial(t, d)
	if err := exchange(c, random(1, 5000)); err != nil {
		t.Fatal(err)
	}
	if err := z.Drain(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		if err := exchange(c, random(2, 50_000)); err != nil {
			t.Fatalf("during the drain: %v", err)
		}
	}
	if _, err := d.DialContext(t.Context(), "tcp", w.app.String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial gave %v, want ECONNREFUSED: the listener is closed", err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read gave %v, want ECONNRESET", err)
	}
	select {
	case <-z.Done():
	case <-time.After(20 * time.Second):
		t.Error("it does not end")
	}
}

func TestZtunnelAndOurServer(t *testing.T) {
	w := newWorld(t, echo)
	w.ztunnelClient(t, serveAside(t, w.asideServer()))
	if err := exchange(w.through(t, w.app), random(1, megabytes<<20)); err != nil {
		t.Error(err)
	}
	var wg sync.WaitGroup
	for i := range 300 { // more than it puts on a connection
		c := w.through(t, w.app)
		wg.Go(func() {
			for range 3 {
				if err := exchange(c, random(uint64(i), 5000)); err != nil {
					t.Errorf("tunnel %d: %v", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	c := w.through(t, netip.MustParseAddrPort(closedPort(t)))
	if n, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("reading from a closed port gave %d bytes, %v; want an end", n, err)
	}
}

func TestZtunnelAndOurServersHalfClose(t *testing.T) {
	halfClose(t, func(t *testing.T, app func(*net.TCPConn)) halfCloser {
		w := newWorld(t, app)
		w.ztunnelClient(t, serveAside(t, w.asideServer()))
		return w.through(t, w.app)
	})
}

// What is lost on the way through our server is a reset for ztunnel and the application, whatever ztunnel tells its own client.
func TestZtunnelAndOurServersAborts(t *testing.T) {
	t.Run("the application resets", func(t *testing.T) {
		w := newWorld(t, resets)
		w.ztunnelClient(t, serveAside(t, w.asideServer()))
		c := w.through(t, w.app)
		_, _ = c.Write([]byte("x"))
		_, err := c.Read(make([]byte, 1))
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the client reads %v, want an end", err)
		}
		t.Logf("the client of ztunnel reads %v", err)
	})
	t.Run("the client resets", func(t *testing.T) {
		arrived, got := make(chan error, 1), make(chan error, 1)
		w := newWorld(t, readsOn(arrived, got))
		w.ztunnelClient(t, serveAside(t, w.asideServer()))
		c := w.through(t, w.app)
		if _, err := c.Write(random(1, some)); err != nil {
			t.Fatal(err)
		}
		if err := <-arrived; err != nil {
			t.Fatal(err)
		}
		_ = c.SetLinger(0)
		c.Close()
		select {
		case err := <-got:
			t.Logf("the application read %v", err)
		case <-time.After(20 * time.Second):
			t.Error("the application sees no end")
		}
	})
	t.Run("ztunnel dies", func(t *testing.T) {
		arrived, got := make(chan error, 1), make(chan error, 1)
		w := newWorld(t, readsOn(arrived, got))
		z := w.ztunnelClient(t, serveAside(t, w.asideServer()))
		if _, err := w.through(t, w.app).Write(random(1, some)); err != nil {
			t.Fatal(err)
		}
		if err := <-arrived; err != nil {
			t.Fatal(err)
		}
		z.Close()
		select {
		case err := <-got:
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the application read %v, want ECONNRESET: the tunnel had no end", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the application sees no end")
		}
	})
}

// A server that drains loses none of ztunnel's tunnels: it retries nothing that a GOAWAY cuts off.
func TestZtunnelAndOurServersDrain(t *testing.T) {
	w := newWorld(t, echo)
	server := w.asideServer()
	w.ztunnelClient(t, serveAside(t, server))
	c := w.through(t, w.app)
	if err := exchange(c, random(1, 5000)); err != nil {
		t.Fatal(err)
	}
	drainUnder(t, server, c)
}

// Connections that our server drains for their age, under openers that never stop: none of them may see it.
func TestZtunnelSeesNothingOfAging(t *testing.T) {
	w := newWorld(t, echo)
	server := w.asideServer()
	server.MaxAge = 150 * time.Millisecond
	var conns atomic.Int32
	server.Trace = &hbone.Trace{HandshakeDone: func(hbone.TraceConn) { conns.Add(1) }}
	w.ztunnelClient(t, serveAside(t, server))
	stop := time.Now().Add(3 * time.Second)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := 0; time.Now().Before(stop); n++ {
				c, err := ztunnel.Connect(t.Context(), w.app)
				if err != nil {
					t.Error(err)
					return
				}
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				data := random(uint64(i), 2000)
				err = exchange(c, data)
				c.Close()
				if err != nil {
					t.Errorf("opener %d, connection %d: %v", i, n, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := conns.Load(); n < 5 {
		t.Errorf("ztunnel made %d connections: none was drained", n)
	}
}
