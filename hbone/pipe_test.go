package hbone_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// pipes is a network of net.Pipes with one listener, for tests whose clock is testing/synctest's.
type pipes struct {
	accepts chan net.Conn
	done    chan struct{}
	once    sync.Once
	ports   atomic.Int32
	dialled atomic.Int64
}

func newPipes() *pipes { return &pipes{accepts: make(chan net.Conn), done: make(chan struct{})} }

// pipeEnd is one end, with addresses as TCP has them.
type pipeEnd struct {
	net.Conn
	local, remote net.Addr
}

func (p pipeEnd) LocalAddr() net.Addr  { return p.local }
func (p pipeEnd) RemoteAddr() net.Addr { return p.remote }

var pipeAddr = netip.MustParseAddrPort("10.0.0.7:15008")

// dial makes a connection to the listener.
func (n *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	n.dialled.Add(1)
	a, b := net.Pipe()
	near := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: int(n.ports.Add(1))}
	far := net.TCPAddrFromAddrPort(pipeAddr)
	select {
	case n.accepts <- pipeEnd{b, far, near}:
		return pipeEnd{a, near, far}, nil
	case <-n.done:
		return nil, errors.New("nobody listens")
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (n *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-n.accepts:
		return c, nil
	case <-n.done:
		return nil, net.ErrClosed
	}
}

func (n *pipes) Close() error   { n.once.Do(func() { close(n.done) }); return nil }
func (n *pipes) Addr() net.Addr { return net.TCPAddrFromAddrPort(pipeAddr) }

// pipeMesh is a dialer and a server that echoes, joined by pipes.
type pipeMesh struct {
	*pipes
	ca     *identitytest.CA
	source *identitytest.Source
	server *hbone.Server
	pool   *hbone.Pool
	dialer *hbone.Dialer
}

func newPipeMesh(t *testing.T, edit func(*hbone.Server)) *pipeMesh {
	t.Helper()
	m := newQuietMesh(t, edit)
	go func() {
		for {
			c, err := m.server.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	return m
}

// newQuietMesh leaves Accept to the test.
func newQuietMesh(t *testing.T, edit func(*hbone.Server)) *pipeMesh {
	t.Helper()
	m := &pipeMesh{pipes: newPipes(), ca: identitytest.NewCA(td), pool: &hbone.Pool{}}
	m.source = m.ca.Source(sa("edge", "gateway"))
	m.server = &hbone.Server{Identity: m.ca.Source(sa("shop", "orders")), Admit: func(context.Context, *hbone.ConnectRequest) error { return nil }}
	if edit != nil {
		edit(m.server)
	}
	m.dialer = &hbone.Dialer{Identity: m.source, Resolver: m.resolver(), NetDial: m.dial, Pool: m.pool}
	go m.server.Serve(m)
	t.Cleanup(func() {
		m.pool.Close()
		m.server.Close()
	})
	return m
}

func (m *pipeMesh) hop() hbone.Hop {
	return hbone.Hop{Kind: hbone.HopWorkload, Name: "shop/orders", Addr: pipeAddr, Authority: "10.0.0.7:80", Peers: []spiffeid.ID{sa("shop", "orders")}}
}

func (m *pipeMesh) resolver() hbone.Resolver {
	route := hbone.Route{Hops: []hbone.Hop{m.hop()}}
	return hbone.ResolverFunc(func(context.Context, string, string) (hbone.Route, error) { return route, nil })
}

func (m *pipeMesh) open(t *testing.T) *hbone.Conn {
	t.Helper()
	c, err := m.dialer.DialContext(t.Context(), "tcp", "orders:80")
	if err != nil {
		t.Fatal(err)
	}
	return c.(*hbone.Conn)
}

// works checks that a tunnel echoes.
func works(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}
