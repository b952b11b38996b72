package hbonetest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/hbone/hbonetest"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Cases from the field: what users of other gateways reported, as tests of the public API. The letters are those of the research page.

func exchange(c net.Conn, data []byte) error {
	sent := make(chan error, 1)
	go func() { _, err := c.Write(data); sent <- err }()
	got := make([]byte, len(data))
	if _, err := io.ReadFull(c, got); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if !bytes.Equal(got, data) {
		return errors.New("other bytes came back")
	}
	return <-sent
}

// E1: 503s during a rollout. Pods are replaced one after the other while requests go on: none fails, because the old pod drains and the resolver names the
// new one.
func TestFieldE1RolloutsCostNothing(t *testing.T) {
	m := newMesh(t)
	pod := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}), 15008)
	}
	var current atomic.Int32
	m.dialer.Resolver = hbone.ResolverFunc(func(_ context.Context, _, address string) (hbone.Route, error) {
		return route(pod(int(current.Load())), address, shop), nil
	})
	server := m.serve(t, m.listen(t, pod(0)), shop, echo)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var requests atomic.Int64
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c, err := m.dialer.DialContext(t.Context(), "tcp", app)
				if err != nil {
					t.Errorf("request %d: %v", requests.Load(), err)
					return
				}
				if err := exchange(c, []byte("a request")); err != nil {
					t.Errorf("request %d: %v", requests.Load(), err)
				}
				c.Close()
				requests.Add(1)
			}
		})
	}
	for i := range 5 {
		for before := requests.Load(); requests.Load() < before+50 && !t.Failed(); {
			runtime.Gosched()
		}
		next := m.serve(t, m.listen(t, pod(i+1)), shop, echo)
		current.Store(int32(i + 1))
		for before := requests.Load(); requests.Load() < before+20 && !t.Failed(); { // those that had resolved before
			runtime.Gosched()
		}
		if err := server.Shutdown(t.Context()); err != nil {
			t.Errorf("drain %d: %v", i, err)
		}
		server = next
	}
	close(stop)
	wg.Wait()
	t.Logf("%d requests over 5 rollouts", requests.Load())
}

// E1, the hard way: the pod is killed. What was open is lost, with an error that says so; the next dial finds the new pod at once.
func TestFieldE1AKilledPodIsLeftAtOnce(t *testing.T) {
	m := newMesh(t)
	for range 5 {
		l := m.listen(t, orders)
		server := m.serve(t, l, shop, echo)
		c := wait(t, m.dial(t))
		if err := exchange(c, []byte("a request")); err != nil {
			t.Fatal(err)
		}
		server.Close()
		wantReset(t, c, "")
	}
}

// E2: a pod vanishes without a FIN, and its address goes to another pod. The half-open connection is found out by PING; nothing is ever delivered to the
// wrong pod, whose identity makes a clear error.
func TestFieldE2HalfOpenAndReusedAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t)
		l := m.listen(t, orders)
		m.serve(t, l, shop, echo)
		c := wait(t, m.dial(t))
		if err := exchange(c, []byte("x")); err != nil {
			t.Fatal(err)
		}
		l.Vanish()
		var delivered atomic.Bool
		other := m.listen(t, orders)
		wrong := m.serve(t, other, stranger, func(_ *hbone.ConnectRequest, c *hbonetest.Conn) { delivered.Store(true); c.Close() })
		start := time.Now()
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read gave %v, want ECONNRESET", err)
		}
		if d := time.Since(start); d > 45*time.Second {
			t.Errorf("the half-open connection was found after %v", d)
		}
		_, err := m.dialer.DialContext(t.Context(), "tcp", app)
		e, ok := errors.AsType[*hbone.PeerError](err)
		if !ok || e.Got != stranger || !hbone.SafeToRetry(err) {
			t.Errorf("dial gave %v, want a PeerError that names %s", err, stranger)
		}
		if delivered.Load() {
			t.Error("the wrong pod got the tunnel")
		}
		wrong.Close()
		again := m.listen(t, orders)
		m.serve(t, again, shop, echo)
		if err := exchange(wait(t, m.dial(t)), []byte("y")); err != nil {
			t.Error(err)
		}
		m.dialer.Close()
	})
}

// E4: an HTTP/2 library took many small packets in a tunnel for an attack.
func TestFieldE4SmallPackets(t *testing.T) {
	m := newMesh(t)
	m.serve(t, m.listen(t, orders), shop, echo)
	c := wait(t, m.dial(t))
	n := 50_000
	if testing.Short() {
		n = 5000
	}
	one := []byte{1}
	for i := range n {
		if _, err := c.Write(one); err != nil {
			t.Fatalf("packet %d: %v", i, err)
		}
		if _, err := io.ReadFull(c, one); err != nil {
			t.Fatalf("packet %d: %v", i, err)
		}
	}
}

// E6: a long-lived tunnel outlives the beginning of a drain, as long as the drain's context lets it.
func TestFieldE6LongTunnelsOutliveADrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t)
		server := m.serve(t, m.listen(t, orders), shop, echo)
		c := wait(t, m.dial(t))
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		drained := make(chan error, 1)
		go func() { drained <- server.Shutdown(ctx) }()
		for i := range 50 { // a WebSocket that says a word a minute
			time.Sleep(time.Minute)
			if err := exchange(c, []byte("word")); err != nil {
				t.Fatalf("after %d minutes of the drain: %v", i+1, err)
			}
		}
		select {
		case err := <-drained:
			t.Fatalf("the drain ended before its tunnels: %v", err)
		default:
		}
		c.Close()
		if err := <-drained; err != nil {
			t.Error(err)
		}
		m.dialer.Close()
	})
}

// E7: a drain that waited for connections without tunnels never ended early.
func TestFieldE7ADrainEndsWithItsLastTunnel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t)
		l := m.listen(t, orders)
		server := m.serve(t, l, shop, echo)
		c := wait(t, m.dial(t))
		idle, err := m.network.DialContext(t.Context(), "tcp", orders.String()) // a connection that never carries a tunnel
		if err != nil {
			t.Fatal(err)
		}
		p := hbonetest.DialTLS(t, idle, m.ca.Source(edge))
		go p.Drain()
		start := time.Now()
		go func() { time.Sleep(3 * time.Second); c.Close() }()
		if err := server.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("the drain took %v, its last tunnel 3 s", d)
		}
		m.dialer.Close()
	})
}

// E9: connection reuse sent tunnels to the wrong service. One gateway, many services, and every tunnel reaches its own.
func TestFieldE9EveryTunnelReachesItsService(t *testing.T) {
	m := newMesh(t)
	l := m.listen(t, orders)
	m.serve(t, l, shop, func(r *hbone.ConnectRequest, c *hbonetest.Conn) {
		fmt.Fprint(c, r.Authority, " for ", r.Peer)
		c.Close()
	})
	second := spiffeid.RequireFromPath(td, "/ns/edge/sa/second")
	other := &hbone.Dialer{Identity: m.ca.Source(second), NetDial: m.network.DialContext, Resolver: m.dialer.Resolver}
	defer other.Close()
	var wg sync.WaitGroup
	for i := range 300 {
		wg.Go(func() {
			d, who := m.dialer, edge
			if i%3 == 0 {
				d, who = other, second
			}
			authority := fmt.Sprintf("service-%d.shop.svc.cluster.local:80", i%20)
			c, err := d.DialContext(t.Context(), "tcp", authority)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			if got, err := io.ReadAll(c); err != nil || string(got) != authority+" for "+who.String() {
				t.Errorf("%s answered %q, %v", authority, got, err)
			}
		})
	}
	wg.Wait()
	// The same address with another expected identity is another connection, and here nobody's.
	before := l.Made()
	_, err := m.dialer.DialRoute(t.Context(), route(orders, app, stranger))
	if _, ok := errors.AsType[*hbone.PeerError](err); !ok || l.Made() == before {
		t.Errorf("a route that expects %s gave %v", stranger, err)
	}
}

// E10: pooled inner connections would pin all traffic to one remote pod. Each tunnel through an east-west gateway makes its own, so the
// gateway balances.
func TestFieldE10InnerConnectionsAreNotPooled(t *testing.T) {
	m := newMesh(t)
	gatewayID := spiffeid.RequireFromPath(td, "/ns/istio-gateways/sa/eastwest")
	var pods [2]netip.AddrPort
	var served [2]atomic.Int32
	for i := range pods {
		pods[i] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, 0, byte(i + 1)}), 15008)
		m.serve(t, m.listen(t, pods[i]), shop, func(r *hbone.ConnectRequest, c *hbonetest.Conn) { served[i].Add(1); echo(r, c) })
	}
	at := netip.MustParseAddrPort("203.0.113.1:15008")
	gw := m.listen(t, at)
	var turn atomic.Int32
	server := &hbone.Server{Identity: m.ca.Source(gatewayID), Connect: func(ctx context.Context, r *hbone.ConnectRequest) (net.Conn, error) {
		return m.network.DialContext(ctx, "tcp", pods[turn.Add(1)%2].String())
	}}
	go server.Serve(gw)
	defer server.Close()
	const service = "orders.shop.svc.cluster.local:80"
	double := hbone.Route{Hops: []hbone.Hop{
		{Kind: hbone.HopGateway, Addr: at, Authority: service, Peers: []spiffeid.ID{gatewayID}},
		{Kind: hbone.HopWorkload, Authority: service, Peers: []spiffeid.ID{shop}, Header: []hbone.Field{{Name: "x-forwarded-network", Value: "one"}}},
	}}
	for i := range 10 {
		c, err := m.dialer.DialRoute(t.Context(), double)
		if err != nil {
			t.Fatal(err)
		}
		if err := exchange(c, []byte(fmt.Sprint("request ", i))); err != nil {
			t.Error(err)
		}
		c.Close()
	}
	if a, b := served[0].Load(), served[1].Load(); a != 5 || b != 5 {
		t.Errorf("the pods served %d and %d, want 5 each", a, b)
	}
	if n := gw.Made(); n != 1 {
		t.Errorf("%d outer connections were made, want 1", n)
	}
}

// Peers that connect and never finish a handshake cost a bounded time and number, and keep nobody else out meanwhile.
func TestAbuseSlowHandshakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t)
		m.serve(t, m.listen(t, orders), shop, echo)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		const n = 300
		var slow []net.Conn
		var writers sync.WaitGroup
		for i := range n {
			c, err := m.network.DialContext(t.Context(), "tcp", orders.String())
			if err != nil {
				t.Fatal(err)
			}
			slow = append(slow, c)
			if i%2 == 0 { // a byte a second of a record that would be long
				writers.Go(func() {
					for _, b := range append([]byte{22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3}, make([]byte, 500)...) {
						if _, err := c.Write([]byte{b}); err != nil {
							return
						}
						time.Sleep(time.Second)
					}
				})
			}
		}
		if err := exchange(wait(t, m.dial(t)), []byte("meanwhile")); err != nil {
			t.Errorf("a good peer beside them: %v", err)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		t.Logf("%d slow handshakes: %d KiB of heap", n, (int64(after.HeapAlloc)-int64(before.HeapAlloc))>>10)
		start := time.Now()
		for i, c := range slow {
			if _, err := io.Copy(io.Discard, c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("connection %d: %v", i, err)
			}
			c.Close()
		}
		if d := time.Since(start); d > 11*time.Second {
			t.Errorf("they were closed after %v, want 10 s", d)
		}
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > n*(16<<10) { // nothing is read ahead; MaxHandshakes bounds n
			t.Errorf("the heap grew by %d KiB", grown>>10)
		}
		m.dialer.Close()
		writers.Wait()
	})
}
