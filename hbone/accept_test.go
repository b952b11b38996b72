package hbone_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/hbone"
)

// admitting makes a server hand its tunnels to Accept.
func admitting(s *hbone.Server) {
	s.Connect = nil
	s.Admit = func(context.Context, *hbone.ConnectRequest) error { return nil }
}

func TestAcceptedTunnelsAreConnections(t *testing.T) {
	m := newMesh(t, echo, admitting)
	c := m.dial2(t)
	defer c.near.Close()
	defer c.far.Close()
	if got := c.far.PeerIdentity(); got != sa("edge", "gateway") {
		t.Errorf("the peer is %s", got)
	}
	if got := c.far.LocalIdentity(); got != sa("shop", "orders") {
		t.Errorf("we are %s", got)
	}
	if r := c.far.Request(); r == nil || r.Authority != m.app.String() || r.Target != m.app || c.near.Request() != nil {
		t.Errorf("the request is %+v", r)
	}
	if c.far.LocalAddr().String() != m.server.Addr().String() || c.far.RemoteAddr().String() != c.near.LocalAddr().String() {
		t.Errorf("addresses %s %s", c.far.LocalAddr(), c.far.RemoteAddr())
	}
	go func() {
		_, err := c.near.ReadFrom(strings.NewReader("there"))
		if err != nil {
			t.Error(err)
		}
		if err := c.near.CloseWrite(); err != nil {
			t.Error(err)
		}
	}()
	var b strings.Builder
	if n, err := c.far.WriteTo(&b); n != 5 || err != nil || b.String() != "there" {
		t.Errorf("read %q, %d, %v", b.String(), n, err)
	}
	if _, err := c.far.Write([]byte("and back")); err != nil {
		t.Error(err)
	}
	if err := c.far.CloseWrite(); err != nil {
		t.Error(err)
	}
	if got, err := io.ReadAll(c.near); err != nil || string(got) != "and back" {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestAdmitRefuses(t *testing.T) {
	m := newMesh(t, echo, func(s *hbone.Server) {
		s.Connect = nil
		s.Admit = func(context.Context, *hbone.ConnectRequest) error { return &hbone.Refusal{Status: 401} }
	})
	_, err := m.dialer.DialContext(t.Context(), "tcp", "orders:80")
	wantDialError(t, err, 401)
}

func TestAcceptEndsWithItsServer(t *testing.T) {
	m := newMesh(t, echo, admitting)
	done := make(chan error, 1)
	go func() { _, err := m.server.Accept(); done <- err }()
	m.server.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want net.ErrClosed", err)
	}
	var idle hbone.Server
	idle.Close()
	if _, err := idle.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want net.ErrClosed", err)
	}
}

func TestTunnelsThatNobodyAcceptsEndWithTheServer(t *testing.T) {
	m := newMesh(t, echo, func(s *hbone.Server) { admitting(s); s.MaxStreams = 1000 })
	const answered = 128 // and no more, until somebody accepts
	for range answered {
		m.dial(t)
	}
	done := make(chan error, 1)
	go func() { _, err := m.dialer.DialContext(t.Context(), "tcp", "orders:80"); done <- err }()
	for m.server.Stats().Tunnels <= answered {
		select {
		case err := <-done:
			t.Fatalf("a tunnel that there is no room for: %v", err)
		default:
		}
	}
	c, err := m.server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := <-done; err != nil {
		t.Errorf("there was room: %v", err)
	}
	m.server.Close()
	if _, err := m.server.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestHTTPServerOnTunnels(t *testing.T) {
	m := newMesh(t, echo, admitting)
	type peerKey struct{}
	web := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "hello %v", r.Context().Value(peerKey{}))
		}),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, c.(*hbone.Conn).PeerIdentity())
		},
	}
	served := make(chan error, 1)
	go func() { served <- web.Serve(m.server) }()
	tr := &hbone.Transport{Dialer: m.dialer}
	res, err := (&http.Client{Transport: tr}).Get("http://orders.shop/x")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil || string(body) != "hello spiffe://cluster.local/ns/edge/sa/gateway" {
		t.Errorf("got %q, %v", body, err)
	}
	tr.CloseIdleConnections()
	web.Close()
	<-served
}

func TestDialersShareAPool(t *testing.T) {
	m := newMesh(t, echo, nil)
	var pool hbone.Pool
	defer pool.Close()
	dial := func(id hbone.Identity) {
		d := &hbone.Dialer{Identity: id, Resolver: m.resolver(), Pool: &pool}
		c, err := d.DialContext(t.Context(), "tcp", "orders:80")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		d.Close() // leaves the pool alone
	}
	dial(m.source)
	dial(m.source)
	if n := m.accepted.Load(); n != 1 {
		t.Errorf("%d connections for one identity", n)
	}
	dial(m.ca.Source(sa("edge", "other")))
	if n := m.accepted.Load(); n != 2 {
		t.Errorf("%d connections for two identities", n)
	}
}
