package route

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone"
)

const manyKey = "shop/many.shop.svc.cluster.local"

// many is a Service of n endpoints and the ways to it, with a memory.
func many(t *testing.T, n int, edit func(*Workload)) (*Ways, *Memory) {
	t.Helper()
	m := NewTable()
	m.SetService(&Service{Name: "many", Namespace: "shop", Hostname: "many.shop.svc.cluster.local", Addresses: []NetAddr{addr("10.96.0.9")}, Ports: []Port{{80, 8080}}})
	for i := range n {
		w := pod(fmt.Sprintf("shop/many-%d", i), netip.AddrFrom4([4]byte{10, 250, byte(i >> 8), byte(i)}).String(), "many").of(manyKey)
		if edit != nil {
			edit(w)
		}
		m.SetWorkload(w)
	}
	memory := new(Memory)
	w, err := m.Snapshot().Ways(Source{Memory: memory}, "10.96.0.9:80", nothing)
	if err != nil {
		t.Fatal(err)
	}
	return w, memory
}

func pick(t *testing.T, w *Ways, key string) hbone.Route {
	t.Helper()
	r, err := w.Pick(key)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Of two that are drawn the one with fewer tunnels is taken: nobody gets far ahead, which chance alone would let happen.
func TestTunnelsAreShared(t *testing.T) {
	const n, tunnels = 50, 5000
	w, _ := many(t, n, nil)
	open := map[*hbone.Endpoint]int{}
	for range tunnels {
		r := pick(t, w, "")
		r.Endpoint.Opened()
		open[r.Endpoint]++
	}
	for _, count := range open {
		// Chance alone would spread by ±10, and six times that now and then.
		if count < tunnels/n-8 || count > tunnels/n+8 {
			t.Errorf("an endpoint has %d tunnels of %d for %d", count, tunnels, n)
		}
	}
	// One that was emptied catches up.
	r := pick(t, w, "")
	for range r.Endpoint.Open() {
		r.Endpoint.Closed()
	}
	for range 300 {
		p := pick(t, w, "")
		p.Endpoint.Opened()
	}
	if r.Endpoint.Open() < 5 {
		t.Errorf("it has %d tunnels after 300 more", r.Endpoint.Open())
	}
}

// Two are drawn, and never one twice: of two ends it is always the one with fewer tunnels, of three never the one with most; also where they weigh differently.
func TestTheOneWithMostTunnelsIsNeverTaken(t *testing.T) {
	for n := 2; n <= 3; n++ {
		for name, edit := range map[string]func(*Workload){"alike": nil, "by weight": func(w *Workload) {
			if w.Name == "many-0" {
				w.Capacity = 2
			}
		}} {
			w, _ := many(t, n, edit)
			for _, load := range []int{100, 10, 10}[:n] { // whoever is the first has ten times as many
				e := pick(t, w, "").Endpoint
				for e.Open() > 0 {
					e = pick(t, w, "").Endpoint
				}
				for range load {
					e.Opened()
				}
			}
			for range 500 {
				if r := pick(t, w, ""); r.Endpoint.Open() == 100 {
					t.Fatalf("%d ends, %s: the one with 100 tunnels is taken, where others have 10", n, name)
				}
			}
		}
	}
}

func TestTunnelsAreSharedByCapacity(t *testing.T) {
	w, _ := many(t, 4, func(w *Workload) {
		if w.Name == "many-0" {
			w.Capacity = 5
		}
	})
	for range 8000 {
		pick(t, w, "").Endpoint.Opened()
	}
	for range 100 {
		r := pick(t, w, "")
		want := int64(1000)
		if r.Hops[0].Name == "shop/many-0" {
			want = 5000
		}
		if got := r.Endpoint.Open(); got < want*9/10 || got > want*11/10 {
			t.Errorf("%s has %d tunnels, want about %d", r.Hops[0].Name, got, want)
		}
	}
}

// Who fails is left out for a while; when all fail nobody is.
func TestFailingEndpointsAreLeftOut(t *testing.T) {
	w, _ := many(t, 5, nil)
	failing := map[*hbone.Endpoint]bool{}
	for len(failing) < 4 {
		e := pick(t, w, "").Endpoint
		if failing[e] {
			t.Fatal("one that fails is taken though others do not")
		}
		e.Failed(time.Now())
		failing[e] = true
	}
	for range 100 {
		if failing[pick(t, w, "").Endpoint] || failing[pick(t, w, "any key").Endpoint] {
			t.Fatal("one that fails is taken")
		}
	}
	pick(t, w, "").Endpoint.Failed(time.Now())
	pick(t, w, "")
	pick(t, w, "any key")
}

// Each key has its endpoint; when one goes only its keys move, and shares follow the weights.
func TestRendezvous(t *testing.T) {
	const n, keys = 10, 20_000
	of := func(w *Ways) map[string]string {
		m := map[string]string{}
		for i := range keys {
			key := fmt.Sprint("user-", i)
			m[key] = pick(t, w, key).Hops[0].Name
			if again := pick(t, w, key).Hops[0].Name; again != m[key] {
				t.Fatalf("%s leads to %s and to %s", key, m[key], again)
			}
		}
		return m
	}
	weigh := func(w *Workload) {
		if w.Name == "many-3" {
			w.Capacity = 3
		}
	}
	all, _ := many(t, n, weigh)
	before := of(all)
	count := map[string]int{}
	for _, name := range before {
		count[name]++
	}
	for name, got := range count {
		want := keys / (n + 2)
		if name == "shop/many-3" {
			want *= 3
		}
		if got < want*9/10 || got > want*11/10 {
			t.Errorf("%s has %d keys, want about %d", name, got, want)
		}
	}
	fewer, _ := many(t, n-1, weigh)
	for key, name := range of(fewer) {
		if was := before[key]; was != "shop/many-9" && was != name {
			t.Fatalf("%s moved from %s to %s, though that is still there", key, was, name)
		}
	}
}

// A pod that istiod tells of anew keeps its count; what has nothing to remember is forgotten.
func TestMemory(t *testing.T) {
	var m Memory
	at := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 15008)
	}
	used := m.endpoint(at(0))
	used.Opened()
	for i := range 50 * minSweep {
		m.endpoint(at(i))
	}
	if m.endpoint(at(0)) != used {
		t.Error("an endpoint with a tunnel is forgotten")
	}
	if len(m.ends) > 2*minSweep {
		t.Errorf("%d endpoints are remembered", len(m.ends))
	}
}

// Ways hold until what they were made of changes, and only until then.
func TestHold(t *testing.T) {
	m := mesh()
	src := Source{Namespace: "shop", IP: netip.MustParseAddr("10.244.1.5")}
	for dial, changes := range map[string]struct{ ends, not func(*Table) }{
		"10.96.0.1:80": {
			func(t *Table) { t.SetWorkload(pod("shop/cart-2", "10.244.1.9", "cart").of(cartKey)) },
			func(t *Table) { t.SetWorkload(pod("shop/other", "10.244.1.10", "cart")); t.Remove(guardedKey) },
		},
		"guarded.shop.svc.cluster.local:80": {
			func(t *Table) { t.Remove("Kubernetes//Pod/edge/waypoint-1") },
			func(t *Table) { t.Remove("Kubernetes//Pod/shop/guarded-1") },
		},
		"10.244.1.1:80": {
			func(t *Table) { t.SetWorkload(pod("shop/cart-1", "10.244.1.1", "another")) },
			func(t *Table) { t.Remove(waypointKey) },
		},
	} {
		w, err := m.Snapshot().Ways(src, dial, nothing)
		if err != nil {
			t.Fatal(err)
		}
		if !w.Lasting() || !w.Hold(m.Snapshot()) {
			t.Errorf("%s: the ways do not hold though nothing has changed", dial)
		}
		other := m.Snapshot()
		changes.not(other)
		if !w.Hold(other) {
			t.Errorf("%s: the ways do not hold though only others have changed", dial)
		}
		changed := m.Snapshot()
		changes.ends(changed)
		if w.Hold(changed) {
			t.Errorf("%s: the ways hold though what they were made of has changed", dial)
		}
	}
	w, err := m.Snapshot().Ways(Source{Passthrough: true}, "192.0.2.1:80", nothing)
	if err != nil || w.Lasting() {
		t.Errorf("what nobody knows lasts: %v", err)
	}
}

// A tunnel goes the right way as long as what stands behind its address is the same, well or not.
func TestAdmit(t *testing.T) {
	for name, tt := range map[string]struct {
		dial   string
		change func(*Table)
		want   bool
	}{
		"nothing": {"10.96.0.1:80", func(*Table) {}, true},
		"the pod is ill": {"10.96.0.1:80", func(t *Table) {
			t.SetWorkload(with(pod("shop/cart-1", "10.244.1.1", "cart"), func(w *Workload) { w.Unhealthy = true }).of(cartKey))
		}, true},
		"another pod comes":    {"10.96.0.1:80", func(t *Table) { t.SetWorkload(pod("shop/cart-2", "10.244.1.9", "cart").of(cartKey)) }, true},
		"the pod goes":         {"10.96.0.1:80", func(t *Table) { t.Remove("Kubernetes//Pod/shop/cart-1") }, false},
		"the pod is another's": {"10.96.0.1:80", func(t *Table) { t.SetWorkload(pod("shop/cart-1", "10.244.1.1", "thief").of(cartKey)) }, false},
		"the pod leaves":       {"10.96.0.1:80", func(t *Table) { t.SetWorkload(pod("shop/cart-1", "10.244.1.1", "cart")) }, false},
		"another target port":  {"10.96.0.1:80", func(t *Table) { t.SetWorkload(pod("shop/cart-1", "10.244.1.1", "cart").of(cartKey, Port{80, 9999})) }, false},
		"the Service goes":     {"10.96.0.1:80", func(t *Table) { t.Remove(cartKey) }, false},
		"a waypoint comes": {"10.96.0.1:80", func(t *Table) {
			t.SetService(with(new(*t.Service(cartKey)), func(s *Service) { s.Waypoint = byWaypoint() }))
		}, false},
		"the waypoint goes":      {"10.96.0.2:80", func(t *Table) { t.SetService(with(new(*t.Service(guardedKey)), func(s *Service) { s.Waypoint = nil })) }, false},
		"the waypoint's Gateway": {"10.96.0.2:80", func(t *Table) { t.Remove(waypointKey) }, false},
		"a pod of it comes":      {"10.96.0.2:80", func(t *Table) { t.SetWorkload(pod("edge/waypoint-2", "10.244.1.33", "waypoint").of(waypointKey)) }, true},
		"a pod's own address":    {"10.244.1.1:80", func(t *Table) { t.Remove(cartKey) }, true},
		"a pod's own waypoint": {"10.244.1.1:80", func(t *Table) {
			t.SetWorkload(with(pod("shop/cart-1", "10.244.1.1", "cart"), func(w *Workload) { w.Waypoint = byWaypoint() }))
		}, false},
		"all weight elsewhere": {"10.96.0.2:80", func(t *Table) {
			t.SetService(with(new(*t.Service(guardedKey)), func(s *Service) {
				s.Weighted = []Weighted{{*byWaypoint(), 0}, {Gateway{Addr: addr("10.244.1.4")}, 1}}
			}))
		}, false},
		"some weight elsewhere": {"10.96.0.2:80", func(t *Table) {
			t.SetService(with(new(*t.Service(guardedKey)), func(s *Service) {
				s.Weighted = []Weighted{{*byWaypoint(), 1}, {Gateway{Addr: addr("10.244.1.4")}, 1}}
			}))
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			m := mesh()
			r, err := m.Resolve(Source{}, tt.dial, nothing)
			if err != nil {
				t.Fatal(err)
			}
			tt.change(m)
			w, err := m.Members(Source{}, tt.dial, nothing)
			got := err == nil && w.Admit(&r)
			if got != tt.want {
				t.Errorf("admitted: %v, want %v (%v)", got, tt.want, err)
			}
		})
	}
}

// Through a gateway the outer hop alone is known of a connection that waits for its next tunnel.
func TestAdmitOfAnOuterHop(t *testing.T) {
	m := mesh()
	m.SetService(&Service{Name: "gw", Namespace: "edge", Hostname: "gw.edge.svc.cluster.local", Ports: []Port{{15008, 15008}}})
	m.SetWorkload(pod("edge/gw-1", "10.244.1.40", "gw").of("edge/gw.edge.svc.cluster.local"))
	m.SetWorkload(with(pod("shop/cart-1", "10.9.9.9", "cart"), func(w *Workload) {
		w.Network, w.NetworkGateway = "far", &Gateway{Host: Host{"edge", "gw.edge.svc.cluster.local"}, Port: 15008}
	}).of(cartKey))
	r, err := m.Resolve(Source{}, "10.96.0.1:80", nothing)
	if err != nil || len(r.Hops) != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	w, err := m.Members(Source{}, "10.96.0.1:80", nothing)
	if err != nil || !w.Admit(&r) {
		t.Errorf("both hops: %v", err)
	}
	r.Hops = r.Hops[:1]
	if !w.Admit(&r) {
		t.Error("the outer hop alone")
	}
	r.Hops = append([]hbone.Hop{}, r.Hops...)
	r.Hops[0].Authority = "other:80"
	if w.Admit(&r) {
		t.Error("another authority")
	}
}

// The same input has the same reasons, and every way has some; a plaintext way is only to who does not speak HBONE.
func TestReasonsAreTheInputs(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 2000 {
		m := mesh()
		for _, uid := range []string{"shop/cart-1", "shop/guarded-1", "edge/waypoint-1", "shop/legacy"} {
			w := *m.WorkloadByUID("Kubernetes//Pod/" + uid)
			w.Unhealthy, w.Tunnel = rng.IntN(5) == 0, Tunnel(rng.IntN(3))
			if rng.IntN(5) == 0 {
				w.Network = "far"
				w.NetworkGateway = &Gateway{Addr: addr("10.244.1.4"), Port: 15008}
			}
			m.SetWorkload(&w)
		}
		t1, t2 := m.Snapshot(), m.Snapshot()
		for _, dial := range []string{"10.96.0.1:80", "10.96.0.2:80", "10.244.1.1:80", "10.244.1.2:80", "10.244.1.4:80", "cart.shop.svc.cluster.local:81"} {
			a, errA := t1.Resolve(Source{}, dial, nothing)
			b, errB := t2.Resolve(Source{}, dial, nothing)
			if fmt.Sprint(errA) != fmt.Sprint(errB) || !slices.Equal(a.Reason, b.Reason) || fmt.Sprintf("%+v", a.Hops) != fmt.Sprintf("%+v", b.Hops) {
				t.Fatalf("%s: %+v, %v\n%+v, %v", dial, a, errA, b, errB)
			}
			if errA != nil {
				if e, ok := errors.AsType[*Error](errA); !ok || e.Why == "" {
					t.Fatalf("%s: %v", dial, errA)
				}
				continue
			}
			if len(a.Reason) < 2 || a.Target != dial {
				t.Fatalf("%s: %+v", dial, a)
			}
			if len(a.Hops) == 0 && !strings.Contains(a.Reason[len(a.Reason)-1], "does not speak HBONE") {
				t.Fatalf("%s: plaintext because of %v", dial, a.Reason)
			}
		}
	}
}

// All spellings of an address lead the same way as the plain one, and that is its own plain spelling; the key of an address is the address's.
func FuzzPlain(f *testing.F) {
	for _, dial := range []string{"10.96.0.1:080", "[FD00::0001]:80", "[::ffff:10.96.0.1]:80", "Cart.Shop.svc.Cluster.local.:80", "other/cart.shop.svc.cluster.local:80", "shop/api.example:443", "[fe80::1%eth0]:80", "10.96.0.1", "/10.96.0.1", "far/fd00::1",
		"cart.shop.svc.cluster.local..:80", "a/b/cart.shop.svc.cluster.local:80", "10.96.0.1.:80", "[fd00::1.]:80"} {
		f.Add(dial)
	}
	m, src := mesh().Snapshot(), Source{Namespace: "shop", Passthrough: true}
	f.Fuzz(func(t *testing.T, dial string) {
		plain := src.Plain(dial)
		if again := src.Plain(plain); again != plain {
			t.Fatalf("%q is %q, and that is %q", dial, plain, again)
		}
		ways, err := m.Ways(src, dial, nothing)
		r, plainErr := m.Resolve(src, plain, nothing)
		if (err == nil) != (plainErr == nil) || err == nil && !ways.Admit(&r) {
			t.Fatalf("%q: %v; %q leads to %+v, %v", dial, err, plain, r, plainErr)
		}
		if a, ok := ParseNetAddr(dial); ok {
			if b, ok := ParseNetAddr(a.Key()); !ok || a != b {
				t.Fatalf("%q is %+v, and its key %q is %+v", dial, a, a.Key(), b)
			}
		}
	})
}

// Whatever is dialled, there is an answer: a way, names to ask for, or why not.
func FuzzResolve(f *testing.F) {
	for _, dial := range []string{"10.96.0.1:80", "[fd00::1]:80", "cart.shop.svc.cluster.local:80", "shop/api.example:443", "a.b.c.svc.cluster.local:1", "[fe80::1%eth0]:80", ":0", "[::]:65535"} {
		f.Add(dial, true)
	}
	m := mesh().Snapshot()
	f.Fuzz(func(t *testing.T, dial string, absent bool) {
		r, err := m.Resolve(Source{Namespace: "shop", Passthrough: absent}, dial, func(string) bool { return absent })
		_, missing := errors.AsType[*MissingError](err)
		final, isFinal := errors.AsType[*Error](err)
		switch {
		case err == nil && len(r.Hops) == 0 && !r.Direct.IsValid(), err != nil && !missing && !isFinal, isFinal && final.Why == "", missing && absent:
			t.Fatalf("%q: %+v, %v", dial, r, err)
		}
	})
}
