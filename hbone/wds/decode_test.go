package wds

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/hbone/authz"
	"github.com/isthmus-mesh/isthmus/hbone/route"
	"google.golang.org/protobuf/encoding/protowire"
)

// msg is a protobuf message by hand.
type msg []byte

func (m msg) bytes(num protowire.Number, b []byte) msg {
	return protowire.AppendBytes(protowire.AppendTag(m, num, protowire.BytesType), b)
}
func (m msg) str(num protowire.Number, s string) msg { return m.bytes(num, []byte(s)) }
func (m msg) varint(num protowire.Number, n uint64) msg {
	return protowire.AppendVarint(protowire.AppendTag(m, num, protowire.VarintType), n)
}

// future is fields that a later istiod may send, of every wire type.
func (m msg) future() msg {
	m = m.varint(900, 7).str(901, "later")
	m = protowire.AppendFixed32(protowire.AppendTag(m, 902, protowire.Fixed32Type), 1)
	m = protowire.AppendFixed64(protowire.AppendTag(m, 903, protowire.Fixed64Type), 1)
	m = protowire.AppendTag(m, 904, protowire.StartGroupType)
	return protowire.AppendTag(m, 904, protowire.EndGroupType)
}

func ipBytes(s string) []byte { return netip.MustParseAddr(s).AsSlice() }

func networkAddress(network, ip string) msg { return msg{}.str(1, network).bytes(2, ipBytes(ip)) }

func TestDecodeWorkload(t *testing.T) {
	ports := msg{}.bytes(1, msg{}.varint(1, 80).varint(2, 8080)).bytes(1, msg{}.varint(1, 81).future())
	in := msg{}.str(20, "Kubernetes//Pod/shop/cart-1").str(1, "cart-1").str(2, "shop").
		bytes(3, ipBytes("10.244.1.1")).bytes(3, ipBytes("fd00::1")).
		str(4, "near").varint(5, 1).str(6, "td.example").str(7, "cart").
		bytes(8, msg{}.bytes(1, msg{}.str(1, "edge").str(2, "waypoint.edge")).varint(3, 15008)).
		bytes(19, msg{}.bytes(2, networkAddress("far", "192.0.2.1")).varint(3, 15008)).
		str(9, "n1").str(18, "c1").bytes(24, msg{}.str(1, "r").str(2, "z").str(3, "s").future()).
		str(16, "shop/a").str(16, "shop/b").varint(17, 1).varint(25, 1).bytes(27, msg{}.varint(1, 3)).
		bytes(22, msg{}.str(1, "shop/cart").bytes(2, ports)).bytes(22, msg{}.str(1, "shop/none")).future()
	want := &route.Workload{
		UID: "Kubernetes//Pod/shop/cart-1", Name: "cart-1", Namespace: "shop", Network: "near",
		Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.1"), netip.MustParseAddr("fd00::1")},
		Tunnel:    route.TunnelHBONE, TrustDomain: "td.example", ServiceAccount: "cart",
		Waypoint:       &route.Gateway{Host: route.Host{Namespace: "edge", Hostname: "waypoint.edge"}, Port: 15008},
		NetworkGateway: &route.Gateway{Addr: route.NetAddr{Network: "far", IP: netip.MustParseAddr("192.0.2.1")}, Port: 15008},
		Policies:       []string{"shop/a", "shop/b"}, Unhealthy: true, HostNetwork: true, Capacity: 3,
		Locality: route.Locality{Region: "r", Zone: "z", Subzone: "s", Node: "n1", ClusterID: "c1"},
		Services: []route.Member{{Service: "shop/cart", Ports: []route.Port{{Service: 80, Target: 8080}, {Service: 81}}}, {Service: "shop/none"}},
	}
	w, s, err := decodeAddress(msg{}.bytes(1, in), nil)
	if err != nil || s != nil || !reflect.DeepEqual(w, want) {
		t.Errorf("got  %+v, %v, %v\nwant %+v", w, s, err, want)
	}
}

func TestDecodeService(t *testing.T) {
	in := msg{}.str(1, "cart").str(2, "shop").str(3, "cart.shop.svc.cluster.local").
		bytes(4, networkAddress("", "10.96.0.1")).bytes(4, networkAddress("near", "fd00::1")).
		bytes(5, msg{}.varint(1, 80).varint(2, 8080)).str(6, "spiffe://a/b").
		bytes(7, msg{}.bytes(1, msg{}.str(1, "edge").str(2, "waypoint.edge")).varint(3, 15008)).
		bytes(8, msg{}.bytes(1, []byte{6, 1, 1}).varint(1, 99).varint(2, 3).varint(3, 1)).varint(12, 1).
		bytes(13, msg{}.bytes(1, msg{}.bytes(1, msg{}.str(1, "edge").str(2, "canary.edge")).varint(3, 15009)).varint(2, 10).future()).
		bytes(13, msg{}.bytes(1, msg{}.bytes(2, networkAddress("", "10.96.0.9")))).future()
	want := &route.Service{
		Name: "cart", Namespace: "shop", Hostname: "cart.shop.svc.cluster.local",
		Addresses: []route.NetAddr{{IP: netip.MustParseAddr("10.96.0.1")}, {Network: "near", IP: netip.MustParseAddr("fd00::1")}},
		Ports:     []route.Port{{Service: 80, Target: 8080}}, SANs: []string{"spiffe://a/b"},
		Waypoint:    &route.Gateway{Host: route.Host{Namespace: "edge", Hostname: "waypoint.edge"}, Port: 15008},
		Passthrough: true, AllowUnhealthy: true, IngressUseWaypoint: true,
		Prefer: []route.Scope{route.ScopeNetwork, route.ScopeRegion, 7},
		Weighted: []route.Weighted{
			{Gateway: route.Gateway{Host: route.Host{Namespace: "edge", Hostname: "canary.edge"}, Port: 15009}, Weight: 10},
			{Gateway: route.Gateway{Addr: route.NetAddr{IP: netip.MustParseAddr("10.96.0.9")}}},
		},
	}
	w, s, err := decodeAddress(msg{}.bytes(2, in), nil)
	if err != nil || w != nil || !reflect.DeepEqual(s, want) {
		t.Errorf("got  %+v, %v, %v\nwant %+v", w, s, err, want)
	}
}

func TestDecodeAddressRefuses(t *testing.T) {
	workload := func(m msg) msg { return msg{}.bytes(1, m.str(20, "uid")) }
	service := func(m msg) msg { return msg{}.bytes(2, m.str(3, "host")) }
	for name, tt := range map[string]struct {
		in   msg
		want string
	}{
		"nothing":                         {nil, "neither a workload nor a service"},
		"only the future":                 {msg{}.future(), "neither a workload nor a service"},
		"no uid":                          {msg{}.bytes(1, nil), "without uid"},
		"no hostname":                     {msg{}.bytes(2, nil), "without hostname"},
		"an address of 3 bytes":           {workload(msg{}.bytes(3, []byte{1, 2, 3})), "4 or 16 bytes"},
		"a VIP of 3 bytes":                {service(msg{}.bytes(4, msg{}.bytes(2, []byte{1, 2, 3}))), "4 or 16 bytes"},
		"a VIP without IP":                {service(msg{}.bytes(4, nil)), "without IP"},
		"port 65536":                      {service(msg{}.bytes(5, msg{}.varint(1, 65536))), "no port"},
		"target port 65536":               {service(msg{}.bytes(5, msg{}.varint(2, 65536))), "no port"},
		"a workload's port 65536":         {workload(msg{}.bytes(22, msg{}.bytes(2, msg{}.bytes(1, msg{}.varint(2, 65536))))), "no port"},
		"a waypoint's port 65536":         {workload(msg{}.bytes(8, msg{}.varint(3, 65536))), "no port"},
		"a waypoint without destination":  {workload(msg{}.bytes(8, msg{}.varint(3, 15008))), "without destination"},
		"a Service's without destination": {service(msg{}.bytes(7, nil)), "without destination"},
		"a network gateway without one":   {workload(msg{}.bytes(19, nil)), "without destination"},
		"cut off":                         {workload(msg{}.str(1, "name"))[:8], "unexpected EOF"},
		"cut off inside":                  {msg{}.bytes(1, msg{}.str(20, "uid")[:3]), "unexpected EOF"},
		"a tag that is none":              {msg{0}, "invalid field number"},
	} {
		w, s, err := decodeAddress(tt.in, nil)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %+v, %+v, %v, want %q", name, w, s, err, tt.want)
		}
	}
}

func exact(s string) msg { return msg{}.str(1, s) }

// rules wraps matches as istiod sends them: Authorization.groups → Group.rules → Rules.matches.
func rules(matches ...msg) msg {
	var clause msg
	for _, m := range matches {
		clause = clause.bytes(2, m)
	}
	return msg{}.bytes(1, clause)
}

func policy(m msg) msg { return m.str(1, "p").str(2, "shop") }

func TestDecodeAuthorizationByPrincipal(t *testing.T) {
	p, err := decodeAuthorization(policy(msg{}.bytes(5, rules(msg{}.bytes(3, exact("cluster.local/ns/edge/sa/gateway"))))))
	want := &authz.Policy{Namespace: "shop", Name: "p", Rules: []authz.Rule{{{{
		Principals: []authz.StringMatch{{Kind: authz.Exact, Value: "cluster.local/ns/edge/sa/gateway"}}}}}}}
	if err != nil || !reflect.DeepEqual(p, want) {
		t.Errorf("got  %+v, %v\nwant %+v", p, err, want)
	}
}

func protoNumber(n int) protowire.Number { return protowire.Number(n) }

func appendFixed32(num protowire.Number) msg {
	return protowire.AppendFixed32(protowire.AppendTag(nil, num, protowire.Fixed32Type), 1)
}
