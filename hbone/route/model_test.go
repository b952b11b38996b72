package route

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// The Table after any changes holds what a plain list of what was set last would.
func TestTableIsWhatWasSet(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	keys := []string{"shop/a", "shop/b", "shop/c"}
	ip := func() netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(rng.IntN(6))}) }
	for range 300 {
		m, workloads, services := NewTable(), map[string]*Workload{}, map[string]*Service{}
		for range 60 {
			uid := fmt.Sprintf("Kubernetes//Pod/shop/%d", rng.IntN(8))
			key := keys[rng.IntN(len(keys))]
			switch rng.IntN(5) {
			case 0:
				m.Remove(uid)
				delete(workloads, uid)
			case 1:
				m.Remove(key)
				delete(services, key)
			case 2:
				s := &Service{Namespace: "shop", Hostname: key[len("shop/"):], Addresses: []NetAddr{{IP: ip()}, {Network: "far", IP: ip()}}}
				m.SetService(s)
				services[key] = s
			default:
				w := &Workload{UID: uid, Addresses: []netip.Addr{ip(), ip()}, HostNetwork: rng.IntN(4) == 0}
				for range rng.IntN(3) {
					w.Services = append(w.Services, Member{Service: keys[rng.IntN(len(keys))]})
				}
				m.SetWorkload(w)
				workloads[uid] = w
			}
		}
		at, vip := map[string]bool{}, map[string]bool{}
		for _, key := range keys {
			var want []string
			for _, uid := range slices.Sorted(maps.Keys(workloads)) {
				if workloads[uid].in(key) != nil {
					want = append(want, uid)
				}
			}
			var got []string
			for _, w := range m.Endpoints(key) {
				got = append(got, w.UID)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("endpoints of %s are %v, want %v", key, got, want)
			}
			if s := services[key]; s != nil {
				for _, a := range s.Addresses {
					vip[a.Key()] = true
				}
			}
		}
		for _, w := range workloads {
			for _, a := range w.Addresses {
				if !w.HostNetwork {
					at[NetAddr{IP: a}.Key()] = true
				}
			}
		}
		for i := range 6 {
			a := NetAddr{IP: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})}
			if got := m.Workload(a) != nil; got != at[a.Key()] {
				t.Fatalf("a workload at %s: %v", a.Key(), got)
			}
			if got := m.Has(a.Key()); got != (at[a.Key()] || vip[a.Key()]) {
				t.Fatalf("anybody at %s: %v", a.Key(), got)
			}
		}
	}
}

// A Service of many endpoints must not make every dial sort them.
func BenchmarkResolve(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprintf("endpoints=%d", n), func(b *testing.B) {
			m := mesh()
			for i := range n - 1 {
				m.SetWorkload(pod(fmt.Sprintf("shop/cart-%d", i+2), fmt.Sprintf("10.245.%d.%d", i/200, i%200+1), "cart").of(cartKey))
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := m.Resolve(Source{}, "10.96.0.1:80", nothing); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
