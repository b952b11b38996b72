package route

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"unsafe"

	"github.com/isthmus-mesh/isthmus/hbone"
)

// All spellings of an address have one form, which leads where they do.
func TestPlain(t *testing.T) {
	src := Source{Namespace: "shop"}
	for want, spellings := range map[string][]string{
		"cart.shop.svc.cluster.local:80":     {"cart.shop.svc.cluster.local:80", "CART.shop.svc.Cluster.Local.:080", "x/cart.shop.svc.cluster.local:80", "[cart.shop.svc.cluster.local]:80"},
		"10.96.0.1:80":                       {"10.96.0.1:80", "10.96.0.1:0080", "[::ffff:10.96.0.1]:80", "[::ffff:a60:1]:80"},
		"[fd00::1]:80":                       {"[fd00::1]:80", "[FD00:0:0::1]:80", "[fd00::1%1]:80", "[fd00::1%eth0]:080"},
		"other/api.example:443":              {"other/api.example:443", "Other/API.example.:443"},
		"api.example:443":                    {"api.example:443"},
		"[fe80::1%eth0]:80":                  {"[fe80::1%eth0]:80"},
		"no address":                         {"no address"},
		"10.96.0.1.:80":                      {"10.96.0.1.:80"},
		"cart.shop.svc.cluster.local..:80":   {"cart.shop.svc.cluster.local..:80"},
		"a/b/cart.shop.svc.cluster.local:80": {"A/b/cart.shop.svc.cluster.local:80"},
		"host:0":                             {"host:0"},
	} {
		for _, s := range spellings {
			if got := src.Plain(s); got != want || src.Plain(got) != want {
				t.Errorf("%s is %s, want %s", s, got, want)
			}
		}
	}
	other := Source{Domain: "example.org"}
	if got := other.Plain("x/cart.shop.svc.cluster.local:80"); got != "x/cart.shop.svc.cluster.local:80" {
		t.Errorf("a name that is none of the mesh's domain is %s", got)
	}
}

// A zone makes no other address of a VIP, which would be dialled as it is, around its waypoint.
func TestAZoneIsNoWayAround(t *testing.T) {
	m := mesh()
	m.SetService(with(new(*m.Service(guardedKey)), func(s *Service) { s.Addresses = append(s.Addresses, addr("fd00::77")) }))
	r, err := m.Resolve(Source{Passthrough: true}, "[fd00::77%1]:80", nothing)
	if err != nil || len(r.Hops) != 1 || r.Hops[0].Kind != hbone.HopWaypoint || r.Hops[0].Authority != "[fd00::77]:80" {
		t.Errorf("%+v, %v", r, err)
	}
}

// Who is meant hangs on what there is, and not on what istiod told of first or last.
func TestTheOrderOfArrivalSaysNothing(t *testing.T) {
	at := func(ns, host string, edit func(*Service)) *Service {
		s := &Service{Name: host, Namespace: ns, Hostname: host, Addresses: []NetAddr{addr("10.96.7.7")}, Ports: []Port{{80, 8080}}}
		edit(s)
		return s
	}
	plain := func(*Service) {}
	ranged := func(s *Service) {
		s.Addresses, s.Ranges = nil, []NetPrefix{{Prefix: netip.MustParsePrefix("10.96.7.0/24")}}
	}
	canonical := func(s *Service) { s.Canonical = true }
	for name, tt := range map[string]struct {
		list []*Service
		want string
	}{
		"none ours":              {[]*Service{at("b", "x", plain), at("a", "y", plain), at("a", "z", plain)}, "a/y"},
		"two of ours":            {[]*Service{at("us", "y", plain), at("us", "x", plain), at("a", "z", plain)}, "us/x"},
		"one of ours, canonical": {[]*Service{at("us", "x", plain), at("us", "y", canonical), at("a", "z", canonical)}, "us/y"},
		"ranges":                 {[]*Service{at("b", "x", ranged), at("a", "y", ranged)}, "a/y"},
	} {
		for range 2 {
			slices.Reverse(tt.list)
			m := NewTable()
			for _, s := range tt.list {
				m.SetService(s)
				m.SetWorkload(pod("shop/"+s.Namespace+"-"+s.Hostname, "10.244.7."+map[string]string{"x": "1", "y": "2", "z": "3"}[s.Hostname], "cart").of(s.Key()))
			}
			for _, s := range tt.list { // told anew
				m.SetService(s)
			}
			w, err := m.Ways(Source{Namespace: "us"}, "10.96.7.7:80", nothing)
			if err != nil || w.root.service != tt.want[len(tt.want)-1:] || !slices.Contains(w.Names(), tt.want) {
				t.Errorf("%s: %v, %v", name, w.Names(), err)
			}
		}
	}
}

// An address in a range may be somebody's own.
func TestARangeIsTheLastToBeAsked(t *testing.T) {
	m := mesh()
	m.SetService(&Service{Name: "wide", Namespace: "shop", Hostname: "wide.example", Ranges: []NetPrefix{{Prefix: netip.MustParsePrefix("172.16.0.0/16")}}, Ports: []Port{{80, 80}}})
	m.SetWorkload(pod("shop/wide-1", "10.244.9.1", "cart").of("shop/wide.example"))
	_, err := m.Resolve(Source{}, "172.16.0.1:80", func(string) bool { return false })
	if miss, ok := errors.AsType[*MissingError](err); !ok || !slices.Equal(miss.Names, []string{"/172.16.0.1"}) {
		t.Errorf("it asks for %v", err)
	}
	w, err := m.Ways(Source{}, "172.16.0.1:80", nothing)
	if err != nil || w.Lasting() {
		t.Errorf("an answer that hangs on nobody having the address is kept: %v", err)
	}
}

// What a connection takes of an end fills a line of the processor's cache, and what a choice takes of Ways comes first in them.
func TestLayout(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		t.Skip("pointers have not 8 bytes")
	}
	var w Ways
	if n := unsafe.Sizeof(ready{}); n != 64 {
		t.Errorf("ready has %d bytes", n)
	}
	if n := unsafe.Offsetof(w.loads); n != 48 {
		t.Errorf("%d bytes come before the Endpoints", n)
	}
}
