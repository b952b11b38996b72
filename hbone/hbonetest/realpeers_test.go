package hbonetest_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/hbone/hbonetest"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// What real peers were seen to do, played frame by frame, and what a user of hbone sees of it.

var (
	td       = spiffeid.RequireTrustDomainFromString("cluster.local")
	shop     = spiffeid.RequireFromPath(td, "/ns/shop/sa/orders")
	stranger = spiffeid.RequireFromPath(td, "/ns/other/sa/other")
	edge     = spiffeid.RequireFromPath(td, "/ns/edge/sa/gateway")
)

const app = "10.0.0.7:8080"

// mesh is an authority, a network in memory, and a dialer that goes to orders for every address.
type mesh struct {
	ca      *identitytest.CA
	network *hbonetest.Network
	dialer  *hbone.Dialer
}

func newMesh(t testing.TB) *mesh {
	m := &mesh{ca: identitytest.NewCA(td), network: new(hbonetest.Network)}
	m.dialer = &hbone.Dialer{Identity: m.ca.Source(edge), NetDial: m.network.DialContext, Resolver: hbone.ResolverFunc(
		func(_ context.Context, _, address string) (hbone.Route, error) {
			return route(orders, address, shop), nil
		})}
	t.Cleanup(func() { m.dialer.Close() })
	return m
}

func route(addr netip.AddrPort, authority string, peers ...spiffeid.ID) hbone.Route {
	return hbone.Route{Hops: []hbone.Hop{{Kind: hbone.HopWorkload, Name: "shop/orders", Addr: addr, Authority: authority, Peers: peers}}}
}

func (m *mesh) listen(t testing.TB, addr netip.AddrPort) *hbonetest.Listener {
	t.Helper()
	l, err := m.network.Listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// serve is our server at addr; connect makes the application's end of each tunnel.
func (m *mesh) serve(t testing.TB, l net.Listener, id spiffeid.ID, connect func(r *hbone.ConnectRequest, c *hbonetest.Conn)) *hbone.Server {
	t.Helper()
	s := &hbone.Server{Identity: m.ca.Source(id), Connect: func(_ context.Context, r *hbone.ConnectRequest) (net.Conn, error) {
		a, b := hbonetest.Pipe()
		go connect(r, a)
		return b, nil
	}}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return s
}

func echo(_ *hbone.ConnectRequest, c *hbonetest.Conn) {
	defer c.Close()
	_, _ = io.Copy(c, struct{ io.Reader }{c})
}

func (m *mesh) dial(t testing.TB) *hbonetest.Call[net.Conn] {
	return hbonetest.Go(func() (net.Conn, error) { return m.dialer.DialContext(t.Context(), "tcp", app) })
}

// opened is a tunnel that p has answered.
func (m *mesh) opened(t testing.TB, p *hbonetest.Peer) (net.Conn, uint32) {
	t.Helper()
	dial := m.dial(t)
	id := p.WantConnect(app)
	p.Send(hbonetest.Answer(id, 200))
	return wait(t, dial), id
}

func wait(t testing.TB, dial *hbonetest.Call[net.Conn]) net.Conn {
	t.Helper()
	c, err := dial.Wait()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func wantReset(t testing.TB, c net.Conn, says string) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, err := io.ReadAll(c)
	if !errors.Is(err, syscall.ECONNRESET) || !strings.Contains(err.Error(), says) {
		t.Errorf("read gave %v, want ECONNRESET that says %q", err, says)
	}
}

func maxStreams(n uint32) http2.Setting {
	return http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: n}
}

// Envoy closes the whole connection at stream 101, and takes 100 tunnels down with it.
func TestEnvoyKillsAtStream101(t *testing.T) {
	m := newMesh(t)
	l := m.listen(t, orders)
	var killed atomic.Bool
	hbonetest.Serve(t, l, m.ca.Source(shop), func(p *hbonetest.Peer) {
		for open := 0; ; {
			f, err := p.Next()
			if err != nil {
				return
			}
			if h, ok := f.(hbonetest.Headers); ok {
				if open++; open > 100 {
					killed.Store(true)
					return
				}
				_ = p.TrySend(hbonetest.Answer(h.Stream, 200))
			}
		}
	}, maxStreams(100))
	var wg sync.WaitGroup
	conns := make([]net.Conn, 350)
	for i := range conns {
		wg.Go(func() {
			c, err := m.dialer.DialContext(t.Context(), "tcp", app)
			if err != nil {
				t.Errorf("tunnel %d: %v", i, err)
				return
			}
			conns[i] = c
		})
	}
	wg.Wait()
	if killed.Load() {
		t.Error("a connection got its 101st stream")
	}
	if n := l.Made(); n < 4 || n > 8 {
		t.Errorf("%d connections were made for 350 tunnels of 100 each", n)
	}
	for _, c := range conns {
		if c != nil {
			c.Close()
		}
	}
}

// Envoy answers 200 before it knows the target, and resets at the first byte when there is none or a policy denies it.
func TestEnvoyAnswersFirstAndResetsThen(t *testing.T) {
	m := newMesh(t)
	l := m.listen(t, orders)
	dial := m.dial(t)
	p := hbonetest.AcceptTLS(t, l, m.ca.Source(shop), maxStreams(100))
	id := p.WantConnect(app)
	p.Send(hbonetest.Answer(id, 200, hpack.HeaderField{Name: "server", Value: "istio-envoy"}))
	c := wait(t, dial)
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	p.WantData(id, []byte("hello"))
	p.Send(hbonetest.Reset{Stream: id, Code: http2.ErrCodeConnect})
	wantReset(t, c, "could not reach the target")
	if _, err := c.Write([]byte("more")); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("write gave %v, want ECONNRESET", err)
	}
	m.opened(t, p) // the connection is as good as before
}

// Envoy's and ztunnel's refusals: the status counts, not the reset behind it.
func TestRefusalsOfRealPeers(t *testing.T) {
	tests := map[string]struct {
		send   func(id uint32) []hbonetest.Frame
		status int
	}{
		"Envoy, unknown target": {func(id uint32) []hbonetest.Frame {
			h := hbonetest.Answer(id, 503)
			h.End = false
			return []hbonetest.Frame{h, hbonetest.Data{Stream: id, Bytes: []byte("upstream connect error"), End: true}, hbonetest.Reset{Stream: id, Code: http2.ErrCodeConnect}}
		}, 503},
		"Envoy, layered policy": {func(id uint32) []hbonetest.Frame {
			h := hbonetest.Answer(id, 403)
			h.End = false
			return []hbonetest.Frame{h, hbonetest.Data{Stream: id, Bytes: []byte("RBAC: access denied"), End: true}, hbonetest.Reset{Stream: id, Code: http2.ErrCodeNo}}
		}, 403},
		"ztunnel, policy": {func(id uint32) []hbonetest.Frame {
			return []hbonetest.Frame{hbonetest.Answer(id, 401), hbonetest.Reset{Stream: id, Code: http2.ErrCodeNo}}
		}, 401},
		"ztunnel, wrong address": {func(id uint32) []hbonetest.Frame {
			return []hbonetest.Frame{hbonetest.Answer(id, 400), hbonetest.Reset{Stream: id, Code: http2.ErrCodeNo}}
		}, 400},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := newMesh(t)
			m.dialer.RetryWithin = -1 // the peer answers one CONNECT
			l := m.listen(t, orders)
			dial := m.dial(t)
			p := hbonetest.AcceptTLS(t, l, m.ca.Source(shop))
			p.Send(tt.send(p.WantConnect(app))...)
			_, err := dial.Wait()
			e, ok := errors.AsType[*hbone.DialError](err)
			if !ok || e.Status != tt.status || e.Peer != shop || hbone.SafeToRetry(err) {
				t.Fatalf("dial gave %v, want status %d of %s", err, tt.status, shop)
			}
			for _, f := range p.Sync() { // our last word on that stream, if any
				if _, ok := f.(hbonetest.Reset); !ok {
					t.Errorf("got %+v", f)
				}
			}
			m.opened(t, p)
		})
	}
}

// At a rollout Envoy says nothing and closes after five seconds: tunnels are lost, never ended, and the next dial finds the new pod.
func TestEnvoyEndsWithEOFAtARollout(t *testing.T) {
	m := newMesh(t)
	l := m.listen(t, orders)
	dial := m.dial(t)
	p := hbonetest.AcceptTLS(t, l, m.ca.Source(shop))
	id := p.WantConnect(app)
	p.Send(hbonetest.Answer(id, 200), hbonetest.Data{Stream: id, Bytes: []byte("half an answ")})
	c := wait(t, dial)
	p.Sync()
	p.Conn.Close()
	wantReset(t, c, "lost")
	again := m.dial(t)
	p = hbonetest.AcceptTLS(t, l, m.ca.Source(shop))
	p.Send(hbonetest.Answer(p.WantConnect(app), 200))
	wait(t, again)
}

// A stream that was refused is opened elsewhere, and the user sees nothing of it.
func TestRefusedStreamsAreOpenedElsewhere(t *testing.T) {
	m := newMesh(t)
	l := m.listen(t, orders)
	first := m.dial(t)
	p := hbonetest.AcceptTLS(t, l, m.ca.Source(shop), maxStreams(200))
	p.Send(hbonetest.Answer(p.WantConnect(app), 200))
	c := wait(t, first)
	second := m.dial(t)
	id := p.WantConnect(app)
	p.Send(hbonetest.Reset{Stream: id, Code: http2.ErrCodeRefusedStream}) // as ztunnel does at its 201st
	go p.Drain()
	q := hbonetest.AcceptTLS(t, l, m.ca.Source(shop))
	q.Send(hbonetest.Answer(q.WantConnect(app), 200))
	wait(t, second)
	if _, err := c.Write([]byte("the first goes on")); err != nil {
		t.Error(err)
	}
}

// ztunnel drains: GOAWAY in two steps, five seconds, then the end without a word. What is open goes on, what is new goes elsewhere.
func TestZtunnelDrains(t *testing.T) {
	m := newMesh(t)
	l := m.listen(t, orders)
	dial := m.dial(t)
	p := hbonetest.AcceptTLS(t, l, m.ca.Source(shop))
	id := p.WantConnect(app)
	p.Send(hbonetest.Answer(id, 200))
	c := wait(t, dial)
	p.Send(hbonetest.GoAway{Last: 1<<31 - 1}, hbonetest.Ping{Data: [8]byte{1}})
	p.Sync()
	p.Send(hbonetest.GoAway{Last: id})
	p.Sync()
	again := m.dial(t)
	q := hbonetest.AcceptTLS(t, l, m.ca.Source(shop))
	q.Send(hbonetest.Answer(q.WantConnect(app), 200))
	wait(t, again)
	if _, err := c.Write([]byte("late")); err != nil {
		t.Error(err)
	}
	p.WantData(id, []byte("late"))
	p.Send(hbonetest.Data{Stream: id, Bytes: []byte("answer"), End: true})
	if got, err := io.ReadAll(c); err != nil || string(got) != "answer" {
		t.Errorf("read %q, %v", got, err)
	}
}

// GOAWAY that leaves a CONNECT unprocessed costs Envoy's users a 503, and ours nothing.
func TestGoAwayBelowAConnectIsNotSeen(t *testing.T) {
	m := newMesh(t)
	l := m.listen(t, orders)
	dial := m.dial(t)
	p := hbonetest.AcceptTLS(t, l, m.ca.Source(shop))
	p.WantConnect(app)
	p.Send(hbonetest.GoAway{Last: 0})
	q := hbonetest.AcceptTLS(t, l, m.ca.Source(shop))
	q.Send(hbonetest.Answer(q.WantConnect(app), 200))
	wait(t, dial)
}

// ztunnel resets with CANCEL when a policy turns to deny.
func TestZtunnelCancelsWhenAPolicyDenies(t *testing.T) {
	m := newMesh(t)
	l := m.listen(t, orders)
	dial := m.dial(t)
	p := hbonetest.AcceptTLS(t, l, m.ca.Source(shop))
	id := p.WantConnect(app)
	p.Send(hbonetest.Answer(id, 200), hbonetest.Data{Stream: id, Bytes: []byte("a part")}, hbonetest.Reset{Stream: id, Code: http2.ErrCodeCancel})
	wantReset(t, wait(t, dial), "policy")
	m.opened(t, p)
}

// ztunnel makes clean ends of aborts, so that its application takes a part for the whole. Ours sees a reset, whichever way the client went.
func TestAbortsReachTheApplicationAsResets(t *testing.T) {
	aborts := map[string]func(p *hbonetest.Peer, id uint32){
		"CANCEL":           func(p *hbonetest.Peer, id uint32) { p.Send(hbonetest.Reset{Stream: id, Code: http2.ErrCodeCancel}) },
		"NO_ERROR":         func(p *hbonetest.Peer, id uint32) { p.Send(hbonetest.Reset{Stream: id, Code: http2.ErrCodeNo}) },
		"INTERNAL_ERROR":   func(p *hbonetest.Peer, id uint32) { p.Send(hbonetest.Reset{Stream: id, Code: http2.ErrCodeInternal}) },
		"the end of TCP":   func(p *hbonetest.Peer, _ uint32) { p.Conn.Close() },
		"an HTTP/2 error":  func(p *hbonetest.Peer, _ uint32) { p.Send(hbonetest.Data{Bytes: []byte("x")}) },
		"a GOAWAY and end": func(p *hbonetest.Peer, _ uint32) { p.Send(hbonetest.GoAway{}); p.Conn.Close() },
	}
	for name, abort := range aborts {
		t.Run(name, func(t *testing.T) {
			m := newMesh(t)
			l := m.listen(t, orders)
			ends := make(chan error, 1)
			m.serve(t, l, shop, func(_ *hbone.ConnectRequest, c *hbonetest.Conn) {
				_, err := io.ReadAll(c)
				c.Close()
				ends <- err
			})
			nc, err := m.network.DialContext(t.Context(), "tcp", orders.String())
			if err != nil {
				t.Fatal(err)
			}
			p := hbonetest.DialTLS(t, nc, m.ca.Source(edge))
			p.Send(hbonetest.Open(1, app), hbonetest.Data{Stream: 1, Bytes: []byte("a part")})
			p.WantAnswer(1, 200)
			p.Sync()
			abort(p, 1)
			select {
			case err := <-ends:
				if !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("the application read %v, want ECONNRESET", err)
				}
			case <-time.After(10 * time.Second):
				t.Error("the application learns nothing")
			}
		})
	}
}

// ztunnel's DATA frames: 1 KiB each for the first 128 KiB, then 16,320 bytes, each in a record of its own.
func TestZtunnelsFramesArrive(t *testing.T) {
	m := newMesh(t)
	l := m.listen(t, orders)
	sum := make(chan int, 1)
	m.serve(t, l, shop, func(_ *hbone.ConnectRequest, c *hbonetest.Conn) {
		b, err := io.ReadAll(c)
		c.Close()
		if err != nil {
			t.Error(err)
		}
		sum <- len(b)
	})
	nc, err := m.network.DialContext(t.Context(), "tcp", orders.String())
	if err != nil {
		t.Fatal(err)
	}
	p := hbonetest.DialTLS(t, nc, m.ca.Source(edge))
	p.Send(hbonetest.Open(1, app))
	p.WantAnswer(1, 200)
	p.SendData(1, make([]byte, 128<<10), 1024)
	p.SendData(1, make([]byte, 2<<20), 16320)
	p.Send(hbonetest.Data{Stream: 1, End: true})
	if n := <-sum; n != 128<<10+2<<20 {
		t.Errorf("%d bytes arrived", n)
	}
	p.WantEnd(1)
}
