package hbone_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/hbone/hbonetest"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"golang.org/x/net/http2"
)

func TestServersDrainOldAndIdleConnections(t *testing.T) {
	tests := map[string]struct {
		edit func(*hbone.Server)
		then func(*hbone.Server, *identitytest.CA)
		open bool // with a tunnel
		keep time.Duration
		gone time.Duration
	}{
		"idle": {func(s *hbone.Server) { s.IdleTimeout = time.Minute }, nil, false, time.Minute - time.Second, 80 * time.Second},
		"old":  {func(s *hbone.Server) { s.MaxAge = time.Hour }, nil, true, 54*time.Minute - time.Second, time.Hour},
		"rotation": {nil, func(s *hbone.Server, ca *identitytest.CA) {
			s.Identity.(*identitytest.Source).Set(ca.SVID(sa("shop", "orders")))
		}, true, 0, time.Minute},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newPipeMesh(t, tt.edit)
				m.pool.IdleTimeout, m.pool.MaxAge = -1, -1
				c := m.open(t)
				if !tt.open {
					c.Close()
				}
				time.Sleep(tt.keep)
				if st := m.server.Stats(); st.Conns != 1 {
					t.Fatalf("before its time: %+v", st)
				}
				if tt.then != nil {
					tt.then(m.server, m.ca)
				}
				time.Sleep(tt.gone - tt.keep)
				synctest.Wait()
				if tt.open {
					works(t, c)
				} else if st := m.server.Stats(); st.Conns != 0 {
					t.Errorf("it is still there: %+v", st)
				}
				works(t, m.open(t))
				if n := m.dialled.Load(); n != 2 {
					t.Errorf("%d connections, want 2", n)
				}
			})
		})
	}
}

func TestASlowHandshakeEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told atomic.Int64
		m := newPipeMesh(t, func(s *hbone.Server) {
			s.HandshakeTimeout = time.Second
			s.Trace = &hbone.Trace{HandshakeDone: func(c hbone.TraceConn) {
				if c.Err != nil && c.Took == time.Second {
					told.Add(1)
				}
			}}
		})
		c, err := m.dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(c); err != nil {
			t.Errorf("read gave %v", err)
		}
		synctest.Wait()
		if told.Load() != 1 {
			t.Error("the Trace was not told")
		}
	})
}

func TestPeersBeyondTheLimitsAreClosedAtOnce(t *testing.T) {
	for name, edit := range map[string]func(*hbone.Server){
		"handshakes":  func(s *hbone.Server) { s.MaxHandshakes = 2 },
		"connections": func(s *hbone.Server) { s.MaxConns = 2 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newPipeMesh(t, edit)
				for range 2 {
					if _, err := m.dial(t.Context(), "", ""); err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait()
				c, err := m.dial(t.Context(), "", "")
				if err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				if _, err := io.ReadAll(c); err != nil || time.Since(start) > 0 {
					t.Errorf("after %v: %v", time.Since(start), err)
				}
			})
		})
	}
}

// raw is a scripted client of the mesh's server.
func (m *pipeMesh) raw(t *testing.T) *hbonetest.Peer {
	t.Helper()
	nc, err := m.dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	return hbonetest.DialTLS(t, nc, m.source)
}

func TestTheAnswerHasOurBaggage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newPipeMesh(t, func(s *hbone.Server) { s.Baggage = "service.name=orders" })
		p := m.raw(t)
		p.Send(hbonetest.Open(1, target))
		if got := hbonetest.Value(p.WantAnswer(1, 200), "baggage"); got != "service.name=orders" {
			t.Errorf("baggage %q", got)
		}
	})
}

// ztunnel's client never makes a CONNECT again, so what is in flight at a drain is served.
func TestADrainServesWhatIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newPipeMesh(t, nil)
		p := m.raw(t)
		p.Manual = true
		p.Send(hbonetest.Open(1, target))
		p.WantAnswer(1, 200)
		down := make(chan error, 1)
		go func() { down <- m.server.Shutdown(t.Context()) }()
		if g := p.WantGoAway(http2.ErrCodeNo); g.Last != 1<<31-1 {
			t.Fatalf("the first GOAWAY says %d", g.Last)
		}
		ping := p.WantPing()
		ping.Ack = true
		p.Send(ping, hbonetest.Open(3, target))                   // so ztunnel answers: before what it has queued
		for last, answered := false, false; !last || !answered; { // in either order
			f, err := p.Next()
			if err != nil {
				t.Fatal(err)
			}
			switch f := f.(type) {
			case hbonetest.Ping:
				p.Send(hbonetest.Ping{Data: f.Data, Ack: true})
			case hbonetest.GoAway:
				if last = true; f.Last != 3 {
					t.Fatalf("the last GOAWAY says %d", f.Last)
				}
			case hbonetest.Headers:
				if answered = true; hbonetest.Value(f.Fields, ":status") != "200" {
					t.Fatalf("stream 3 got %v", f.Fields)
				}
			}
		}
		p.Send(hbonetest.Data{Stream: 1, Bytes: []byte("on"), End: true})
		p.WantEnd(1)
		p.Send(hbonetest.Reset{Stream: 3, Code: http2.ErrCodeCancel})
		if err := <-down; err != nil {
			t.Error(err)
		}
	})
}

func TestShutdownEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newPipeMesh(t, nil)
		c := m.open(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := m.server.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("the tunnel lives")
		}
	})
}

func TestTracesTellBothEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := make(chan string, 16)
		trace := func(who string) *hbone.Trace {
			return &hbone.Trace{
				HandshakeDone: func(c hbone.TraceConn) { events <- who + " handshake " + c.Peer.Path() },
				GotConn: func(_ hbone.TraceConn, reused bool) {
					events <- who + map[bool]string{true: " reused", false: " waited"}[reused]
				},
				Connected:  func(tun hbone.TraceTunnel) { events <- who + " connected " + tun.Target },
				Refused:    func(tun hbone.TraceTunnel) { events <- who + " refused " + tun.Err.Error() },
				ConnClosed: func(hbone.TraceConn) { events <- who + " closed" },
			}
		}
		var deny atomic.Bool
		m := newPipeMesh(t, func(s *hbone.Server) {
			s.Trace = trace("server")
			s.Admit = func(context.Context, *hbone.ConnectRequest) error {
				if deny.Load() {
					return &hbone.Refusal{Status: 401, Err: errors.New("no")}
				}
				return nil
			}
		})
		m.dialer.Trace = trace("client")
		c := m.open(t)
		deny.Store(true)
		if _, err := m.dialer.DialContext(t.Context(), "tcp", "orders:80"); err == nil {
			t.Error("it was admitted")
		}
		c.Close()
		m.pool.Close()
		synctest.Wait()
		close(events)
		seen := map[string]int{}
		for e := range events {
			seen[e]++
		}
		for _, want := range []string{
			"client handshake /ns/shop/sa/orders", "server handshake /ns/edge/sa/gateway", "client waited", "client reused",
			"client connected " + target, "server connected " + target, "client refused CONNECT was answered with status 401",
			"server refused refused with status 401: no", "client closed", "server closed",
		} {
			if seen[want] != 1 {
				t.Errorf("%q came %d times", want, seen[want])
			}
			delete(seen, want)
		}
		if len(seen) > 0 {
			t.Errorf("and these came: %v", seen)
		}
	})
}

var _ net.Listener = (*pipes)(nil)
