package hbone_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// judging is a turning that says itself which ways are right.
type judging struct {
	*turning
	admits func(hbone.Route) bool
}

func (a judging) Admits(r hbone.Route) bool { return a.admits(r) }

// newTurning is a mesh whose Resolver leads past the waypoint, for now.
func newTurning(t *testing.T) (*pipeMesh, *turning) {
	t.Helper()
	m, ways := newPipeMesh(t, nil), &turning{changed: make(chan struct{})}
	ways.turn(m.hop(), hbone.HopWorkload, "10.0.0.7:80", nil)
	m.dialer.Resolver = ways
	t.Cleanup(func() { m.dialer.Close() })
	return m, ways
}

// A Resolver's word is enough: nobody has to call Retire.
func TestADialerFollowsItsResolver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, ways := newTurning(t)
		c := m.open(t)
		idle := m.open(t)
		idle.Close()
		synctest.Wait()
		ways.turn(m.hop(), hbone.HopWorkload, "10.0.0.7:81", nil) // another port of the pod: the same kind of way
		time.Sleep(time.Second)
		works(t, c)
		if st := m.dialer.Stats(); st.Conns != 1 || m.dialer.Outdated() != 0 {
			t.Errorf("%+v, %d outdated", st, m.dialer.Outdated())
		}
		ways.turn(m.hop(), hbone.HopWaypoint, "10.96.0.1:80", nil)
		after := m.open(t)
		defer after.Close()
		if hop := after.Route().Hops[0]; hop.Kind != hbone.HopWaypoint {
			t.Errorf("the first tunnel after the change goes to a %s", hop.Kind)
		}
		time.Sleep(time.Second)
		works(t, c) // its user may go on
		if n := m.dialer.Outdated(); n != 1 {
			t.Errorf("%d tunnels are outdated", n)
		}
		last := m.open(t)
		last.Close()
		c.Close()
		time.Sleep(time.Second)
		if st := m.dialer.Stats(); st.Conns != 1 || m.dialer.Outdated() != 0 {
			t.Errorf("%+v, %d outdated: the old connection did not end with its last tunnel", st, m.dialer.Outdated())
		}
	})
}

func TestAnIdleConnectionOnAnOldWayCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, ways := newTurning(t)
		m.open(t).Close()
		synctest.Wait()
		ways.turn(m.hop(), hbone.HopWorkload, "", errors.New("the waypoint has no pods"))
		time.Sleep(time.Second)
		if st := m.dialer.Stats(); st.Conns != 0 {
			t.Errorf("%+v", st)
		}
	})
}

func TestDrain(t *testing.T) {
	for name, tt := range map[string]struct {
		drain, lives time.Duration
		back         bool // the way comes back in time
	}{
		"after a while":                    {time.Minute, 59 * time.Second, false},
		"at once":                          {-1, 0, false},
		"never":                            {0, time.Hour, false},
		"not, when the way is right again": {time.Minute, time.Hour, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, ways := newTurning(t)
				m.dialer.Drain = tt.drain
				c := m.open(t)
				ways.turn(m.hop(), hbone.HopWaypoint, "10.96.0.1:80", nil)
				if tt.back {
					time.Sleep(time.Second)
					ways.turn(m.hop(), hbone.HopWorkload, "10.0.0.7:80", nil)
				}
				if tt.lives > 0 {
					time.Sleep(tt.lives)
					works(t, c)
				}
				if tt.lives < time.Hour {
					time.Sleep(2 * time.Second)
					if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
						t.Errorf("read gave %v", err)
					}
				}
				c.Close()
			})
		})
	}
}

// A tunnel that opens while its way changes is seen, too.
func TestAWayThatChangesDuringTheDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, ways := newTurning(t)
		m.dialer.Drain = -1
		m.dialer.NetDial = func(ctx context.Context, network, address string) (net.Conn, error) {
			ways.turn(m.hop(), hbone.HopWaypoint, "10.96.0.1:80", nil)
			return m.dial(ctx, network, address)
		}
		c := m.open(t)
		if hop := c.Route().Hops[0]; hop.Kind != hbone.HopWorkload {
			t.Fatalf("it goes to a %s", hop.Kind)
		}
		time.Sleep(time.Second)
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read gave %v", err)
		}
	})
}

// Who asks the Resolver himself need not follow it himself: what changes after he asked, before the dial or after it, ends his tunnel.
func TestARouteOfTheCallersIsFollowed(t *testing.T) {
	for name, before := range map[string]bool{"it changes before the dial": true, "it changes later": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, ways := newTurning(t)
				m.dialer.Drain = -1
				route, err := ways.Resolve(t.Context(), "tcp", "orders:80")
				if err != nil {
					t.Fatal(err)
				}
				route.Target = "orders:80"
				turn := func() { ways.turn(m.hop(), hbone.HopWaypoint, "10.96.0.1:80", nil) }
				if before {
					turn()
				}
				c, err := m.dialer.DialRoute(t.Context(), route)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if !before {
					time.Sleep(time.Second)
					works(t, c)
					turn()
				}
				time.Sleep(time.Second)
				if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("read gave %v", err)
				}
			})
		})
	}
}

// The Resolver says itself what is right, and is asked about each Target.
func TestAdmits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, ways := newTurning(t)
		gone := "orders:80"
		m.dialer.Resolver = judging{ways, func(r hbone.Route) bool { return r.Target != gone }}
		orders := m.open(t)
		defer orders.Close()
		cart, err := m.dialer.DialContext(t.Context(), "tcp", "cart:80")
		if err != nil {
			t.Fatal(err)
		}
		defer cart.Close()
		byRoute, err := m.dialer.DialRoute(t.Context(), hbone.Route{Hops: []hbone.Hop{m.hop()}})
		if err != nil {
			t.Fatal(err)
		}
		defer byRoute.Close()
		ways.turn(m.hop(), hbone.HopWorkload, "10.0.0.7:80", nil)
		time.Sleep(time.Second)
		if n := m.dialer.Outdated(); n != 1 {
			t.Errorf("%d tunnels are outdated, want that of orders alone", n)
		}
	})
}

// Nothing goes on for a Dialer that has nothing open; the next dial starts it again.
func TestFollowingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, ways := newTurning(t)
		m.pool.IdleTimeout = time.Second
		m.open(t).Close()
		time.Sleep(2 * time.Minute)
		before := ways.asked
		ways.turn(m.hop(), hbone.HopWaypoint, "10.96.0.1:80", nil)
		time.Sleep(time.Minute)
		if ways.asked != before {
			t.Error("the Resolver is asked though nothing is open")
		}
		c := m.open(t)
		defer c.Close()
		ways.turn(m.hop(), hbone.HopWorkload, "10.0.0.7:80", nil)
		time.Sleep(time.Second)
		if n := m.dialer.Outdated(); n != 1 {
			t.Errorf("%d tunnels are outdated", n)
		}
	})
}

// An endpoint that cannot be reached is left out for a while, and a dial goes to another.
func TestADialGoesElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newPipeMesh(t, nil)
		ends := []*hbone.Endpoint{new(hbone.Endpoint), new(hbone.Endpoint)}
		dead := "10.0.0.6:15008"
		m.dialer.Resolver = hbone.ResolverFunc(func(context.Context, string, string) (hbone.Route, error) {
			hop := m.hop()
			i := 0
			if ends[0].Failing(time.Now) {
				i = 1
			} else {
				hop.Addr = netip.MustParseAddrPort(dead)
			}
			return hbone.Route{Hops: []hbone.Hop{hop}, Endpoint: ends[i]}, nil
		})
		m.dialer.NetDial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if address == dead {
				return nil, syscall.ECONNREFUSED
			}
			return m.dial(ctx, network, address)
		}
		c := m.open(t)
		works(t, c)
		if ends[0].Open() != 0 || ends[1].Open() != 1 || !ends[0].Failing(time.Now) || ends[1].Failing(time.Now) {
			t.Errorf("%d and %d tunnels", ends[0].Open(), ends[1].Open())
		}
		c.Close()
		c.Close()
		if ends[1].Open() != 0 {
			t.Errorf("%d tunnels after Close", ends[1].Open())
		}
		// Alone it is an error.
		m.dialer.Resolver = hbone.ResolverFunc(func(context.Context, string, string) (hbone.Route, error) {
			hop := m.hop()
			hop.Addr = netip.MustParseAddrPort(dead)
			return hbone.Route{Hops: []hbone.Hop{hop}, Endpoint: ends[0]}, nil
		})
		if _, err := m.dialer.DialContext(t.Context(), "tcp", "orders:80"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("got %v", err)
		}
		// What a peer has refused is no failure of the way.
		m.dialer.Resolver = hbone.ResolverFunc(func(context.Context, string, string) (hbone.Route, error) {
			hop := m.hop()
			hop.Peers = []spiffeid.ID{sa("shop", "another")}
			return hbone.Route{Hops: []hbone.Hop{hop}, Endpoint: ends[1]}, nil
		})
		canceled, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := m.dialer.DialContext(canceled, "tcp", "orders:80"); err == nil || ends[1].Failing(time.Now) {
			t.Errorf("%v, and the endpoint is blamed for what its caller gave up: %v", err, ends[1].Failing(time.Now))
		}
	})
}

func TestEndpointForgets(t *testing.T) {
	e, now := new(hbone.Endpoint), time.Unix(1000, 0)
	clock := func() time.Time { return now }
	for _, seconds := range []int{1, 2, 4, 8, 16, 30, 30} {
		want := time.Duration(seconds) * time.Second
		e.Failed(now)
		e.Failed(now) // of many dials that waited
		now = now.Add(want - 1)
		if !e.Failing(clock) {
			t.Fatalf("it is not left out for %v", want)
		}
		if now = now.Add(1); e.Failing(clock) {
			t.Fatalf("it is left out for more than %v", want)
		}
		if e.Forgettable(now) {
			t.Fatal("its failures would be forgotten at once")
		}
	}
	if !e.Forgettable(now.Add(time.Minute)) {
		t.Error("its failures are never forgotten")
	}
	e.Opened()
	if e.Failed(now); e.Forgettable(now.Add(time.Hour)) {
		t.Error("its tunnels would be forgotten")
	}
	if now = now.Add(time.Second); e.Failing(clock) {
		t.Error("a success does not clear the failures before it")
	}
}

// A clock that is set back leaves nobody out until it has caught up.
func TestEndpointMindsNoClockThatIsSetBack(t *testing.T) {
	e, now := new(hbone.Endpoint), time.Unix(100_000, 0)
	clock := func() time.Time { return now }
	e.Failed(now)
	if now = now.Add(-time.Hour); e.Failing(clock) || !e.Forgettable(now) {
		t.Error("it is left out for an hour")
	}
	if e.Failed(now); !e.Failing(clock) || e.Forgettable(now) {
		t.Error("what fails now is not left out")
	}
	if now = now.Add(3 * time.Second); e.Failing(clock) {
		t.Error("it is left out for more than its failures say")
	}
}
