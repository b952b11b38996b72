package route

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestResolveRefuses(t *testing.T) {
	tests := map[string]struct {
		change func(*Table)
		dial   string
		want   string // in the error
	}{
		"no port":                  {nil, "10.96.0.1", "not host:port"},
		"port 0":                   {nil, "10.96.0.1:0", "port is not a number"},
		"port too big":             {nil, "10.96.0.1:65536", "port is not a number"},
		"port by name":             {nil, "10.96.0.1:http", "port is not a number"},
		"short name":               {nil, "cart:80", "dial cart.<namespace>.svc.cluster.local"},
		"name with a subdomain":    {nil, "a.cart.shop.svc.cluster.local:80", "none of the 1 pods of Service shop/cart on our network is called a"},
		"name without a namespace": {nil, "cart.svc.cluster.local:80", "service.namespace.svc.cluster.local"},
		"unknown Service":          {nil, "none.shop.svc.cluster.local:80", "no Service of that name in namespace shop"},
		"unknown address":          {nil, "192.0.2.1:80", "outside the mesh"},
		"port the Service has not": {nil, "10.96.0.1:8080", "has no port 8080"},
		"no endpoint":              {func(t *Table) { t.Remove("Kubernetes//Pod/shop/cart-1") }, "10.96.0.1:80", "none of the 0 endpoints"},
		"no healthy endpoint": {func(t *Table) {
			t.SetWorkload(with(pod("shop/cart-1", "10.244.1.1", "cart"), func(w *Workload) { w.Unhealthy = true }).of(cartKey))
		}, "10.96.0.1:80", "none of the 1 endpoints"},
		"no endpoint with that port": {func(t *Table) { t.SetWorkload(pod("shop/cart-1", "10.244.1.1", "cart").of(cartKey)) }, "10.96.0.1:81", "none of the 1 endpoints"},
		"endpoint without address": {func(t *Table) {
			t.SetWorkload(with(pod("shop/cart-1", "10.244.1.1", "cart"), func(w *Workload) { w.Addresses = nil }).of(cartKey))
		}, "10.96.0.1:80", "none of the 1 endpoints"},
		"the waypoint's Service is gone": {func(t *Table) { t.Remove(waypointKey) }, "10.96.0.2:80", "istiod does not know; is its Gateway"},
		"a workload's waypoint is gone":  {func(t *Table) { t.Remove(waypointKey) }, "10.244.1.2:80", "istiod does not know; is its Gateway"},
		"the waypoint has no pod":        {func(t *Table) { t.Remove("Kubernetes//Pod/edge/waypoint-1") }, "10.96.0.2:80", "has no ready pod; going around it would skip its policies"},
		"the waypoint's pod is not ready": {func(t *Table) {
			t.SetWorkload(with(pod("edge/waypoint-1", "10.244.1.3", "waypoint"), func(w *Workload) { w.Unhealthy = true }).of(waypointKey))
		}, "10.244.1.2:80", "has no ready pod"},
		"nobody at the waypoint's address": {func(t *Table) {
			t.SetWorkload(with(pod("shop/x", "10.244.1.9", ""), func(w *Workload) { w.Waypoint = &Gateway{Addr: addr("10.9.9.9")} }))
		}, "10.244.1.9:80", "a waypoint at 10.9.9.9, where istiod knows nobody"},
		"a waypoint before a Service without VIP": {func(t *Table) {
			t.SetService(&Service{Name: "h", Namespace: "shop", Hostname: "h.shop.svc.cluster.local", Ports: []Port{{80, 80}}, Waypoint: byWaypoint()})
		}, "h.shop.svc.cluster.local:80", "has a waypoint but no VIP"},
		"the waypoint is on another network": {func(t *Table) {
			t.SetWorkload(with(pod("edge/waypoint-1", "10.244.1.3", "waypoint"), func(w *Workload) { w.Network = "far" }).of(waypointKey))
		}, "10.96.0.2:80", `1 on other networks than ours, "", without a gateway`},
		"the endpoint is on another network": {func(t *Table) {
			t.SetWorkload(with(pod("shop/cart-1", "10.244.1.1", "cart"), func(w *Workload) { w.Network = "far" }).of(cartKey))
		}, "10.96.0.1:80", `1 on other networks than ours, "", without a gateway`},
		"a tunnel of the future": {func(t *Table) {
			t.SetWorkload(with(pod("shop/x", "10.244.1.9", ""), func(w *Workload) { w.Tunnel = 7 }))
		}, "10.244.1.9:80", "tunnel protocol (7)"},
		"a trust domain that is none": {func(t *Table) {
			t.SetWorkload(with(pod("shop/x", "10.244.1.9", ""), func(w *Workload) { w.TrustDomain = "NOT/one" }))
		}, "10.244.1.9:80", "identity of workload shop/x makes no sense"},
		"a waypoint with such a trust domain": {func(t *Table) {
			t.SetWorkload(with(pod("edge/waypoint-1", "10.244.1.3", "waypoint"), func(w *Workload) { w.TrustDomain = "NOT/one" }).of(waypointKey))
		}, "10.96.0.2:80", "identity of waypoint edge/waypoint-1 makes no sense"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := mesh()
			if tt.change != nil {
				tt.change(m)
			}
			// Passthrough must open no way around a waypoint or to an endpoint that is not there.
			src := Source{Namespace: "shop", Passthrough: !strings.Contains(tt.dial, "192.0.2.1")}
			r, err := m.Resolve(src, tt.dial, nothing)
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Target != tt.dial || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %+v, %v\nwant an error with %q", r, err, tt.want)
			}
			if len(r.Hops) > 0 || r.Direct.IsValid() {
				t.Errorf("a route beside the error: %+v", r)
			}
		})
	}
}

func TestResolveAsksForWhatItDoesNotKnow(t *testing.T) {
	for dial, want := range map[string]string{
		"10.1.1.1:80":                      "near/10.1.1.1",
		"new.shop.svc.cluster.local:80":    "shop/new.shop.svc.cluster.local",
		"new.other.svc.cluster.local:80":   "other/new.other.svc.cluster.local",
		"entry.example:80":                 "shop/entry.example",
		"guarded.shop.svc.cluster.local:1": "shop/guarded.shop.svc.cluster.local",
	} {
		_, err := NewTable().Resolve(Source{Namespace: "shop", Network: "near"}, dial, func(string) bool { return false })
		if m, ok := errors.AsType[*MissingError](err); !ok || !slices.Equal(m.Names, []string{want}) {
			t.Errorf("%s asks for %v, want %s", dial, err, want)
		}
	}
	m := mesh()
	m.Remove(waypointKey)
	_, err := m.Resolve(Source{}, "10.96.0.2:80", func(string) bool { return false })
	if miss, ok := errors.AsType[*MissingError](err); !ok || !slices.Equal(miss.Names, []string{waypointKey}) {
		t.Errorf("a waypoint not yet known asks for %v", err)
	}
}

// Istiod is not asked for what no message can hold, and nobody has to remember addresses of any length: they are refused, whoever thought of them.
func TestNamesThatCannotBeAskedFor(t *testing.T) {
	m := mesh()
	m.SetService(with(new(*m.Service(guardedKey)), func(s *Service) { s.Waypoint = &Gateway{Host: Host{"edge", "\xff"}, Port: 15008} }))
	m.SetWorkload(with(pod("shop/cart-1", "10.9.9.9", "cart"), func(w *Workload) {
		w.Network, w.NetworkGateway = "far", &Gateway{Addr: NetAddr{"\xff", netip.MustParseAddr("10.8.8.8")}, Port: 15008}
	}).of(cartKey))
	for dial, want := range map[string]string{
		"[fe80::1%\xff]:80":                            "outside the mesh",
		strings.Repeat("a.", 300) + "example:80":       "has 610 bytes",
		"10.96.0.1:" + strings.Repeat("0", 600) + "80": "has 612 bytes",
		"10.96.0.2:80":                                 "which istiod does not know",
		"10.96.0.1:80":                                 "where istiod knows nobody",
	} {
		_, err := m.Resolve(Source{Namespace: "shop"}, dial, func(string) bool { return false })
		if e, ok := errors.AsType[*Error](err); !ok || !strings.Contains(e.Why, want) || len(e.Error()) > 1000 {
			t.Errorf("%.20q: %v, want %q", dial, err, want)
		}
	}
}

// Whatever istiod tells, no hop is open to every identity, no way leads around a waypoint, and nobody who speaks HBONE is spoken to in plaintext.
func TestNoRouteIsOpen(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	chance := func() bool { return rng.IntN(4) == 0 }
	for range 5000 {
		m := mesh()
		var dials []string
		for _, uid := range []string{"shop/cart-1", "shop/guarded-1", "edge/waypoint-1", "shop/legacy"} {
			w := *m.WorkloadByUID("Kubernetes//Pod/" + uid)
			if chance() {
				w.TrustDomain = []string{"", "other.example", "NOT/one"}[rng.IntN(3)]
			}
			if chance() {
				w.ServiceAccount, w.Network = []string{"", "a/b", "ok"}[rng.IntN(3)], []string{"", "far"}[rng.IntN(2)]
			}
			w.Unhealthy, w.Tunnel, w.Capacity = chance(), Tunnel(rng.IntN(3)), rng.Uint32()
			if chance() {
				w.Waypoint = &Gateway{Addr: addr([]string{"10.244.1.3", "10.96.0.3", "10.0.0.1"}[rng.IntN(3)]), Port: uint16(rng.IntN(2) * 15008)}
			}
			m.SetWorkload(&w)
			dials = append(dials, netip.AddrPortFrom(w.Addresses[0], 80).String())
			if chance() {
				m.Remove(w.UID)
			}
		}
		for _, dial := range append(dials, "10.96.0.1:80", "10.96.0.2:80", "10.96.0.3:15008", "192.0.2.1:1") {
			r, err := m.Resolve(Source{Passthrough: chance()}, dial, func(string) bool { return chance() })
			if (err == nil) != (len(r.Hops) > 0 || r.Direct.IsValid()) {
				t.Fatalf("%s: %+v, %v", dial, r, err)
			}
			if to := m.Workload(NetAddr{IP: r.Direct.Addr()}); err == nil && len(r.Hops) == 0 && to != nil && to.Tunnel != TunnelNone {
				t.Fatalf("%s: plaintext to %+v", dial, to)
			}
			for _, h := range r.Hops {
				if len(h.Peers) == 0 || !h.Addr.IsValid() || h.Authority == "" {
					t.Fatalf("%s: an open hop: %+v", dial, h)
				}
			}
			if dial == "10.96.0.2:80" && err == nil && (len(r.Hops) == 0 || r.Hops[0].Authority != dial) {
				t.Fatalf("around the waypoint: %+v", r)
			}
		}
	}
}
