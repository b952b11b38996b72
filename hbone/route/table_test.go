package route

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestTable(t *testing.T) {
	m := mesh()
	if !m.Has(cartKey) || !m.Has("/10.96.0.1") || !m.Has("Kubernetes//Pod/shop/cart-1") || !m.Has("/10.244.1.1") || m.Has("/10.9.9.9") {
		t.Error("Has does not know the names")
	}
	if got := m.Names(cartKey); !slices.Equal(got, []string{"/10.96.0.1", "/fd00::1"}) {
		t.Errorf("a Service's names: %v", got)
	}
	if got := m.Names("Kubernetes//Pod/shop/cart-1"); !slices.Equal(got, []string{"/10.244.1.1", cartKey}) {
		t.Errorf("a workload's names: %v", got)
	}
	if w := m.Workload(addr("10.244.1.1")); w == nil || w.FullName() != "shop/cart-1" {
		t.Errorf("at its address: %+v", w)
	}
	// A replacement takes the old names away.
	m.SetService(&Service{Namespace: "shop", Hostname: "cart.shop.svc.cluster.local", Addresses: []NetAddr{addr("10.96.0.9")}})
	m.SetWorkload(pod("shop/cart-1", "10.244.1.9", "cart"))
	if m.Has("/10.96.0.1") || m.Has("/10.244.1.1") || !m.Has("/10.96.0.9") || !m.Has("/10.244.1.9") || len(m.Endpoints(cartKey)) != 0 {
		t.Error("names of what was replaced are still there")
	}
	m.Remove("nobody")
	m.Remove(cartKey)
	m.Remove("Kubernetes//Pod/shop/cart-1")
	if m.Has(cartKey) || m.Has("/10.96.0.9") || m.Has("/10.244.1.9") {
		t.Error("names of what was removed are still there")
	}
	for _, uid := range []string{"guarded-1", "legacy", "foreign"} {
		m.Remove("Kubernetes//Pod/shop/" + uid)
	}
	m.Remove("Kubernetes//Pod/edge/waypoint-1")
	m.Remove(guardedKey)
	m.Remove(waypointKey)
	if n := m.services.Len() + m.vips.Len() + m.hosts.Len() + m.workloads.Len() + m.ips.Len() + m.members.Len(); n > 0 {
		t.Errorf("%d entries are left of an empty mesh", n)
	}
}

// Two may have one address: a pod that is replaced by one that got its address, a VIP that moves.
func TestTheOtherOwnerOfAnAddressStays(t *testing.T) {
	for _, first := range []string{"a", "b"} {
		m := NewTable()
		for _, name := range []string{"a", "b"} {
			m.SetService(&Service{Namespace: "shop", Hostname: name, Addresses: []NetAddr{addr("10.96.0.1"), addr("10.96.0.1")}})
			m.SetWorkload(pod("shop/"+name, "10.244.1.1", ""))
		}
		if w := m.Workload(addr("10.244.1.1")); w.Name != "b" {
			t.Errorf("the later one does not answer: %v", w.Name)
		}
		m.Remove("shop/" + first)
		m.Remove("Kubernetes//Pod/shop/" + first)
		if !m.Has("/10.96.0.1") || !m.Has("/10.244.1.1") {
			t.Errorf("without %s the other is not found", first)
		}
	}
}

func TestAWorkloadOfTheHostNetworkIsNotFoundByAddress(t *testing.T) {
	m := mesh()
	m.SetWorkload(with(pod("kube-system/agent", "10.0.0.7", "agent"), func(w *Workload) { w.HostNetwork, w.Tunnel = true, TunnelNone }).of(cartKey))
	m.Remove("Kubernetes//Pod/shop/cart-1")
	if m.Has("/10.0.0.7") || m.Workload(addr("10.0.0.7")) != nil {
		t.Error("found by its node's address")
	}
	r, err := m.Resolve(Source{}, "10.96.0.1:80", nothing)
	if err != nil || r.Direct.String() != "10.0.0.7:8080" {
		t.Errorf("not found as an endpoint: %+v, %v", r, err)
	}
}

func TestPick(t *testing.T) {
	m := mesh()
	m.Remove("Kubernetes//Pod/shop/cart-1")
	m.SetWorkload(with(pod("shop/heavy", "10.244.2.1", "cart"), func(w *Workload) { w.Capacity = 3 }).of(cartKey))
	m.SetWorkload(pod("shop/light", "10.244.2.2", "cart").of(cartKey)) // no capacity counts as 1
	m.SetWorkload(with(pod("shop/ill", "10.244.2.3", "cart"), func(w *Workload) { w.Unhealthy = true }).of(cartKey))
	m.SetWorkload(with(pod("shop/far", "10.244.2.4", "cart"), func(w *Workload) { w.Network, w.Capacity = "far", 1000 }).of(cartKey))
	got := map[string]int{}
	for range 4000 {
		r, err := m.Resolve(Source{}, "10.96.0.1:80", nothing)
		if err != nil {
			t.Fatal(err)
		}
		got[r.Hops[0].Name]++
	}
	if got["shop/heavy"]+got["shop/light"] != 4000 || got["shop/heavy"] < 2800 || got["shop/heavy"] > 3200 {
		t.Errorf("want about 3000 heavy and 1000 light: %v", got)
	}
	m.SetService(with(new(*m.Service(cartKey)), func(s *Service) { s.AllowUnhealthy = true }))
	m.Remove("Kubernetes//Pod/shop/heavy")
	m.Remove("Kubernetes//Pod/shop/light")
	if r, err := m.Resolve(Source{}, "10.96.0.1:80", nothing); err != nil || r.Hops[0].Name != "shop/ill" {
		t.Errorf("a Service that allows any: %+v, %v", r, err)
	}
}

func TestTheFamilyOfTheAddressDialled(t *testing.T) {
	m := mesh()
	m.SetWorkload(with(pod("shop/cart-1", "10.244.1.1", "cart"), func(w *Workload) {
		w.Addresses = append(w.Addresses, netip.MustParseAddr("fd01::1"))
	}).of(cartKey))
	for dial, want := range map[string]string{"10.96.0.1:80": "10.244.1.1:8080", "[fd00::1]:80": "[fd01::1]:8080", "cart.shop.svc.cluster.local:80": "10.244.1.1:8080"} {
		if r, err := m.Resolve(Source{}, dial, nothing); err != nil || r.Hops[0].Authority != want {
			t.Errorf("%s leads to %+v, %v, want %s", dial, r, err, want)
		}
	}
}

func TestAServiceThatTakesAddressesAsDialled(t *testing.T) {
	m := mesh()
	m.SetService(&Service{Name: "any", Namespace: "shop", Hostname: "any.example", Ports: []Port{{80, 80}}, Passthrough: true,
		Addresses: []NetAddr{addr("10.244.1.1"), addr("192.0.2.1")}})
	r, err := m.Resolve(Source{}, "10.244.1.1:80", nothing)
	if err != nil || len(r.Hops) != 1 || r.Hops[0].Authority != "10.244.1.1:80" {
		t.Errorf("a workload's address: %+v, %v", r, err)
	}
	if _, err = m.Resolve(Source{}, "192.0.2.1:80", nothing); err == nil || !strings.Contains(err.Error(), "outside the mesh") {
		t.Errorf("an address outside: %v", err)
	}
	if _, err = m.Resolve(Source{Namespace: "shop"}, "any.example:80", nothing); err == nil || !strings.Contains(err.Error(), "dial an address of it") {
		t.Errorf("its name: %v", err)
	}
}

func TestAWaypointByAddress(t *testing.T) {
	for at, want := range map[string]string{"10.244.1.3": "10.244.1.3:15008", "10.96.0.3": "10.244.1.3:15008"} {
		m := mesh()
		m.SetWorkload(with(pod("shop/x", "10.244.1.9", ""), func(w *Workload) { w.Waypoint = &Gateway{Addr: addr(at)} }))
		r, err := m.Resolve(Source{}, "10.244.1.9:80", nothing)
		if err != nil {
			t.Fatal(at, err)
		}
		checkHop(t, r, "waypoint", want, "10.244.1.9:80", idWaypoint)
	}
}

func TestUnder(t *testing.T) {
	m := mesh()
	m.SetWorkload(pod("shop/cart-2", "10.245.0.1", "cart").of(cartKey))
	both := []string{cartKey, "Kubernetes//Pod/shop/cart-1", "Kubernetes//Pod/shop/cart-2"}
	for name, want := range map[string][]string{
		cartKey: both, "/10.96.0.1": both, "/10.245.0.1": both[2:], both[2]: both[2:], "shop/nobody.example": nil, "/192.0.2.1": nil, "far/10.96.0.1": nil,
	} {
		got := m.Snapshot().Under(name)
		slices.Sort(got)
		sorted := slices.Sorted(slices.Values(want))
		if !slices.Equal(got, sorted) {
			t.Errorf("under %s: %v, want %v", name, got, sorted)
		}
	}
}
