package wds_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/hbone/hbonetest"
	"github.com/isthmus-mesh/isthmus/hbone/route"
	"github.com/isthmus-mesh/isthmus/hbone/wds"
	"github.com/isthmus-mesh/isthmus/hbone/wds/wdstest"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// shop is pods in memory, each of which tells its name and then echoes.
type shop struct {
	t       *testing.T
	ca      *identitytest.CA
	network *hbonetest.Network
	istiod  *wdstest.Istiod
	mesh    *wds.Client
}

func newShop(t *testing.T) *shop {
	t.Helper()
	s := &shop{t: t, ca: identitytest.NewCA(spiffeid.RequireTrustDomainFromString("cluster.local")), network: new(hbonetest.Network), istiod: wdstest.New(t)}
	s.istiod.SetService(cart())
	s.mesh = client(t, s.istiod)
	return s
}

func (s *shop) id(path string) spiffeid.ID { return spiffeid.RequireFromPath(s.ca.TrustDomain, path) }

// run starts a pod at ip.
func (s *shop) run(name, ip string, id spiffeid.ID) *hbone.Server {
	s.t.Helper()
	server := &hbone.Server{Identity: s.ca.Source(id), Admit: func(context.Context, *hbone.ConnectRequest) error { return nil }}
	ln, err := s.network.Listen(netip.AddrPortFrom(netip.MustParseAddr(ip), 15008))
	if err != nil {
		s.t.Fatal(err)
	}
	go func() { _ = server.Serve(ln) }()
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				fmt.Fprintf(c, "%s for %s\n", name, c.(*hbone.Conn).Request().Authority)
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	s.t.Cleanup(func() { server.Close() })
	return server
}

// dialer is one of the gateway's.
func (s *shop) dialer(edit func(*hbone.Dialer)) *hbone.Dialer {
	d := &hbone.Dialer{Identity: s.ca.Source(s.id("/ns/edge/sa/gateway")), Resolver: s.mesh, NetDial: s.network.DialContext}
	if edit != nil {
		edit(d)
	}
	s.t.Cleanup(func() { d.Close() })
	return d
}

const cartName = "cart.shop.svc.cluster.local:80"

// ask opens a tunnel and reads who answers.
func ask(ctx context.Context, d *hbone.Dialer) (net.Conn, string, error) {
	c, err := d.DialContext(ctx, "tcp", cartName)
	if err != nil {
		return nil, "", err
	}
	line, err := bufio.NewReaderSize(c, 16).ReadString('\n')
	if err != nil {
		c.Close()
	}
	return c, strings.TrimSuffix(line, "\n"), err
}

// traffic dials all the while, and wants each dial that begins after a change to go where the change leads.
type traffic struct {
	t     *testing.T
	want  atomic.Pointer[string] // what each dial must say that begins now; nil: anything
	dials atomic.Int64
	stop  context.CancelFunc
	wg    sync.WaitGroup
}

func (s *shop) traffic(d *hbone.Dialer) *traffic {
	ctx, stop := context.WithCancel(s.t.Context())
	tr := &traffic{t: s.t, stop: stop}
	for range 4 {
		tr.wg.Go(func() {
			for ctx.Err() == nil {
				want := tr.want.Load()
				c, who, err := ask(within(s.t, 10*time.Second), d)
				if err != nil {
					s.t.Errorf("dial %d: %v", tr.dials.Load(), err)
					return
				}
				c.Close()
				tr.dials.Add(1)
				if want != nil && who != *want && tr.want.Load() == want { // else the next change has begun
					s.t.Errorf("a dial that began after istiod's answer went to %q, want %q", who, *want)
					return
				}
			}
		})
	}
	return tr
}

// now wants all dials from now on to say that.
func (tr *traffic) now(who string) {
	tr.want.Store(&who)
	for n := tr.dials.Load(); tr.dials.Load() < n+50 && !tr.t.Failed(); {
		time.Sleep(time.Millisecond)
	}
}

func (tr *traffic) end() {
	tr.stop()
	tr.wg.Wait()
}

// until waits for what happens by itself.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: ", what)
		}
	}
}

// The way changes under traffic, on istiod's word alone: a waypoint comes and goes, a pod moves. The first dial after the answer takes the new
// way, none fails, idle connections on the old one close, and tunnels on it drain.
func TestWaysChangeUnderTraffic(t *testing.T) {
	s := newShop(t)
	pod1 := s.run("cart-1", "10.244.1.1", s.id("/ns/shop/sa/cart"))
	waypoint1 := s.run("waypoint", "10.244.1.20", s.id("/ns/edge/sa/waypoint"))
	s.istiod.SetWorkload(pod("cart-1", "10.244.1.1", cartKey))
	standing := waypoint("first", "10.96.0.20")
	at := pod("first-1", "10.244.1.20", standing.Key())
	at.Namespace, at.ServiceAccount = "edge", "waypoint"
	s.istiod.SetService(standing)
	s.istiod.SetWorkload(at)

	d := s.dialer(func(d *hbone.Dialer) { d.Drain = 200 * time.Millisecond })
	lasting := s.dialer(nil) // whose tunnels are left to their users
	kept, who, err := ask(within(t, 10*time.Second), lasting)
	if err != nil || who != "cart-1 for 10.244.1.1:8080" {
		t.Fatal(who, err)
	}
	defer kept.Close()
	old, _, err := ask(within(t, 10*time.Second), d)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	tr := s.traffic(d)
	defer tr.end()
	tr.now("cart-1 for 10.244.1.1:8080")

	// change makes a change and waits for istiod's answer, after which all dials must say who.
	change := func(what string, do func(), kind hbone.HopKind, authority, who string) {
		t.Helper()
		tr.want.Store(nil)
		do()
		eventually(t, s.mesh, what, func() bool {
			r, err := s.mesh.Resolve(within(t, 10*time.Second), "tcp", cartName)
			return err == nil && r.Hops[0].Kind == kind && r.Hops[0].Authority == authority
		})
		tr.now(who)
	}
	guarded := cart()
	to := gatewayTo(standing)
	guarded.Waypoint = &to
	change("the waypoint", func() { s.istiod.SetService(guarded) }, hbone.HopWaypoint, "10.96.0.1:80", "waypoint for 10.96.0.1:80")
	_ = old.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := old.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the tunnel past the waypoint reads %v", err)
	}
	until(t, "the tunnel that is left to its user is counted", func() bool { return lasting.Outdated() == 1 })
	echoes(t, kept)
	kept.Close()
	until(t, "connections past the waypoint close", func() bool { return pod1.Stats().Conns == 0 })

	change("no waypoint", func() { s.istiod.SetService(cart()) }, hbone.HopWorkload, "10.244.1.1:8080", "cart-1 for 10.244.1.1:8080")
	until(t, "connections to the waypoint close", func() bool { return waypoint1.Stats().Conns == 0 })

	s.run("cart-2", "10.244.1.2", s.id("/ns/shop/sa/cart"))
	change("the pod that moved", func() {
		s.istiod.SetWorkload(pod("cart-2", "10.244.1.2", cartKey))
		s.istiod.Remove(wdstest.AddressType, "Kubernetes//Pod/shop/cart-1")
	}, hbone.HopWorkload, "10.244.1.2:8080", "cart-2 for 10.244.1.2:8080")
	until(t, "connections to the old pod close", func() bool { return pod1.Stats().Conns == 0 })
	tr.end()
	t.Logf("%d dials", tr.dials.Load())
}

// echoes checks that a tunnel still works.
func echoes(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

// What makes no other way does not disturb: endpoints that come, health, weights, places.
func TestTunnelsOutliveOtherChanges(t *testing.T) {
	s := newShop(t)
	s.run("cart-1", "10.244.1.1", s.id("/ns/shop/sa/cart"))
	s.istiod.SetWorkload(pod("cart-1", "10.244.1.1", cartKey))
	d := s.dialer(func(d *hbone.Dialer) { d.Drain = -1 })
	c, _, err := ask(within(t, 10*time.Second), d)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sick := pod("cart-1", "10.244.1.1", cartKey)
	sick.Unhealthy, sick.Capacity = true, 7
	picky := cart()
	picky.Prefer, picky.Strict = []route.Scope{route.ScopeNode}, true
	for _, change := range []func(){
		func() { s.istiod.SetWorkload(pod("cart-2", "10.244.1.2", cartKey)) },
		func() { s.istiod.SetWorkload(sick) },
		func() { s.istiod.SetService(picky) },
		func() { s.istiod.Stop(); s.istiod.Start(t) },
	} {
		changed := s.mesh.Changed()
		change()
		<-changed
		time.Sleep(100 * time.Millisecond) // what must not happen is watched for a short while
		echoes(t, c)
		if n := d.Outdated(); n != 0 {
			t.Errorf("%d tunnels are outdated", n)
		}
	}
}

// A pod that cannot be reached is left for the others, and tunnels are shared among those.
func TestAFailingPodIsLeftOut(t *testing.T) {
	s := newShop(t)
	for i := 1; i <= 3; i++ {
		ip := fmt.Sprintf("10.244.1.%d", i)
		s.istiod.SetWorkload(pod(fmt.Sprintf("cart-%d", i), ip, cartKey))
		if i > 1 { // the first one does not listen
			s.run(fmt.Sprintf("cart-%d", i), ip, s.id("/ns/shop/sa/cart"))
		}
	}
	d := s.dialer(nil)
	count := map[string]int{}
	for range 60 {
		c, who, err := ask(within(t, 10*time.Second), d)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		count[who[:6]]++
	}
	if count["cart-2"] < 20 || count["cart-3"] < 20 {
		t.Errorf("60 tunnels are shared as %v", count)
	}
}
