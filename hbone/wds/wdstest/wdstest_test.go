package wdstest_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/isthmus-mesh/isthmus/hbone/authz"
	"github.com/isthmus-mesh/isthmus/hbone/route"
	"github.com/isthmus-mesh/isthmus/hbone/wds"
	"github.com/isthmus-mesh/isthmus/hbone/wds/wdstest"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

func node() wds.Node {
	return wds.Node{IP: netip.MustParseAddr("10.0.0.1"), Pod: "edge-1", Namespace: "edge"}
}

// random is a policy of fields set at random.
func random(rng *rand.Rand, i int) *authz.Policy {
	chance := func() bool { return rng.IntN(4) == 0 }
	p := &authz.Policy{Namespace: "shop", Name: fmt.Sprint("p", i), Scope: authz.ScopeNamespace, Action: authz.Action(rng.IntN(2)), DryRun: chance()}
	values := []string{"cluster.local/ns/edge/sa/a", "edge", "cluster.local/", "/a", ""}
	text := func() (list []authz.StringMatch) {
		if chance() {
			k := authz.StringKind(rng.IntN(4))
			m := authz.StringMatch{Kind: k, Value: values[rng.IntN(len(values))]}
			if k == authz.Presence {
				m.Value = ""
			}
			list = append(list, m)
		}
		return list
	}
	prefixes := func() (list []netip.Prefix) {
		if chance() {
			list = append(list, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(rng.IntN(3))}), rng.IntN(33)).Masked())
		}
		return list
	}
	ports := func() (list []uint16) {
		if chance() {
			list = append(list, uint16(80+rng.IntN(2)), 443)
		}
		return list
	}
	accounts := func() (list []authz.ServiceAccount) {
		if chance() {
			list = append(list, authz.ServiceAccount{Namespace: "edge", Name: []string{"a", "b"}[rng.IntN(2)]})
		}
		return list
	}
	for range rng.IntN(3) {
		rule := authz.Rule{}
		for range rng.IntN(3) {
			clause := authz.Clause{}
			for range rng.IntN(3) {
				clause = append(clause, authz.Match{
					Namespaces: text(), NotNamespaces: text(), Principals: text(), NotPrincipals: text(),
					SourceIPs: prefixes(), NotSourceIPs: prefixes(), DestinationIPs: prefixes(), NotDestinationIPs: prefixes(),
					DestinationPorts: ports(), NotPorts: ports(), ServiceAccounts: accounts(), NotServiceAccounts: accounts(),
				})
			}
			rule = append(rule, clause)
		}
		p.Rules = append(p.Rules, rule)
	}
	return p
}

// What a client decides after the wire is what the policies say.
func TestPoliciesSurviveTheWire(t *testing.T) {
	istiod := wdstest.New(t)
	own := netip.MustParseAddr("10.0.0.2")
	var list []*authz.Policy
	rng := rand.New(rand.NewPCG(3, 4))
	var listed []string
	for i := range 300 {
		p := random(rng, i)
		p.Scope = authz.ScopeWorkload
		list = append(list, p)
		istiod.SetPolicy(p)
	}
	c, err := wds.New(wds.Config{Addresses: []string{istiod.Addr()}, Roots: istiod.Roots, Token: wdstest.Token, Node: node(), Policies: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	a := c.Authorizer(own)
	for i := range list {
		listed = []string{list[i].Key(), list[(i+1)%len(list)].Key()}
		istiod.SetWorkload(&route.Workload{UID: "w", Name: "w", Namespace: "shop", Addresses: []netip.Addr{own}, Policies: listed})
		for { // until the client has that one
			changed := c.Changed()
			w, err := c.Workload(t.Context(), own)
			if err != nil {
				t.Fatal(err)
			}
			if slices.Equal(w.Policies, listed) {
				break
			}
			<-changed
		}
		set := authz.NewSet(list, "shop", listed)
		for _, source := range []spiffeid.ID{{}, spiffeid.RequireFromString("spiffe://cluster.local/ns/edge/sa/a"), spiffeid.RequireFromString("spiffe://x.y/z")} {
			for _, port := range []uint16{80, 81} {
				conn := authz.Conn{Source: source, SourceAddr: netip.AddrFrom4([4]byte{10, 0, 0, byte(rng.IntN(3))}), Dest: netip.AddrPortFrom(own, port)}
				if got, want := a.Decide(t.Context(), conn), set.Decide(conn); got.Allow != want.Allow {
					t.Fatalf("%+v: %+v, want %+v by %+v", conn, got, want, list[i])
				}
			}
		}
	}
}

func TestWorkloadsSurviveTheWire(t *testing.T) {
	istiod := wdstest.New(t)
	want := &route.Workload{
		UID: "w", Name: "w", Namespace: "shop", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.2")}, Tunnel: route.TunnelHBONE,
		TrustDomain: "td.example", ServiceAccount: "sa", Unhealthy: true, Capacity: 7, Policies: []string{"shop/a"},
		Locality:       route.Locality{Region: "r", Zone: "z", Subzone: "s", Node: "n", ClusterID: "c"},
		Waypoint:       &route.Gateway{Host: route.Host{Namespace: "edge", Hostname: "w.edge"}, Port: 15008},
		NetworkGateway: &route.Gateway{Addr: route.NetAddr{Network: "far", IP: netip.MustParseAddr("fd00::1")}, Port: 15009},
		Services:       []route.Member{{Service: "shop/a", Ports: []route.Port{{Service: 80, Target: 8080}}}},
	}
	istiod.SetWorkload(want)
	c, err := wds.New(wds.Config{Addresses: []string{istiod.Addr()}, Roots: istiod.Roots, Token: wdstest.Token, Node: node()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got, err := c.Workload(t.Context(), want.Addresses[0])
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
	if _, err := c.Workload(t.Context(), netip.MustParseAddr("10.0.0.3")); err == nil {
		t.Error("a workload that is not there")
	}
}
