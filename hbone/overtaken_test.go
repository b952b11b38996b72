package hbone_test

import (
	"context"
	"errors"
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

// The root is replaced while a handshake is under way, at both ends and to its end: the handshake fails, and the dial does not. When nothing was
// replaced, one refusal is enough.
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
		t.Run(name, func(t *testing.T) {
			ca, next := identitytest.NewCA(td), identitytest.NewCA(td)
			orders, gateway := newMember(t, sa("shop", "orders"), ca), newMember(t, sa("edge", "gateway"), ca)
			m := newMesh(t, echo, func(s *hbone.Server) { s.Identity = orders.source })
			t.Cleanup(func() { gateway.source.Close(); orders.source.Close() })
			slow := &slowly{begun: make(chan struct{}), let: make(chan struct{})}
			m.dialer.Identity, m.dialer.NetDial = gateway.source, slow.dial
			done := make(chan error, 1)
			go func() {
				c, err := m.dialer.DialContext(t.Context(), "tcp", "orders:80")
				if err == nil {
					c.Close()
				}
				done <- err
			}()
			<-slow.begun
			late(gateway, orders, next)
			close(slow.let)
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
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
