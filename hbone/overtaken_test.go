package hbone_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
)

// slowly holds up the first connection until it is let go.
type slowly struct {
	once  sync.Once
	begun chan struct{}
	let   chan struct{}
}

func (s *slowly) dial(ctx context.Context, network, address string) (net.Conn, error) {
	s.once.Do(func() {
		close(s.begun)
		<-s.let
	})
	return new(net.Dialer).DialContext(ctx, network, address)
}

// A connection inside a tunnel is held up too: what the first one says arrives when it is let go.
type heldUp struct {
	net.Conn
	*slowly
}

func (h heldUp) Write(p []byte) (int, error) {
	h.once.Do(func() {
		close(h.begun)
		<-h.let
	})
	return h.Conn.Write(p)
}

// The root is replaced while a handshake is under way, at both ends and to its end: the handshake fails, and the dial does not, whether its user has the tunnel
// before the answer or not, and also where the handshake is one inside a tunnel. When nothing was replaced, one refusal is enough.
func TestAHandshakeThatARotationOvertakes(t *testing.T) {
	for name, late := range map[string]func(ours, theirs *member, next *identitytest.CA){
		"the server does not trust what we begin with": func(ours, theirs *member, next *identitytest.CA) {
			ours.turn(next, next)
			theirs.turn(next, next)
		},
		"the server has changed first": func(ours, theirs *member, next *identitytest.CA) {
			theirs.turn(next, next)
			ours.turn(next, next)
		},
	} {
		for _, depth := range []int{1, 3} {
			for _, optimistic := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %d deep, optimistic: %v", name, depth, optimistic), func(t *testing.T) {
					overtake(t, late, depth, optimistic)
				})
			}
		}
	}
	t.Run("nothing was replaced, inside", func(t *testing.T) {
		for _, optimistic := range []bool{false, true} {
			m := newMesh(t, echo, nil)
			stranger := identitytest.NewCA(td).Source(sa("shop", "orders"))
			stranger.Set(m.ca.SVID(sa("shop", "orders"))) // we trust it, and it does not trust us
			inner := newMesh(t, echo, func(s *hbone.Server) { s.Identity = stranger })
			outer := m.hop()
			outer.Authority = inner.addr.String()
			m.dialer.Optimistic = optimistic
			c, err := m.dialer.DialRoute(t.Context(), hbone.Route{Hops: []hbone.Hop{outer, inner.hop()}})
			if err == nil {
				_, err = c.Read(make([]byte, 1))
				c.Close()
			}
			if err == nil || inner.accepted.Load() != 1 {
				t.Errorf("optimistic: %v: %v, after %d connections", optimistic, err, inner.accepted.Load())
			}
		}
	})
	t.Run("nothing was replaced", func(t *testing.T) {
		m := newMesh(t, echo, nil)
		m.source.Set(identitytest.NewCA(td).SVID(sa("edge", "gateway")))
		_, err := m.dialer.DialContext(t.Context(), "tcp", "orders:80")
		if e, ok := errors.AsType[*hbone.DialError](err); !ok || e.Sent {
			t.Errorf("got %v", err)
		}
		if n := m.accepted.Load(); n != 1 {
			t.Errorf("%d attempts", n)
		}
	})
}

// overtake dials through tunnels in tunnels while late replaces identities, and wants an echo.
func overtake(t *testing.T, late func(ours, theirs *member, next *identitytest.CA), depth int, optimistic bool) {
	ca, next := identitytest.NewCA(td), identitytest.NewCA(td)
	orders, gateway := newMember(t, sa("shop", "orders"), ca), newMember(t, sa("edge", "gateway"), ca)
	slow := &slowly{begun: make(chan struct{}), let: make(chan struct{})}
	var m *mesh
	m = newMesh(t, echo, func(s *hbone.Server) {
		s.Identity = orders.source
		s.Connect = func(ctx context.Context, r *hbone.ConnectRequest) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, "tcp", r.Target.String())
			if err == nil && r.Target == m.addr {
				c = heldUp{c, slow}
			}
			return c, err
		}
	})
	t.Cleanup(func() { gateway.source.Close(); orders.source.Close() })
	m.dialer.Identity, m.dialer.Optimistic = gateway.source, optimistic
	route := hbone.Route{Hops: []hbone.Hop{m.hop()}}
	if depth > 1 {
		route = m.nested()
	} else {
		m.dialer.NetDial = slow.dial
	}
	done := make(chan error, 1)
	go func() {
		c, err := m.dialer.DialRoute(t.Context(), route)
		if err == nil {
			defer c.Close()
			err = exchange(c)
		}
		done <- err
	}()
	<-slow.begun
	late(gateway, orders, next)
	close(slow.let)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// exchange wants back what it says.
func exchange(c net.Conn) error {
	const word = "hello"
	if _, err := io.WriteString(c, word); err != nil {
		return err
	}
	got := make([]byte, len(word))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if string(got) != word {
		return fmt.Errorf("%q came back", got)
	}
	return nil
}
