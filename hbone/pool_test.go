package hbone_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

func TestTenThousandCallersMakeNoMoreConnectionsThanTheyNeed(t *testing.T) {
	const callers, limit = 10_000, 500
	m := newPipeMesh(t, func(s *hbone.Server) { s.MaxStreams, s.HandshakeTimeout = limit, 5*time.Minute })
	m.dialer.HandshakeTimeout = 5 * time.Minute // the machine may be slow
	var wg sync.WaitGroup
	var failed atomic.Int64
	m.dialer.NetDial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if st := m.pool.Stats(); st.Conns == 0 && st.Dialling > 1 {
			t.Errorf("%d handshakes before the first SETTINGS", st.Dialling)
		}
		return m.dial(ctx, network, address)
	}
	for range callers {
		wg.Go(func() {
			if _, err := m.dialer.DialContext(t.Context(), "tcp", "orders:80"); err != nil && failed.Add(1) == 1 {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := m.dialled.Load(); n != callers/limit {
		t.Errorf("%d connections for %d tunnels of %d each", n, callers, limit)
	}
	if st := m.dialer.Stats(); st.Tunnels != callers || st.Conns != callers/limit || st.Waiting != 0 {
		t.Errorf("%d dials failed; %+v", failed.Load(), st)
	}
}

func TestASharedDialEndsWithItsLastWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newPipeMesh(t, nil)
		ended := make(chan struct{})
		m.dialer.NetDial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			close(ended)
			return nil, ctx.Err()
		}
		var cancels [3]context.CancelFunc
		errs := make(chan error, 3)
		for i := range cancels {
			ctx, cancel := context.WithCancel(t.Context())
			cancels[i] = cancel
			go func() { _, err := m.dialer.DialContext(ctx, "tcp", "orders:80"); errs <- err }()
		}
		synctest.Wait()
		for i, cancel := range cancels {
			if st := m.pool.Stats(); st.Dialling != 1 || st.Waiting != 3-i {
				t.Errorf("after %d cancellations: %+v", i, st)
			}
			cancel()
			synctest.Wait()
			if err := <-errs; !errors.Is(err, context.Canceled) || !hbone.SafeToRetry(err) {
				t.Errorf("got %v", err)
			}
		}
		select {
		case <-ended:
		default:
			t.Error("the dial goes on without waiters")
		}
		// Whoever comes next is not told of the dial that was given up.
		m.dialer.NetDial = m.dial
		works(t, m.open(t))
	})
}

func TestAFailedDialTellsAllWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newPipeMesh(t, nil)
		m.dialer.NetDial = func(context.Context, string, string) (net.Conn, error) {
			m.dialled.Add(1)
			time.Sleep(time.Second)
			return nil, errors.New("no way")
		}
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				_, err := m.dialer.DialContext(t.Context(), "tcp", "orders:80")
				if err == nil || !strings.Contains(err.Error(), "no way") {
					t.Errorf("got %v", err)
				}
			})
		}
		wg.Wait()
		if n := m.dialled.Load(); n != 1 {
			t.Errorf("%d attempts", n)
		}
	})
}

func TestConnectionsRetire(t *testing.T) {
	tests := map[string]struct {
		edit func(*hbone.Pool)
		then func(*pipeMesh) // nil: time alone does it
		keep time.Duration   // until then it must stay
		gone time.Duration   // by then it must be gone
		idle bool            // only without tunnels
	}{
		"idle":     {func(p *hbone.Pool) { p.IdleTimeout = time.Minute }, nil, time.Minute - time.Second, 76 * time.Second, true},
		"old":      {func(p *hbone.Pool) { p.MaxAge = 10 * time.Minute; p.IdleTimeout = -1 }, nil, 9*time.Minute - time.Second, 10 * time.Minute, false},
		"rotation": {func(p *hbone.Pool) { p.IdleTimeout = -1 }, func(m *pipeMesh) { m.source.Set(m.ca.SVID(sa("edge", "gateway"))) }, 0, time.Second, false},
		"closed":   {func(*hbone.Pool) {}, func(m *pipeMesh) { m.pool.CloseIdle() }, 0, time.Second, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newPipeMesh(t, func(s *hbone.Server) { s.IdleTimeout = -1 })
				tt.edit(m.pool)
				m.open(t).Close()
				time.Sleep(tt.keep)
				if tt.then == nil {
					works(t, m.open(t))
					if n := m.dialled.Load(); n != 1 {
						t.Fatalf("%d connections before its time", n)
					}
				}
			})
			synctest.Test(t, func(t *testing.T) {
				m := newPipeMesh(t, func(s *hbone.Server) { s.IdleTimeout = -1 })
				tt.edit(m.pool)
				c := m.open(t)
				if tt.then != nil {
					tt.then(m)
				}
				time.Sleep(tt.gone)
				synctest.Wait()
				works(t, c) // open tunnels never suffer
				works(t, m.open(t))
				want := int64(2)
				if tt.idle {
					want = 1
				}
				if n := m.dialled.Load(); n != want {
					t.Errorf("%d connections while a tunnel is open, want %d", n, want)
				}
			})
			synctest.Test(t, func(t *testing.T) {
				m := newPipeMesh(t, func(s *hbone.Server) { s.IdleTimeout = -1 })
				tt.edit(m.pool)
				m.open(t).Close()
				synctest.Wait()
				if tt.then != nil {
					tt.then(m)
				}
				time.Sleep(tt.gone)
				synctest.Wait()
				if st := m.pool.Stats(); st.Conns != 0 {
					t.Errorf("it is still there: %+v", st)
				}
			})
		})
	}
}

func TestTunnelsMoveToAnotherConnectionWhenTheServerDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newPipeMesh(t, nil)
		long := m.open(t)
		other := &hbone.Server{Identity: m.server.Identity, Admit: m.server.Admit}
		down := make(chan error, 1)
		go func() { down <- m.server.Shutdown(t.Context()) }()
		synctest.Wait()
		next := newPipes()
		defer next.Close()
		m.dialer.NetDial = next.dial
		go other.Serve(next)
		defer other.Close()
		go func() {
			c, err := other.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			b := make([]byte, 1)
			_, _ = c.Read(b)
			_, _ = c.Write(b)
		}()
		works(t, m.open(t))
		if n := next.dialled.Load(); n != 1 {
			t.Errorf("%d new connections", n)
		}
		works(t, long)
		long.Close()
		if err := <-down; err != nil {
			t.Error(err)
		}
	})
}

func TestAHalfOpenPeerIsFoundAndLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newPipeMesh(t, nil)
		var silent atomic.Bool
		m.dialer.NetDial = func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := m.dial(ctx, network, address)
			return &muted{Conn: c, silent: &silent, closed: make(chan struct{})}, err
		}
		c := m.open(t)
		silent.Store(true)
		start := time.Now()
		if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "PING") {
			t.Errorf("read gave %v", err)
		}
		if took := time.Since(start); took > 45*time.Second {
			t.Errorf("it took %v", took)
		}
		silent.Store(false)
		works(t, m.open(t))
		if n := m.dialled.Load(); n != 2 {
			t.Errorf("%d connections", n)
		}
	})
}

// muted is a connection whose peer may vanish without a word.
type muted struct {
	net.Conn
	silent *atomic.Bool
	once   sync.Once
	closed chan struct{}
}

func (m *muted) Read(p []byte) (int, error) {
	n, err := m.Conn.Read(p)
	if m.silent.Load() {
		<-m.closed
		return 0, net.ErrClosed
	}
	return n, err
}

func (m *muted) Write(p []byte) (int, error) {
	if m.silent.Load() {
		return len(p), nil
	}
	return m.Conn.Write(p)
}

func (m *muted) Close() error {
	m.once.Do(func() { close(m.closed) })
	return m.Conn.Close()
}

// A pod is gone and another has its address: the old connection dies, and the new one shows somebody else.
func TestAReusedAddressIsAClearError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newPipeMesh(t, nil)
		works(t, m.open(t))
		m.server.Close()
		synctest.Wait()
		next := newPipes()
		defer next.Close()
		m.dialer.NetDial = next.dial
		other := &hbone.Server{Identity: m.ca.Source(sa("shop", "cart")), Admit: m.server.Admit}
		go other.Serve(next)
		defer other.Close()
		_, err := m.dialer.DialContext(t.Context(), "tcp", "orders:80")
		peer, ok := errors.AsType[*hbone.PeerError](err)
		if !ok || peer.Got != sa("shop", "cart") || !hbone.SafeToRetry(err) || !strings.Contains(err.Error(), "may belong to another pod") {
			t.Errorf("got %v", err)
		}
	})
}

func TestIdentitiesAndAcceptedPeersNeverShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newPipeMesh(t, nil)
		orders, cart, bill := sa("shop", "orders"), sa("shop", "cart"), sa("shop", "bill")
		dial := func(d *hbone.Dialer, peers ...spiffeid.ID) {
			t.Helper()
			hop := m.hop()
			hop.Peers = peers
			c, err := d.DialRoute(t.Context(), hbone.Route{Hops: []hbone.Hop{hop}})
			if err != nil {
				t.Fatal(err)
			}
			works(t, c)
		}
		want := func(n int64) {
			t.Helper()
			if got := m.dialled.Load(); got != n {
				t.Errorf("%d connections, want %d", got, n)
			}
		}
		dial(m.dialer, orders)
		dial(m.dialer, orders, cart)
		want(2)
		dial(m.dialer, cart, orders) // the same set
		dial(m.dialer, orders)
		want(2)
		dial(m.dialer, orders, bill)
		want(3)
		dial(&hbone.Dialer{Identity: m.ca.Source(sa("edge", "gateway")), NetDial: m.dial, Pool: m.pool}, orders)
		want(4) // another source with the same name may trust others
		dial(&hbone.Dialer{Identity: m.source, NetDial: m.dial, Pool: m.pool}, orders)
		want(5) // another way of dialling
	})
}

func TestAClosedPoolDialsNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newPipeMesh(t, nil)
		c := m.open(t)
		m.pool.Close()
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("the tunnel lives")
		}
		if _, err := m.dialer.DialContext(t.Context(), "tcp", "orders:80"); !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v", err)
		}
	})
}

func TestRotationUnderLoadLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newPipeMesh(t, nil)
		var wg sync.WaitGroup
		stop := make(chan struct{})
		for range 8 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					c, err := m.dialer.DialContext(t.Context(), "tcp", "orders:80")
					if err != nil {
						t.Error(err)
						return
					}
					time.Sleep(3 * time.Millisecond)
					if _, err := c.Write([]byte("x")); err != nil {
						t.Error(err)
					}
					if _, err := c.Read(make([]byte, 1)); err != nil {
						t.Error(err)
					}
					c.Close()
				}
			})
		}
		for range 10 {
			time.Sleep(20 * time.Millisecond)
			m.source.Set(m.ca.SVID(sa("edge", "gateway")))
		}
		close(stop)
		wg.Wait()
		time.Sleep(time.Second)
		if st := m.pool.Stats(); st.Conns > 1 {
			t.Errorf("connections of old certificates are left: %+v", st)
		}
		if n := m.dialled.Load(); n < 10 {
			t.Errorf("%d connections for 10 rotations", n)
		}
	})
}
