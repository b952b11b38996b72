package route

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/hbone"
)

func addr(s string) NetAddr { return NetAddr{IP: netip.MustParseAddr(s)} }

func pod(name, ip, sa string) *Workload {
	ns, short, _ := strings.Cut(name, "/")
	return &Workload{
		UID: "Kubernetes//Pod/" + name, Name: short, Namespace: ns, ServiceAccount: sa,
		Addresses: []netip.Addr{netip.MustParseAddr(ip)}, Tunnel: TunnelHBONE,
	}
}

// of makes the workload an endpoint of a Service.
func (w *Workload) of(key string, ports ...Port) *Workload {
	w.Services = append(w.Services, Member{key, ports})
	return w
}

func with[T any](v *T, change func(*T)) *T {
	change(v)
	return v
}

const (
	cartKey     = "shop/cart.shop.svc.cluster.local"
	guardedKey  = "shop/guarded.shop.svc.cluster.local"
	waypointKey = "edge/waypoint.edge.svc.cluster.local"
)

func byWaypoint() *Gateway {
	return &Gateway{Host: Host{"edge", "waypoint.edge.svc.cluster.local"}, Port: 15008}
}

// mesh is a small mesh. The waypoint lives in another namespace than what it guards.
func mesh() *Table {
	t := NewTable()
	t.SetService(&Service{
		Name: "cart", Namespace: "shop", Hostname: "cart.shop.svc.cluster.local",
		Addresses: []NetAddr{addr("10.96.0.1"), addr("fd00::1")},
		Ports:     []Port{{80, 8080}, {81, 0}, {82, 8082}},
		SANs:      []string{"spiffe://cluster.local/ns/shop/sa/former", "dns-name.example"},
	})
	t.SetWorkload(pod("shop/cart-1", "10.244.1.1", "cart").of(cartKey, Port{81, 9081}, Port{82, 9082}))
	t.SetService(&Service{
		Name: "guarded", Namespace: "shop", Hostname: "guarded.shop.svc.cluster.local",
		Addresses: []NetAddr{{"far", netip.MustParseAddr("10.96.0.2")}, addr("10.96.0.2")},
		Ports:     []Port{{80, 8080}}, Waypoint: byWaypoint(),
	})
	t.SetWorkload(with(pod("shop/guarded-1", "10.244.1.2", ""), func(w *Workload) { w.Waypoint = byWaypoint() }).of(guardedKey))
	t.SetService(&Service{
		Name: "waypoint", Namespace: "edge", Hostname: "waypoint.edge.svc.cluster.local",
		Addresses: []NetAddr{addr("10.96.0.3")}, Ports: []Port{{15008, 15008}},
	})
	t.SetWorkload(with(pod("edge/waypoint-1", "10.244.1.3", "waypoint"), func(w *Workload) { w.Tunnel = TunnelNone }).of(waypointKey))
	t.SetWorkload(with(pod("shop/legacy", "10.244.1.4", ""), func(w *Workload) { w.Tunnel = TunnelNone }))
	t.SetWorkload(with(pod("shop/foreign", "10.244.1.5", ""), func(w *Workload) { w.TrustDomain = "other.example" }))
	return t
}

const (
	idCart     = "spiffe://cluster.local/ns/shop/sa/cart"
	idFormer   = "spiffe://cluster.local/ns/shop/sa/former"
	idWaypoint = "spiffe://cluster.local/ns/edge/sa/waypoint"
)

// checkHop wants exactly one hop.
func checkHop(t *testing.T, r hbone.Route, kind hbone.HopKind, at, authority string, peers ...string) {
	t.Helper()
	if len(r.Hops) != 1 {
		t.Fatalf("%d hops, want 1: %+v", len(r.Hops), r)
	}
	h := r.Hops[0]
	var ids []string
	for _, id := range h.Peers {
		ids = append(ids, id.String())
	}
	if h.Kind != kind || h.Addr.String() != at || h.Authority != authority || !slices.Equal(ids, peers) {
		t.Errorf("hop %v at %v for %v as %v\nwant %v at %v for %v as %v", h.Kind, h.Addr, h.Authority, ids, kind, at, authority, peers)
	}
}

func nothing(string) bool { return true }

func TestResolve(t *testing.T) {
	tests := map[string]struct {
		dial          string
		kind          hbone.HopKind
		at, authority string
		peers         []string
		service       string
		reason        string // of the first step and the last, joined
	}{
		"a Service's VIP": {
			"10.96.0.1:80", hbone.HopWorkload, "10.244.1.1:15008", "10.244.1.1:8080", []string{idCart, idFormer},
			"cart.shop.svc.cluster.local", "10.96.0.1 is the VIP of Service shop/cart; endpoint shop/cart-1 of 1; HBONE to shop/cart-1",
		},
		"its second VIP": {
			"[fd00::1]:80", hbone.HopWorkload, "10.244.1.1:15008", "10.244.1.1:8080", []string{idCart, idFormer},
			"cart.shop.svc.cluster.local", "fd00::1 is the VIP of Service shop/cart; endpoint shop/cart-1 of 1; HBONE to shop/cart-1",
		},
		"an IPv4 address in IPv6": {
			"[::ffff:10.96.0.1]:80", hbone.HopWorkload, "10.244.1.1:15008", "10.244.1.1:8080", []string{idCart, idFormer},
			"cart.shop.svc.cluster.local", "10.96.0.1 is the VIP of Service shop/cart; endpoint shop/cart-1 of 1; HBONE to shop/cart-1",
		},
		"a Service's name": {
			"Cart.shop.svc.cluster.local.:80", hbone.HopWorkload, "10.244.1.1:15008", "10.244.1.1:8080", []string{idCart, idFormer},
			"cart.shop.svc.cluster.local", "cart.shop.svc.cluster.local is Service shop/cart; endpoint shop/cart-1 of 1; HBONE to shop/cart-1",
		},
		"a target port that only the workload knows": {
			"10.96.0.1:81", hbone.HopWorkload, "10.244.1.1:15008", "10.244.1.1:9081", []string{idCart, idFormer},
			"cart.shop.svc.cluster.local", "",
		},
		"the workload's target port goes before the Service's": {
			"10.96.0.1:82", hbone.HopWorkload, "10.244.1.1:15008", "10.244.1.1:9082", []string{idCart, idFormer},
			"cart.shop.svc.cluster.local", "",
		},
		"a Service with a waypoint": {
			"10.96.0.2:80", hbone.HopWaypoint, "10.244.1.3:15008", "10.96.0.2:80", []string{idWaypoint},
			"guarded.shop.svc.cluster.local", "10.96.0.2 is the VIP of Service shop/guarded; endpoint edge/waypoint-1 of 1; through waypoint edge/waypoint-1",
		},
		"its name goes to the waypoint by VIP of our network": {
			"guarded.shop.svc.cluster.local:80", hbone.HopWaypoint, "10.244.1.3:15008", "10.96.0.2:80", []string{idWaypoint},
			"guarded.shop.svc.cluster.local", "",
		},
		"a pod": {
			"10.244.1.1:1234", hbone.HopWorkload, "10.244.1.1:15008", "10.244.1.1:1234", []string{idCart},
			"", "10.244.1.1 is workload shop/cart-1; HBONE to shop/cart-1",
		},
		"a pod with a waypoint": {
			"10.244.1.2:1234", hbone.HopWaypoint, "10.244.1.3:15008", "10.244.1.2:1234", []string{idWaypoint},
			"", "10.244.1.2 is workload shop/guarded-1; endpoint edge/waypoint-1 of 1; through waypoint edge/waypoint-1",
		},
		"a pod of another trust domain, with the default account": {
			"10.244.1.5:1", hbone.HopWorkload, "10.244.1.5:15008", "10.244.1.5:1", []string{"spiffe://other.example/ns/shop/sa/default"},
			"", "",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r, err := mesh().Resolve(Source{Namespace: "shop"}, tt.dial, nothing)
			if err != nil {
				t.Fatal(err)
			}
			checkHop(t, r, tt.kind, tt.at, tt.authority, tt.peers...)
			if r.Service != tt.service || r.Direct.IsValid() {
				t.Errorf("Service %q, Direct %v", r.Service, r.Direct)
			}
			if got := strings.Join(r.Reason, "; "); got == "" || tt.reason != "" && got != tt.reason {
				t.Errorf("reason: %s\n  want: %s", got, tt.reason)
			}
		})
	}
}

func TestPlainTCP(t *testing.T) {
	r, err := mesh().Resolve(Source{}, "10.244.1.4:80", nothing)
	if err != nil || len(r.Hops) > 0 || r.Direct.String() != "10.244.1.4:80" || !strings.Contains(strings.Join(r.Reason, ""), "plain TCP") {
		t.Errorf("a pod without HBONE: %+v, %v", r, err)
	}
	r, err = mesh().Resolve(Source{Passthrough: true}, "192.0.2.1:443", nothing)
	if err != nil || len(r.Hops) > 0 || r.Direct.String() != "192.0.2.1:443" || !strings.Contains(strings.Join(r.Reason, ""), "outside the mesh") {
		t.Errorf("an address outside: %+v, %v", r, err)
	}
	// Only when istiod has said that it knows nobody there.
	_, err = mesh().Resolve(Source{Passthrough: true}, "192.0.2.1:443", func(string) bool { return false })
	if m, ok := errors.AsType[*MissingError](err); !ok || !slices.Equal(m.Names, []string{"/192.0.2.1"}) {
		t.Errorf("an address that istiod was not asked for: %v", err)
	}
}
