package hbone_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// nested wraps the mesh's hop into two more tunnels.
func (m *mesh) nested() hbone.Route {
	outer := m.hop()
	outer.Authority = m.addr.String()
	return hbone.Route{Hops: []hbone.Hop{outer, outer, m.hop()}}
}

func TestTunnelsCarryBytesThroughEveryDepth(t *testing.T) {
	m := newMesh(t, echo, nil)
	for depth, route := range map[int]hbone.Route{1: {Hops: []hbone.Hop{m.hop()}}, 3: m.nested()} {
		c, err := m.dialer.DialRoute(t.Context(), route)
		if err != nil {
			t.Fatalf("depth %d: %v", depth, err)
		}
		data := make([]byte, 2<<20)
		rand.Read(data)
		go func() {
			if _, err := c.Write(data); err != nil {
				t.Error(err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Error(err)
			}
		}()
		if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, data) {
			t.Errorf("depth %d: %d bytes came back, %v", depth, len(got), err)
		}
		if c.PeerIdentity() != sa("shop", "orders") || c.LocalIdentity() != sa("edge", "gateway") {
			t.Errorf("depth %d: identities %s and %s", depth, c.LocalIdentity(), c.PeerIdentity())
		}
		c.Close()
	}
}

func TestRefusals(t *testing.T) {
	denied := func(status int) func(*hbone.Server) {
		return func(s *hbone.Server) {
			s.Connect = func(context.Context, *hbone.ConnectRequest) (net.Conn, error) {
				return nil, &hbone.Refusal{Status: status}
			}
		}
	}
	tests := map[string]struct {
		edit   func(*hbone.Server)
		status int
		hint   string
	}{
		"the zero Connect":    {func(s *hbone.Server) { s.Connect = nil }, 403, "AuthorizationPolicy"},
		"a policy":            {denied(401), 401, "AuthorizationPolicy"},
		"a wrong target":      {denied(400), 400, "out of date"},
		"any other error":     {func(s *hbone.Server) { s.Connect = failing }, 503, "port open"},
		"ForwardLocal's rule": {func(s *hbone.Server) { s.Connect = hbone.ForwardLocal(nil) }, 400, ""}, // loopback
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := newMesh(t, echo, tt.edit)
			_, err := m.dialer.DialContext(t.Context(), "tcp", "orders:80")
			e := wantDialError(t, err, tt.status)
			if !strings.Contains(e.Error(), tt.hint) || !strings.Contains(e.Error(), "shop/orders") {
				t.Errorf("the text %q lacks the hop or %q", e.Error(), tt.hint)
			}
			if hbone.SafeToRetry(err) {
				t.Error("the peer saw the request")
			}
		})
	}
}

func failing(context.Context, *hbone.ConnectRequest) (net.Conn, error) {
	return nil, errors.New("no")
}

func TestPeersMustShowWhomTheRouteExpects(t *testing.T) {
	orders := sa("shop", "orders")
	tests := map[string]struct {
		server func(ca *identitytest.CA) *identitytest.Source
		want   string
	}{
		"somebody else":     {func(ca *identitytest.CA) *identitytest.Source { return ca.Source(sa("shop", "bad")) }, "somebody else"},
		"another authority": {func(*identitytest.CA) *identitytest.Source { return identitytest.NewCA(td).Source(orders) }, "chain does not hold"},
		"two names":         {with(orders, identitytest.TwoURIs), "2 URI names"},
		"no name":           {with(orders, identitytest.NoURI), "0 URI names"},
		"no SPIFFE id":      {with(orders, identitytest.NotSPIFFE), "no SPIFFE id"},
		"wrong usage":       {with(orders, identitytest.WrongUsage), "chain does not hold"},
		"not yet valid":     {with(orders, identitytest.NotYetValid), "chain does not hold"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := newMesh(t, echo, nil)
			other := newMesh(t, echo, func(s *hbone.Server) { s.Identity = tt.server(m.ca) })
			hop := other.hop()
			_, err := m.dialer.DialRoute(t.Context(), hbone.Route{Hops: []hbone.Hop{hop}})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if !hbone.SafeToRetry(err) {
				t.Error("nothing was sent")
			}
		})
	}
}

func with(id spiffeid.ID, opt identitytest.Option) func(*identitytest.CA) *identitytest.Source {
	return func(ca *identitytest.CA) *identitytest.Source {
		s := ca.Source(id)
		s.Set(ca.SVID(id, opt))
		return s
	}
}

func TestServerRefusesStrangers(t *testing.T) {
	m := newMesh(t, echo, nil)
	stranger := identitytest.NewCA(td).Source(sa("edge", "gateway"), m.ca)
	d := &hbone.Dialer{Identity: stranger, Resolver: m.resolver()}
	defer d.Close()
	if c, err := d.DialContext(t.Context(), "tcp", "orders:80"); err == nil {
		c.Close()
		t.Error("a certificate of another authority was served")
	}
}

func TestDialFailsClosed(t *testing.T) {
	m := newMesh(t, echo, nil)
	noPeers := m.hop()
	noPeers.Peers = nil
	plain := hbone.ResolverFunc(func(context.Context, string, string) (hbone.Route, error) { return hbone.Route{Direct: m.app}, nil })
	expired := m.ca.Source(sa("edge", "gateway"))
	expired.Set(m.ca.SVID(sa("edge", "gateway"), identitytest.Expired))
	tests := map[string]struct {
		dial func() (net.Conn, error)
		want string
	}{
		"a hop that names nobody": {func() (net.Conn, error) {
			return m.dialer.DialRoute(t.Context(), hbone.Route{Hops: []hbone.Hop{noPeers}})
		}, "no identity"},
		"plaintext": {func() (net.Conn, error) {
			d := &hbone.Dialer{Identity: m.source, Resolver: plain}
			return d.DialContext(t.Context(), "tcp", "x:1")
		}, "PlaintextAllow"},
		"udp": {func() (net.Conn, error) { return m.dialer.DialContext(t.Context(), "udp", "x:1") }, "udp"},
		"an expired certificate": {func() (net.Conn, error) {
			d := &hbone.Dialer{Identity: expired, Resolver: m.resolver()}
			return d.DialContext(t.Context(), "tcp", "x:1")
		}, "expired at"},
		"no resolver": {func() (net.Conn, error) {
			return (&hbone.Dialer{Identity: m.source}).DialContext(t.Context(), "tcp", "x:1")
		}, "no Identity or no Resolver"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := tt.dial()
			if err == nil {
				c.Close()
				t.Fatal("it was dialled")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestPlaintextWhereAllowed(t *testing.T) {
	m := newMesh(t, echo, nil)
	plain := hbone.ResolverFunc(func(context.Context, string, string) (hbone.Route, error) { return hbone.Route{Direct: m.app}, nil })
	d := &hbone.Dialer{Identity: m.source, Resolver: plain, Plaintext: hbone.PlaintextAllow}
	c, err := d.DialContext(t.Context(), "tcp", "x:1")
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestManyCallersShareOneHandshake(t *testing.T) {
	m := newMesh(t, echo, nil)
	var wg sync.WaitGroup
	for range 90 {
		wg.Go(func() {
			c, err := m.dialer.DialContext(t.Context(), "tcp", "orders:80")
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { c.Close() })
		})
	}
	wg.Wait()
	if n := m.accepted.Load(); n != 1 {
		t.Errorf("%d connections were made, want 1", n)
	}
}

func TestFullConnectionsGetACompanion(t *testing.T) {
	m := newMesh(t, echo, func(s *hbone.Server) { s.MaxStreams = 10 })
	var wg sync.WaitGroup
	for range 45 {
		wg.Go(func() {
			c, err := m.dialer.DialContext(t.Context(), "tcp", "orders:80")
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { c.Close() })
			if _, err := c.Write([]byte("x")); err != nil {
				t.Error(err)
			}
			if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := m.accepted.Load(); n < 5 || n > 6 {
		t.Errorf("%d connections were made for 45 tunnels of 10 each", n)
	}
}

func TestARotatedCertificateTakesANewConnection(t *testing.T) {
	m := newMesh(t, echo, nil)
	before := m.dial(t)
	m.source.Set(m.ca.SVID(sa("edge", "gateway")))
	after := m.dial(t)
	if m.accepted.Load() != 2 {
		t.Errorf("%d connections, want 2", m.accepted.Load())
	}
	for _, c := range []*hbone.Conn{before, after} {
		if _, err := c.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Error(err)
		}
		c.Close()
	}
}

func TestDialObeysItsContext(t *testing.T) {
	black := listen(t, func(c net.Conn) { t.Cleanup(func() { c.Close() }) }) // accepts and says nothing
	m := newMesh(t, echo, nil)
	hop := m.hop()
	hop.Addr = black
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, err := m.dialer.DialRoute(ctx, hbone.Route{Hops: []hbone.Hop{hop}})
	if e := wantDialError(t, err, 0); !e.Timeout() {
		t.Errorf("got %v, want a timeout", err)
	}
}

func TestAbortedTunnelIsAReset(t *testing.T) {
	requests := make(chan *hbone.ConnectRequest, 1)
	m := newMesh(t, echo, func(s *hbone.Server) {
		next := s.Connect
		s.Connect = func(ctx context.Context, r *hbone.ConnectRequest) (net.Conn, error) {
			requests <- r
			return next(ctx, r)
		}
	})
	c := m.dial(t)
	defer c.Close()
	r := <-requests
	if r.Peer != sa("edge", "gateway") || !strings.HasPrefix(r.Claims.Forwarded, `for="127.0.0.1:`) {
		t.Errorf("the request is %+v", r)
	}
	r.Abort()
	_, err := c.Read(make([]byte, 1))
	if e, ok := errors.AsType[*hbone.TunnelError](err); !ok || !errors.Is(e, syscall.ECONNRESET) || !strings.Contains(e.Error(), "policy") {
		t.Errorf("read gave %v", err)
	}
	<-r.Done()
}

func TestEndingsPassThroughTheServer(t *testing.T) {
	t.Run("the application resets", func(t *testing.T) {
		m := newMesh(t, func(c net.Conn) {
			_, _ = c.Read(make([]byte, 1))
			_ = c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}, nil)
		c := m.dial(t)
		defer c.Close()
		_, _ = c.Write([]byte("x"))
		if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read gave %v, want ECONNRESET", err)
		}
	})
	t.Run("the client resets", func(t *testing.T) {
		got := make(chan error, 1)
		m := newMesh(t, func(c net.Conn) { _, err := io.ReadAll(c); c.Close(); got <- err }, nil)
		c := m.dial(t)
		c.Reset()
		if err := <-got; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the application read %v, want ECONNRESET", err)
		}
	})
	t.Run("the client goes away", func(t *testing.T) {
		got := make(chan error, 1)
		m := newMesh(t, func(c net.Conn) { _, err := io.ReadAll(c); c.Close(); got <- err }, nil)
		m.dial(t)
		m.dialer.Close()
		if err := <-got; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the application read %v, want ECONNRESET", err)
		}
	})
	t.Run("the application ends first and reads on", func(t *testing.T) {
		got := make(chan string, 1)
		m := newMesh(t, func(c net.Conn) {
			_ = c.(*net.TCPConn).CloseWrite()
			b, _ := io.ReadAll(c)
			c.Close()
			got <- string(b)
		}, nil)
		c := m.dial(t)
		defer c.Close()
		if b, err := io.ReadAll(c); err != nil || len(b) != 0 {
			t.Errorf("read %q, %v", b, err)
		}
		if _, err := c.Write([]byte("after the end")); err != nil {
			t.Error(err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Error(err)
		}
		if s := <-got; s != "after the end" {
			t.Errorf("the application read %q", s)
		}
	})
}

func TestShutdownLetsTunnelsEnd(t *testing.T) {
	m := newMesh(t, echo, nil)
	c := m.dial(t)
	done := make(chan error, 1)
	go func() { done <- m.server.Shutdown(t.Context()) }()
	for range 3 {
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestTransport(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host, r.URL.Path) }))
	defer backend.Close()
	m := newMesh(t, func(c net.Conn) {
		b, err := net.Dial("tcp", backend.Listener.Addr().String())
		if err != nil {
			c.Close()
			return
		}
		go func() { _, _ = io.Copy(b, c); b.Close() }()
		_, _ = io.Copy(c, b)
		c.Close()
	}, nil)
	tr := &hbone.Transport{Dialer: m.dialer}
	defer tr.CloseIdleConnections()
	res, err := (&http.Client{Transport: tr}).Get("http://orders.shop/x")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err != nil || string(body) != "orders.shop/x" {
		t.Errorf("got %q, %v", body, err)
	}
}

func TestProbe(t *testing.T) {
	m := newMesh(t, echo, func(s *hbone.Server) { s.Connect = hbone.ForwardLocal(nil) })
	got, err := hbone.Probe(t.Context(), hbone.ProbeConfig{Identity: m.source, Addr: m.addr, Peers: []spiffeid.ID{sa("shop", "orders")}, Authority: "192.0.2.1:1"})
	if err != nil || got.Status != 400 || got.Peer != sa("shop", "orders") {
		t.Errorf("got %+v, %v", got, err)
	}
	_, err = hbone.Probe(t.Context(), hbone.ProbeConfig{Identity: m.source, Addr: m.addr, Peers: []spiffeid.ID{sa("shop", "waypoint")}, Authority: "192.0.2.1:1"})
	if _, ok := errors.AsType[*hbone.PeerError](err); !ok {
		t.Errorf("somebody else answered: %v", err)
	}
}
