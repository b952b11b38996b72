package interop

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"

	istio "istio.io/istio/pkg/hbone"
)

const megabytes = 32 // each way

// istioServer is Istio's Go server in front of the application.
func (w *world) istioServer(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := istio.NewServer()
	s.Protocols.SetHTTP2(true)
	s.TLSConfig = w.serverTLS(t)
	go s.ServeTLS(l, "", "")
	t.Cleanup(func() { s.Close() })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func TestOurDialerAndIstiosServer(t *testing.T) {
	w := newWorld(t, echo)
	d := w.dialer(t, w.istioServer(t))
	if err := exchange(w.dial(t, d), random(1, megabytes<<20)); err != nil {
		t.Error(err)
	}
	var wg sync.WaitGroup
	for i := range 300 { // more than one connection takes
		c := w.dial(t, d)
		wg.Go(func() {
			if err := exchange(c, random(uint64(i), 10_000)); err != nil {
				t.Errorf("tunnel %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	// Istio's server closes both directions when the application has ended its own: only that end is asked of it.
	got := make(chan []byte, 1)
	up := random(3, 1<<20)
	w = newWorld(t, ends(false, nil, got))
	c := w.dial(t, w.dialer(t, w.istioServer(t))).(halfCloser)
	if _, err := c.Write(up); err != nil {
		t.Error(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Error(err)
	}
	if b := <-got; len(b) != len(up) {
		t.Errorf("the application read %d bytes of %d", len(b), len(up))
	}
}

func TestIstiosDialerAndOurServer(t *testing.T) {
	w := newWorld(t, echo)
	d := istio.NewDialer(istio.Config{ProxyAddress: w.ours(t).String(), TLS: w.clientTLS(t)})
	c, err := d.DialContext(t.Context(), "tcp", w.app.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := exchange(c, random(1, megabytes<<20)); err != nil {
		t.Error(err)
	}
	var wg sync.WaitGroup
	for i := range 300 { // more than our limit on a connection
		wg.Go(func() {
			c, err := d.DialContext(t.Context(), "tcp", w.app.String())
			if err != nil {
				t.Errorf("tunnel %d: %v", i, err)
				return
			}
			defer c.Close()
			if err := exchange(c, random(uint64(i), 10_000)); err != nil {
				t.Errorf("tunnel %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if c, err := d.DialContext(t.Context(), "tcp", closedPort(t)); err == nil {
		c.Close()
		t.Error("a port where nobody listens was reached")
	}
}

// closedPort is an address where nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return fmt.Sprint(l.Addr())
}
