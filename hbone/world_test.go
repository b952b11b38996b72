package hbone_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

var td = spiffeid.RequireTrustDomainFromString("cluster.local")

func sa(namespace, name string) spiffeid.ID {
	return spiffeid.RequireFromPath(td, "/ns/"+namespace+"/sa/"+name)
}

// listen serves TCP until the test ends; handle owns its connection.
func listen(t testing.TB, handle func(net.Conn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go handle(c)
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// echo sends back what it reads, and ends when that ends.
func echo(c net.Conn) {
	defer c.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := c.Read(buf)
		if n > 0 {
			if _, err := c.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// mesh is one authority, one server in front of an application, and a dialer that knows the way.
type mesh struct {
	ca       *identitytest.CA
	server   *hbone.Server
	addr     netip.AddrPort // of the server
	app      netip.AddrPort
	accepted atomic.Int64 // TCP connections to the server
	dialer   *hbone.Dialer
	source   *identitytest.Source // the dialer's
}

// newMesh starts it all; edit changes the server before it serves.
func newMesh(t testing.TB, app func(net.Conn), edit func(*hbone.Server)) *mesh {
	t.Helper()
	m := &mesh{ca: identitytest.NewCA(td), app: listen(t, app)}
	m.server = &hbone.Server{
		Identity: m.ca.Source(sa("shop", "orders")),
		Connect: func(ctx context.Context, r *hbone.ConnectRequest) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", r.Target.String())
		},
	}
	if edit != nil {
		edit(m.server)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.addr = l.Addr().(*net.TCPAddr).AddrPort()
	served := make(chan error, 1)
	go func() { served <- m.server.Serve(counting{l, &m.accepted}) }()
	m.source = m.ca.Source(sa("edge", "gateway"))
	m.dialer = &hbone.Dialer{Identity: m.source, Resolver: m.resolver()}
	t.Cleanup(func() {
		m.dialer.Close()
		m.server.Close()
		if err := <-served; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Serve returned %v", err)
		}
	})
	return m
}

// resolver sends every address through the server to the application.
func (m *mesh) resolver() hbone.Resolver {
	return hbone.ResolverFunc(func(context.Context, string, string) (hbone.Route, error) {
		return hbone.Route{Hops: []hbone.Hop{m.hop()}}, nil
	})
}

func (m *mesh) hop() hbone.Hop {
	return hbone.Hop{Kind: hbone.HopWorkload, Name: "shop/orders", Addr: m.addr, Authority: m.app.String(), Peers: []spiffeid.ID{sa("shop", "orders")}}
}

func (m *mesh) dial(t testing.TB) *hbone.Conn {
	t.Helper()
	c, err := m.dialer.DialContext(t.Context(), "tcp", "orders:80")
	if err != nil {
		t.Fatal(err)
	}
	return c.(*hbone.Conn)
}

type counting struct {
	net.Listener
	n *atomic.Int64
}

func (l counting) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.n.Add(1)
	}
	return c, err
}

// wantDialError checks that err is a DialError with that status, and returns it.
func wantDialError(t *testing.T, err error, status int) *hbone.DialError {
	t.Helper()
	e, ok := errors.AsType[*hbone.DialError](err)
	if !ok || e.Status != status {
		t.Fatalf("got %v, want a DialError with status %d (%s)", err, status, http.StatusText(status))
	}
	return e
}

// tunnel is both ends of one.
type tunnel struct{ near, far *hbone.Conn }

// dial2 opens a tunnel to a server that is admitting.
func (m *mesh) dial2(t testing.TB) tunnel {
	t.Helper()
	far := make(chan net.Conn, 1)
	go func() {
		c, err := m.server.Accept()
		if err != nil {
			t.Error(err)
		}
		far <- c
	}()
	near := m.dial(t)
	return tunnel{near, (<-far).(*hbone.Conn)}
}
