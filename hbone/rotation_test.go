package hbone_test

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// member is one who gets certificates from a CA that the test changes.
type member struct {
	id     spiffeid.ID
	notify chan struct{}
	source *identity.Source

	mu    sync.Mutex // guards the fields below
	ca    *identitytest.CA
	trust []*identitytest.CA
}

func newMember(t *testing.T, id spiffeid.ID, ca *identitytest.CA) *member {
	t.Helper()
	m := &member{id: id, notify: make(chan struct{}, 1), ca: ca, trust: []*identitytest.CA{ca}}
	var err error
	if m.source, err = identity.New(t.Context(), m, identity.Config{}); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *member) Fetch(context.Context) (*identity.Material, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := x509bundle.New(td)
	for _, ca := range m.trust {
		b.AddX509Authority(ca.Root)
	}
	return &identity.Material{SVID: m.ca.SVID(m.id), Bundles: x509bundle.NewSet(b)}, nil
}

func (m *member) Notify() <-chan struct{} { return m.notify }

// turn makes it have a certificate of ca and trust those, and waits until it does.
func (m *member) turn(ca *identitytest.CA, trust ...*identitytest.CA) {
	m.mu.Lock()
	m.ca, m.trust = ca, trust
	m.mu.Unlock()
	changed := m.source.Changed()
	m.notify <- struct{}{}
	<-changed
}

// The root is replaced ten times while 200 tunnels run, the way it should be done: first all trust the new root too, then certificates change, then the
// old root goes. No dial fails, and no tunnel ends.
func TestTenRootsUnderTraffic(t *testing.T) {
	const rotations, lasting, changing = 10, 100, 100
	ca := identitytest.NewCA(td)
	orders, gateway := newMember(t, sa("shop", "orders"), ca), newMember(t, sa("edge", "gateway"), ca)
	m := newMesh(t, echo, func(s *hbone.Server) { s.Identity = orders.source })
	m.dialer.Identity = gateway.source
	t.Cleanup(func() { gateway.source.Close(); orders.source.Close() })

	stop := make(chan struct{})
	var wg sync.WaitGroup
	var dials, failed, echoed atomic.Int64
	use := func(c net.Conn) bool {
		if _, err := c.Write([]byte("x")); err != nil {
			t.Errorf("write: %v", err)
			return false
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Errorf("read: %v", err)
			return false
		}
		echoed.Add(1)
		return true
	}
	open := func() net.Conn {
		dials.Add(1)
		c, err := m.dialer.DialContext(t.Context(), "tcp", "orders:80")
		if err != nil {
			if failed.Add(1) == 1 {
				t.Errorf("dial: %v", err)
			}
			return nil
		}
		return c
	}
	ended := func() bool {
		select {
		case <-stop:
			return true
		case <-time.After(5 * time.Millisecond):
			return false
		}
	}
	for range lasting {
		c := open()
		if c == nil {
			t.FailNow()
		}
		wg.Go(func() {
			defer c.Close()
			for use(c) && !ended() {
			}
		})
	}
	for range changing {
		wg.Go(func() {
			for !ended() {
				c := open()
				if c == nil {
					return
				}
				use(c)
				c.Close()
			}
		})
	}
	for range rotations {
		next := identitytest.NewCA(td)
		for _, step := range []func(*member){
			func(m *member) { m.turn(ca, ca, next) },
			func(m *member) { m.turn(next, ca, next) },
			func(m *member) { m.turn(next, next) },
		} {
			for _, who := range []*member{orders, gateway} {
				step(who)
				before := echoed.Load()
				for echoed.Load() < before+(lasting+changing)/2 { // traffic under these circumstances
					if failed.Load() > 0 || t.Failed() {
						break
					}
					time.Sleep(time.Millisecond) // a real clock: sockets
				}
			}
		}
		ca = next
	}
	close(stop)
	wg.Wait()
	if n := failed.Load(); n > 0 {
		t.Errorf("%d of %d dials failed", n, dials.Load())
	}
	if g := gateway.source.Stats().Generation; g != 1+3*rotations {
		t.Errorf("%d generations", g)
	}
	t.Logf("%d dials, %d echoes, %d connections", dials.Load(), echoed.Load(), m.accepted.Load())
}
