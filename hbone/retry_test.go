package hbone_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/hbone/hbonetest"
	"golang.org/x/net/http2"
)

// vip is where the waypoint of these tests is to go on to.
const vip = "10.96.0.1:80"

// podAddr is where the pod behind it is.
var podAddr = netip.MustParseAddrPort("10.0.0.8:15008")

// led is a script whose dialer is led to a waypoint, and tells what it tries again.
type led struct {
	*script
	ways *turning
	pod  *hbonetest.Listener

	mu    sync.Mutex // guards the field below
	again []hbone.TraceRetry
}

func newLed(t *testing.T) *led {
	t.Helper()
	l := &led{script: newScript(t), ways: &turning{changed: make(chan struct{})}}
	var err error
	if l.pod, err = l.network.Listen(podAddr); err != nil {
		t.Fatal(err)
	}
	l.toWaypoint()
	l.dialer.Resolver = l.ways
	l.dialer.Trace = &hbone.Trace{Retrying: func(r hbone.TraceRetry) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.again = append(l.again, r)
	}}
	t.Cleanup(func() { l.dialer.Close() })
	return l
}

// toWaypoint has the Resolver lead to the waypoint, and toPod to the pod behind it.
func (l *led) toWaypoint() { l.ways.turn(l.hop(), hbone.HopWaypoint, vip, nil) }

func (l *led) toPod() {
	hop := l.hop()
	hop.Addr = podAddr
	l.ways.turn(hop, hbone.HopWorkload, target, nil)
}

// tries is what the Trace was told of.
func (l *led) tries() []hbone.TraceRetry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.again
}

// refuse answers as Envoy does.
func refuse(p *hbonetest.Peer, id uint32, status int) {
	p.Send(hbonetest.Answer(id, status), hbonetest.Data{Stream: id, Bytes: []byte("upstream connect error"), End: true},
		hbonetest.Reset{Stream: id, Code: http2.ErrCodeConnect})
}

// connect is the next CONNECT. What we say about the one before does not matter.
func connect(t *testing.T, p *hbonetest.Peer, authority string) uint32 {
	t.Helper()
	for {
		f, err := p.Next()
		if err != nil {
			t.Fatal(err)
		}
		if h, ok := f.(hbonetest.Headers); ok {
			if got := hbonetest.Value(h.Fields, ":authority"); got != authority {
				t.Fatalf("got a CONNECT to %s, want %s", got, authority)
			}
			return h.Stream
		}
	}
}

// A waypoint does not know a Service yet that callers are sent to it for.
func TestADialIsTriedAgainThatIsRefusedForTheMoment(t *testing.T) {
	for _, status := range []int{503, 404} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLed(t)
				start := time.Now()
				call := l.dial(t)
				p := l.peer(t)
				refuse(p, connect(t, p, vip), status)
				p.Send(hbonetest.Answer(connect(t, p, vip), 200))
				got(t, call).Close()
				took := time.Since(start)
				if took < 20*time.Millisecond || took > 40*time.Millisecond {
					t.Errorf("it was tried again after %v", took)
				}
				again := l.tries()
				if len(again) != 1 {
					t.Fatalf("the Trace was told of %+v", again)
				}
				if r := again[0]; r.Address != "orders:80" || r.Try != 2 || r.Elsewhere || r.Waited != took || wantDialError(t, r.Err, status) == nil {
					t.Errorf("the Trace was told of %+v", r)
				}
				if st := l.dialer.Retries(); st != (hbone.RetryStats{Tries: 1, Saved: 1}) {
					t.Errorf("the stats are %+v", st)
				}
			})
		})
	}
}

// An answer that is meant, or none to a CONNECT that may have been acted on, is an answer.
func TestADialIsNotTriedAgainThatIsRefusedForGood(t *testing.T) {
	for name, tt := range map[string]struct {
		refuse func(p *hbonetest.Peer, id uint32)
		status int
	}{
		"not a target":    {func(p *hbonetest.Peer, id uint32) { refuse(p, id, 400) }, 400},
		"a policy":        {func(p *hbonetest.Peer, id uint32) { refuse(p, id, 401) }, 401},
		"RBAC":            {func(p *hbonetest.Peer, id uint32) { refuse(p, id, 403) }, 403},
		"a broken server": {func(p *hbonetest.Peer, id uint32) { refuse(p, id, 500) }, 500},
		"no HBONE":        {func(p *hbonetest.Peer, id uint32) { refuse(p, id, 502) }, 502},
		"a reset": {func(p *hbonetest.Peer, id uint32) {
			p.Send(hbonetest.Reset{Stream: id, Code: http2.ErrCodeConnect})
		}, 0},
	} {
		for _, optimistic := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, optimistic: %v", name, optimistic), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := newLed(t)
					l.dialer.Optimistic = optimistic
					start := time.Now()
					call := l.dial(t)
					p := l.peer(t)
					tt.refuse(p, connect(t, p, vip))
					p.Sync()
					c, err := call.Wait()
					if optimistic {
						_, err = c.Read(make([]byte, 1))
						c.Close()
					}
					if tt.status != 0 {
						wantDialError(t, err, tt.status)
					}
					if err == nil || time.Since(start) != 0 || len(l.tries()) != 0 || strings.Contains(err.Error(), "tries") {
						t.Errorf("after %v and %+v: %v", time.Since(start), l.tries(), err)
					}
					p.WantQuiet()
				})
			})
		}
	}
}

// The Resolver leads elsewhere by now, or does so while it is waited for: that is where it goes, at once.
func TestADialThatIsRefusedGoesWhereItIsLedByNow(t *testing.T) {
	for name, after := range map[string]time.Duration{"by now": 0, "while it waits": 7 * time.Millisecond} {
		for _, optimistic := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, optimistic: %v", name, optimistic), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := newLed(t)
					l.dialer.Optimistic = optimistic
					start := time.Now()
					call := hbonetest.Go(func() (net.Conn, error) {
						c, err := l.dialer.DialContext(t.Context(), "tcp", "orders:80")
						if err == nil && optimistic {
							_, err = c.Read(make([]byte, 1))
						}
						return c, err
					})
					p := l.peer(t)
					id := connect(t, p, vip)
					if after == 0 {
						l.toPod()
					}
					refuse(p, id, 503)
					if after > 0 {
						time.Sleep(after)
						l.toWaypoint() // something else has changed
						time.Sleep(after)
						l.toPod()
					}
					p = hbonetest.AcceptTLS(t, l.pod, l.orders)
					id = connect(t, p, target)
					p.Send(hbonetest.Answer(id, 200), hbonetest.Data{Stream: id, Bytes: []byte("x")})
					c := got(t, call)
					if took := time.Since(start); took != 2*after {
						t.Errorf("it took %v", took)
					}
					if r := l.tries(); len(r) != 1 || !r[0].Elsewhere {
						t.Errorf("the Trace was told of %+v", r)
					}
					if hop := c.Route().Hops[0]; hop.Kind != hbone.HopWorkload {
						t.Errorf("the tunnel says that it goes to a %s", hop.Kind)
					}
					c.Close()
					if st := l.dialer.Retries(); st != (hbone.RetryStats{Tries: 1, Saved: 1}) {
						t.Errorf("the stats are %+v", st)
					}
				})
			})
		}
	}
}

// All pods of a waypoint learn of a Service at about the same time: one is waited for as another is. Of pods of a workload one may be wrong, and the others right.
func TestWhereADialGoesThatAPodRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		kind hbone.HopKind
		at   []time.Duration // when the other pods are asked
	}{
		"pods of a waypoint": {hbone.HopWaypoint, []time.Duration{40 * time.Millisecond, 120 * time.Millisecond, 280 * time.Millisecond, 600 * time.Millisecond}},
		"pods of a workload": {hbone.HopWorkload, []time.Duration{0, 0, 40 * time.Millisecond, 120 * time.Millisecond}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLed(t)
				asked := 0
				l.dialer.Resolver = hbone.ResolverFunc(func(context.Context, string, string) (hbone.Route, error) {
					hop := l.hop()
					asked++
					hop.Kind, hop.Authority = tt.kind, vip
					hop.Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 1, byte(asked)}), 15008)
					return hbone.Route{Hops: []hbone.Hop{hop}, Endpoint: new(hbone.Endpoint)}, nil
				})
				l.dialer.NetDial = func(ctx context.Context, network, _ string) (net.Conn, error) {
					return l.network.DialContext(ctx, network, pipeAddr.String())
				}
				start := time.Now()
				call := l.dial(t)
				p := l.peer(t)
				for i, most := range tt.at {
					refuse(p, connect(t, p, vip), 503)
					p = l.peer(t)
					if took := time.Since(start); took > most || took < most/2 {
						t.Errorf("try %d came after %v, want %v to %v", i+2, took, most/2, most)
					}
				}
				p.Send(hbonetest.Answer(connect(t, p, vip), 200))
				got(t, call).Close()
			})
		})
	}
}

// refusing answers all CONNECTs of one connection with 503, or as status says, until that is closed, and counts them.
func refusing(p *hbonetest.Peer) func() int {
	var mu sync.Mutex
	n := 0
	go func() {
		for {
			f, err := p.Next()
			if err != nil {
				return
			}
			if h, ok := f.(hbonetest.Headers); ok {
				mu.Lock()
				n++
				mu.Unlock()
				_ = p.TrySend(hbonetest.Answer(h.Stream, 503), hbonetest.Data{Stream: h.Stream, End: true}, hbonetest.Reset{Stream: h.Stream})
			}
		}
	}()
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

// A waypoint that refuses for long makes neither every dial slow, nor the CONNECTs that it gets many times as many.
func TestAWayThatGoesOnRefusingIsNotWaitedFor(t *testing.T) {
	for _, optimistic := range []bool{false, true} {
		t.Run(fmt.Sprintf("optimistic: %v", optimistic), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLed(t)
				l.dialer.Optimistic = optimistic
				dial := func() (time.Duration, *hbone.DialError) {
					start := time.Now()
					c, err := l.dialer.DialContext(t.Context(), "tcp", "orders:80")
					if optimistic {
						_, err = c.Read(make([]byte, 1))
						c.Close()
					}
					return time.Since(start), wantDialError(t, err, 503)
				}
				var connects func() int
				served := make(chan struct{})
				go func() { connects = refusing(l.peer(t)); close(served) }()
				took, e := dial()
				<-served
				if connects() != 5 || took < 300*time.Millisecond || took > 600*time.Millisecond || e.Tries != 5 || !strings.Contains(e.Error(), "the last of 5 tries") {
					t.Errorf("after %d CONNECTs in %v: %v", connects(), took, e)
				}
				for range 10 {
					if took, e := dial(); took != 0 || e.Tries != 0 || strings.Contains(e.Error(), "tries") {
						t.Errorf("it was waited for again, %v: %v", took, e)
					}
					time.Sleep(2900 * time.Millisecond)
				}
				if st := l.dialer.Retries(); connects() != 15 || st.Tries != 4 || st.Saved != 0 || st.Spared != 10 {
					t.Errorf("%d CONNECTs, %+v", connects(), st)
				}
				if hop := l.hop(); true { // another way is another matter
					hop.Peers = append(hop.Peers, sa("shop", "other"))
					l.ways.turn(hop, hbone.HopWaypoint, vip, nil)
					go func() { refusing(l.peer(t)) }()
					if took, e := dial(); took < 300*time.Millisecond || e.Tries != 5 {
						t.Errorf("another way: %v after %v", e, took)
					}
				}
				time.Sleep(2 * time.Second)
				if l.toWaypoint(); optimistic { // ways are followed since the first dial, and what went the way of before is closed
					go func() { refusing(l.peer(t)) }()
				}
				if took, e := dial(); took < 300*time.Millisecond || e.Tries != 5 {
					t.Errorf("after more than 30 s: %v after %v", e, took)
				}
			})
		})
	}
}

// All that a Dialer tries again is bounded: 100 at once, 10 a second, and one in five of what opens.
func TestWhatIsTriedAgainIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLed(t)
		route := hbone.Route{Hops: []hbone.Hop{l.hop()}}
		l.dialer.Resolver = hbone.ResolverFunc(func(_ context.Context, _, address string) (hbone.Route, error) {
			r := hbone.Route{Hops: []hbone.Hop{route.Hops[0]}}
			r.Hops[0].Authority = address // each is another way, which nothing is known of
			return r, nil
		})
		i := 0
		dials := func(n int) {
			t.Helper()
			var wg sync.WaitGroup
			for range n {
				i++
				address := fmt.Sprintf("10.1.0.1:%d", i)
				wg.Go(func() {
					if _, err := l.dialer.DialContext(t.Context(), "tcp", address); err == nil {
						t.Error("it was opened")
					}
				})
			}
			wg.Wait()
		}
		more := func(n, atLeast, atMost int) {
			t.Helper()
			before := len(l.tries())
			dials(n)
			if n := len(l.tries()) - before; n < atLeast || n > atMost {
				t.Errorf("%d were tried again, want %d to %d", n, atLeast, atMost)
			}
		}
		go func() { refusing(l.peer(t)) }()
		more(60, 100, 106) // and some that the time brings
		more(30, 0, 6)
		time.Sleep(5 * time.Second)
		more(60, 50, 56)
	})
}

func TestTunnelsThatOpenPayForWhatIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLed(t)
		l.dialer.NetDial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if address != pipeAddr.String() {
				return nil, syscall.ECONNREFUSED
			}
			return l.network.DialContext(ctx, network, address)
		}
		l.dialer.Resolver = hbone.ResolverFunc(func(_ context.Context, _, address string) (hbone.Route, error) {
			hop := l.hop()
			if address != "orders:80" {
				hop.Addr = netip.MustParseAddrPort(address) // each is another way, which nothing is known of
			}
			return hbone.Route{Hops: []hbone.Hop{hop}}, nil
		})
		i := 0
		refused := func() int {
			before := len(l.tries())
			var wg sync.WaitGroup
			for range 30 {
				i++
				address := fmt.Sprintf("10.1.0.1:%d", i)
				wg.Go(func() {
					if _, err := l.dialer.DialContext(t.Context(), "tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			return len(l.tries()) - before
		}
		if n := refused(); n < 100 || n > 106 {
			t.Errorf("%d were tried again", n)
		}
		if n := refused(); n > 6 {
			t.Errorf("%d more were tried again, of what the time brings", n)
		}
		go func() {
			p := l.peer(t)
			for {
				f, err := p.Next()
				if err != nil {
					return
				}
				if h, ok := f.(hbonetest.Headers); ok {
					_ = p.TrySend(hbonetest.Answer(h.Stream, 200))
				}
			}
		}()
		for range 200 {
			c, err := l.dialer.DialContext(t.Context(), "tcp", "orders:80")
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
		}
		if n := refused(); n < 40 || n > 52 {
			t.Errorf("200 tunnels paid for %d tries", n)
		}
	})
}

func TestNothingIsTriedAgainWhereThatIsNotWanted(t *testing.T) {
	for _, optimistic := range []bool{false, true} {
		t.Run(fmt.Sprintf("optimistic: %v", optimistic), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLed(t)
				l.dialer.RetryWithin, l.dialer.Optimistic = -1, optimistic
				call := l.dial(t)
				p := l.peer(t)
				id := connect(t, p, vip)
				l.toPod()
				refuse(p, id, 503)
				start := time.Now()
				c, err := call.Wait()
				if optimistic {
					_, err = c.Read(make([]byte, 1))
					c.Close()
				}
				if wantDialError(t, err, 503); l.dialer.Retries() != (hbone.RetryStats{}) || time.Since(start) != 0 || l.pod.Made() != 0 {
					t.Errorf("%+v after %v", l.dialer.Retries(), time.Since(start))
				}
			})
		})
	}
}

// Who asks the Resolver himself has it his way.
func TestARouteOfTheCallersIsNotTriedAgain(t *testing.T) {
	for _, optimistic := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			l := newLed(t)
			l.dialer.Optimistic = optimistic
			call := hbonetest.Go(func() (*hbone.Conn, error) {
				route, _ := l.ways.Resolve(t.Context(), "tcp", "orders:80")
				route.Target = "orders:80"
				return l.dialer.DialRoute(t.Context(), route)
			})
			p := l.peer(t)
			refuse(p, connect(t, p, vip), 503)
			p.Sync()
			c, err := call.Wait()
			if optimistic {
				_, err = c.Read(make([]byte, 1))
				c.Close()
			}
			wantDialError(t, err, 503)
			p.WantQuiet()
		})
	}
}

func TestADialThatIsTriedAgainObeysItsContextAndItsTime(t *testing.T) {
	t.Run("it is given up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := newLed(t)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
			defer cancel()
			start := time.Now()
			call := hbonetest.Go(func() (net.Conn, error) { return l.dialer.DialContext(ctx, "tcp", "orders:80") })
			p := l.peer(t)
			refuse(p, connect(t, p, vip), 503)
			_, err := call.Wait()
			if wantDialError(t, err, 503); time.Since(start) != 5*time.Millisecond {
				t.Errorf("after %v", time.Since(start))
			}
			// What was given up so soon has not shown that the way refuses for long.
			next := l.dial(t)
			refuse(p, connect(t, p, vip), 503)
			p.Send(hbonetest.Answer(connect(t, p, vip), 200))
			got(t, next).Close()
		})
	})
	t.Run("an answer that comes late", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := newLed(t)
			l.dialer.RetryWithin = 2 * time.Second
			call := l.dial(t)
			p := l.peer(t)
			id := connect(t, p, vip)
			time.Sleep(1999 * time.Millisecond)
			refuse(p, id, 503)
			id = connect(t, p, vip)
			refuse(p, id, 503)
			_, err := call.Wait()
			if e := wantDialError(t, err, 503); e.Tries != 2 {
				t.Errorf("%d tries: %v", e.Tries, err)
			}
		})
	})
}

// Nobody listens, or the other end goes away before it has answered: as while a waypoint's pod is replaced.
func TestADialIsTriedAgainWhosePeerIsNotThere(t *testing.T) {
	t.Run("nobody listens", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := newLed(t)
			l.l.Close()
			call := l.dial(t)
			time.Sleep(10 * time.Millisecond)
			var err error
			if l.l, err = l.network.Listen(pipeAddr); err != nil {
				t.Fatal(err)
			}
			p := l.peer(t)
			p.Send(hbonetest.Answer(connect(t, p, vip), 200))
			got(t, call).Close()
			if r := l.tries(); len(r) != 1 || !errors.Is(r[0].Err, syscall.ECONNREFUSED) {
				t.Errorf("the Trace was told of %+v", r)
			}
		})
	})
	for name, end := range map[string]func(c *hbonetest.Conn){
		"it ends in the handshake":   func(c *hbonetest.Conn) { c.Close() },
		"it resets in the handshake": func(c *hbonetest.Conn) { c.Reset() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLed(t)
				call := l.dial(t)
				c, err := l.l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				end(c.(*hbonetest.Conn))
				p := l.peer(t)
				p.Send(hbonetest.Answer(connect(t, p, vip), 200))
				got(t, call).Close()
			})
		})
	}
	for _, optimistic := range []bool{false, true} {
		t.Run(fmt.Sprintf("it ends before it answers, optimistic: %v", optimistic), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLed(t)
				l.dialer.Optimistic = optimistic
				call := hbonetest.Go(func() (net.Conn, error) {
					c, err := l.dialer.DialContext(t.Context(), "tcp", "orders:80")
					if err == nil && optimistic {
						_, err = c.Read(make([]byte, 1))
					}
					return c, err
				})
				p := l.peer(t)
				connect(t, p, vip)
				p.Conn.Close()
				p = l.peer(t)
				id := connect(t, p, vip)
				p.Send(hbonetest.Answer(id, 200), hbonetest.Data{Stream: id, Bytes: []byte("x")})
				got(t, call).Close()
			})
		})
	}
}

// What was written before the refusal, up to 16 KiB, is sent again from its beginning, with what is written meanwhile behind it.
func TestOptimisticDataIsSentAgainAfterARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLed(t)
		l.dialer.Optimistic = true
		call := l.dial(t)
		p := l.peer(t)
		c := got(t, call)
		id := connect(t, p, vip)
		first := bytes.Repeat([]byte("0123456789abcdef"), 1000)
		if _, err := c.Write(first); err != nil {
			t.Fatal(err)
		}
		p.WantData(id, first)
		refuse(p, id, 503)
		read := hbonetest.Go(func() (string, error) { b, err := io.ReadAll(c); return string(b), err })
		synctest.Wait() // it waits to try again
		if n, err := c.Write([]byte("and the rest")); n != 12 || err != nil {
			t.Fatal(n, err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		id = connect(t, p, vip)
		if b := p.WantEnd(id); string(b) != string(first)+"and the rest" {
			t.Errorf("the peer got %d bytes", len(b))
		}
		p.Send(hbonetest.Answer(id, 200), hbonetest.Data{Stream: id, Bytes: []byte("all"), End: true})
		if b, err := read.Wait(); b != "all" || err != nil {
			t.Errorf("read %q, %v", b, err)
		}
		c.Close()
	})
}

func TestOptimisticDataIsNotSentAgainThatMayHaveArrived(t *testing.T) {
	for name, tt := range map[string]struct {
		size int
		end  func(p *hbonetest.Peer, id uint32)
	}{
		"more than is kept": {16<<10 + 1, func(p *hbonetest.Peer, id uint32) { refuse(p, id, 503) }},
		"a lost connection": {1, func(p *hbonetest.Peer, _ uint32) { p.Conn.Close() }},
		"a reset behind 200": {1, func(p *hbonetest.Peer, id uint32) { // Envoy, of a VIP's port that it does not know; but also of a pod that has read, and reset
			p.Send(hbonetest.Answer(id, 200), hbonetest.Reset{Stream: id, Code: http2.ErrCodeConnect})
		}},
		"a lost connection behind 200": {0, func(p *hbonetest.Peer, id uint32) { p.Send(hbonetest.Answer(id, 200)); p.Conn.Close() }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLed(t)
				l.dialer.Optimistic = true
				call := l.dial(t)
				p := l.peer(t)
				c := got(t, call)
				id := connect(t, p, vip)
				if tt.size > 0 {
					if _, err := c.Write(make([]byte, tt.size)); err != nil {
						t.Fatal(err)
					}
					p.WantData(id, make([]byte, tt.size))
				}
				tt.end(p, id)
				synctest.Wait()
				if tt.size == 0 { // also where nobody has looked for the answer yet
					if err := c.CloseWrite(); err == nil {
						t.Error("CloseWrite is no error")
					}
				}
				if _, err := c.Read(make([]byte, 1)); err == nil || len(l.tries()) != 0 {
					t.Errorf("%v, and it was tried again: %+v", err, l.tries())
				}
				if _, err := c.Write([]byte("x")); err == nil {
					t.Error("a Write behind it is no error")
				}
				c.Close()
			})
		})
	}
}

// Close ends what waits to be tried again.
func TestCloseWhileATunnelIsToBeTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLed(t)
		l.dialer.Optimistic = true
		call := l.dial(t)
		p := l.peer(t)
		c := got(t, call)
		refuse(p, connect(t, p, vip), 503)
		read := hbonetest.Go(func() (int, error) { return c.Read(make([]byte, 1)) })
		synctest.Wait()
		c.Close()
		if _, err := read.Wait(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read gave %v", err)
		}
		time.Sleep(time.Second)
		if n := l.dialer.Stats().Tunnels; n != 0 || len(l.tries()) != 0 {
			t.Errorf("%d tunnels, %+v", n, l.tries())
		}
		p.Sync()
		p.WantQuiet()
	})
}

// A tunnel that goes elsewhere before it stands counts there, and what its caller's context says about the way holds there too.
func TestATunnelThatIsTriedAgainCountsWhereItGoes(t *testing.T) {
	type key struct{}
	for _, closed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			l := newLed(t)
			l.dialer.Optimistic = true
			ends := []*hbone.Endpoint{new(hbone.Endpoint), new(hbone.Endpoint)}
			asked := 0
			l.dialer.Resolver = hbone.ResolverFunc(func(ctx context.Context, network, address string) (hbone.Route, error) {
				if ctx.Value(key{}) != "mine" || network != "tcp4" || address != "orders:80" {
					t.Errorf("asked for %q on %q, by %v", address, network, ctx.Value(key{}))
				}
				hop := l.hop()
				hop.Authority = []string{vip, target}[asked]
				asked++
				return hbone.Route{Hops: []hbone.Hop{hop}, Endpoint: ends[asked-1]}, nil
			})
			ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "mine"))
			call := hbonetest.Go(func() (net.Conn, error) { return l.dialer.DialContext(ctx, "tcp4", "orders:80") })
			p := l.peer(t)
			c := got(t, call)
			cancel() // of the dial, which is over
			refuse(p, connect(t, p, vip), 503)
			if ends[0].Open() != 1 {
				t.Errorf("%d tunnels to the first", ends[0].Open())
			}
			read := hbonetest.Go(func() (int, error) { return c.Read(make([]byte, 1)) })
			id := connect(t, p, target)
			if closed {
				c.Close()
			}
			p.Send(hbonetest.Answer(id, 200), hbonetest.Data{Stream: id, Bytes: []byte("x")})
			if _, err := read.Wait(); (err != nil) != closed {
				t.Error(err)
			}
			synctest.Wait()
			if a, b := ends[0].Open(), ends[1].Open(); !closed && (a != 0 || b != 1) {
				t.Errorf("%d and %d tunnels", a, b)
			}
			c.Close()
			if a, b := ends[0].Open(), ends[1].Open(); a != 0 || b != 0 {
				t.Errorf("%d and %d tunnels after Close", a, b)
			}
		})
	}
}

// ask has the Transport send a request to orders.
func (l *led) ask(t *testing.T, method string, body io.Reader) *hbonetest.Call[string] {
	t.Helper()
	tr := &hbone.Transport{Dialer: l.dialer, Configure: func(tr *http.Transport) { tr.DisableKeepAlives = true }}
	t.Cleanup(tr.CloseIdleConnections)
	req, err := http.NewRequestWithContext(t.Context(), method, "http://orders/", body)
	if err != nil {
		t.Fatal(err)
	}
	return hbonetest.Go(func() (string, error) {
		res, err := tr.RoundTrip(req)
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		return string(b), err
	})
}

// endAtOnce accepts a tunnel and ends it at the first byte, as Envoy does where it does not know the Service.
func endAtOnce(t *testing.T, p *hbonetest.Peer) {
	t.Helper()
	id := connect(t, p, vip)
	p.Send(hbonetest.Answer(id, 200))
	nextData(t, p)
	p.Send(hbonetest.Reset{Stream: id, Code: http2.ErrCodeConnect})
}

// nextData is the next DATA, of whatever tunnel.
func nextData(t *testing.T, p *hbonetest.Peer) string {
	t.Helper()
	for {
		f, err := p.Next()
		if err != nil {
			t.Fatal(err)
		}
		if d, ok := f.(hbonetest.Data); ok && len(d.Bytes) > 0 {
			return string(d.Bytes)
		}
	}
}

// A real waypoint accepts the tunnel for a Service that it does not know yet, and ends it. Who may ask twice does.
func TestARequestIsSentAgainThatAWaypointEnds(t *testing.T) {
	for name, request := range map[string]struct{ method, body string }{"GET": {"GET", ""}, "OPTIONS with a body": {"OPTIONS", "some text"}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLed(t)
				start := time.Now()
				call := l.ask(t, request.method, strings.NewReader(request.body))
				p := l.peer(t)
				endAtOnce(t, p)
				endAtOnce(t, p)
				id := connect(t, p, vip)
				p.Send(hbonetest.Answer(id, 200))
				if b := nextData(t, p); !strings.HasPrefix(b, request.method+" ") || !strings.HasSuffix(b, request.body) {
					t.Errorf("the waypoint got %q", b)
				}
				p.Send(hbonetest.Data{Stream: id, Bytes: []byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")})
				if b, err := call.Wait(); b != "ok" || err != nil {
					t.Errorf("got %q, %v", b, err)
				}
				if took := time.Since(start); took < 60*time.Millisecond || took > 120*time.Millisecond {
					t.Errorf("it took %v", took)
				}
				if r := l.tries(); len(r) != 2 || r[0].Try != 2 || r[1].Try != 3 || r[0].Address != "orders" || r[0].Err == nil {
					t.Errorf("the Trace was told of %+v", r)
				}
				if st := l.dialer.Retries(); st != (hbone.RetryStats{Tries: 2, Saved: 1}) {
					t.Errorf("the stats are %+v", st)
				}
			})
		})
	}
}

func TestARequestIsNotSentAgainThatMayHaveArrived(t *testing.T) {
	for name, tt := range map[string]struct {
		method string
		kind   hbone.HopKind
		code   http2.ErrCode
		within time.Duration
		begun  bool // the answer has
	}{
		"a POST":                    {method: "POST", kind: hbone.HopWaypoint, code: http2.ErrCodeConnect},
		"a pod":                     {method: "GET", kind: hbone.HopWorkload, code: http2.ErrCodeConnect},
		"another end":               {method: "GET", kind: hbone.HopWaypoint, code: http2.ErrCodeCancel},
		"an answer that breaks off": {method: "GET", kind: hbone.HopWaypoint, code: http2.ErrCodeConnect, begun: true},
		"where that is not wanted":  {method: "GET", kind: hbone.HopWaypoint, code: http2.ErrCodeConnect, within: -1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLed(t)
				l.ways.turn(l.hop(), tt.kind, vip, nil)
				l.dialer.RetryWithin = tt.within
				call := l.ask(t, tt.method, nil)
				p := l.peer(t)
				id := connect(t, p, vip)
				p.Send(hbonetest.Answer(id, 200))
				nextData(t, p)
				if tt.begun {
					p.Send(hbonetest.Data{Stream: id, Bytes: []byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")})
				}
				p.Send(hbonetest.Reset{Stream: id, Code: tt.code})
				if _, err := call.Wait(); err == nil || len(l.tries()) != 0 {
					t.Errorf("%v, %+v", err, l.tries())
				}
			})
		})
	}
}

// A policy that denies connections ends them so too, for good.
func TestARequestThatAWaypointGoesOnEndingIsNotSentAgainForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLed(t)
		first := l.ask(t, "GET", nil)
		p := l.peer(t)
		for range 5 {
			endAtOnce(t, p)
		}
		if _, err := first.Wait(); err == nil || !strings.Contains(err.Error(), "policy denies") {
			t.Error(err)
		}
		for range 3 {
			start := time.Now()
			next := l.ask(t, "GET", nil)
			endAtOnce(t, p)
			if _, err := next.Wait(); err == nil {
				t.Error("it was answered")
			}
			if took := time.Since(start); took != 0 || len(l.tries()) != 4 {
				t.Errorf("after %v and %d tries", took, len(l.tries()))
			}
			time.Sleep(8 * time.Second)
		}
		time.Sleep(7 * time.Second) // 30 s since the first
		last := l.ask(t, "GET", nil)
		endAtOnce(t, p)
		id := connect(t, p, vip)
		p.Send(hbonetest.Answer(id, 200))
		nextData(t, p) // an answer before the request is none
		p.Send(hbonetest.Data{Stream: id, Bytes: []byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")})
		if b, err := last.Wait(); b != "ok" || err != nil {
			t.Errorf("got %q, %v", b, err)
		}
	})
}
