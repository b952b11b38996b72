package authz

import (
	"net/netip"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

func one(m Match) []Rule { return []Rule{{Clause{m}}} }

func exact(s ...string) []StringMatch {
	var list []StringMatch
	for _, v := range s {
		list = append(list, StringMatch{Exact, v})
	}
	return list
}

func TestDecide(t *testing.T) {
	gateway := Conn{
		Source:     spiffeid.RequireFromString("spiffe://cluster.local/ns/edge/sa/gateway"),
		SourceAddr: netip.MustParseAddr("10.244.1.5"),
		Dest:       netip.MustParseAddrPort("10.244.1.9:8080"),
	}
	aliased := gateway // by the name of the trust domain of old
	aliased.Also = []spiffeid.ID{spiffeid.RequireFromString("spiffe://old.example/ns/edge/sa/gateway")}
	old := exact("old.example/ns/edge/sa/gateway")
	plain := Conn{SourceAddr: gateway.SourceAddr, Dest: gateway.Dest}
	strict := &Policy{Namespace: "istio-system", Name: "istio_converted_static_strict", Scope: ScopeWorkload, Action: Deny,
		Rules: one(Match{NotPrincipals: []StringMatch{{Kind: Presence}}})}
	allow := func(m Match) *Policy {
		return &Policy{Namespace: "shop", Name: "a", Scope: ScopeNamespace, Rules: one(m)}
	}
	deny := func(m Match) *Policy {
		return &Policy{Namespace: "shop", Name: "d", Scope: ScopeNamespace, Action: Deny, Rules: one(m)}
	}
	onLink := gateway
	onLink.SourceAddr, onLink.Dest = netip.MustParseAddr("fe80::1%eth0"), netip.MustParseAddrPort("[fe80::2%eth0]:8080")
	tests := map[string]struct {
		policies []*Policy
		conn     Conn
		allow    bool
		policy   string
	}{
		"no policy allows": {nil, gateway, true, ""},
		"STRICT as istiod converts it refuses plaintext": {[]*Policy{strict}, plain, false, strict.Key()},
		"and admits the mesh":                            {[]*Policy{strict}, gateway, true, ""},
		"an ALLOW by principal":                          {[]*Policy{allow(Match{Principals: exact("cluster.local/ns/edge/sa/gateway")})}, gateway, true, "shop/a"},
		"is default-deny for others":                     {[]*Policy{allow(Match{Principals: exact("cluster.local/ns/edge/sa/other")})}, gateway, false, "shop/a"},
		"spiffe:// in a principal never matches":         {[]*Policy{allow(Match{Principals: exact("spiffe://cluster.local/ns/edge/sa/gateway")})}, gateway, false, "shop/a"},
		"prefix":                                         {[]*Policy{allow(Match{Principals: []StringMatch{{Prefix, "cluster.local/ns/edge/"}}})}, gateway, true, "shop/a"},
		"suffix":                                         {[]*Policy{allow(Match{Principals: []StringMatch{{Suffix, "/sa/gateway"}}})}, gateway, true, "shop/a"},
		"presence":                                       {[]*Policy{allow(Match{Principals: []StringMatch{{Kind: Presence}}})}, plain, false, "shop/a"},
		"notPrincipals alone admits plaintext":           {[]*Policy{allow(Match{NotPrincipals: exact("x")})}, plain, true, "shop/a"},
		"notNamespaces alone admits plaintext":           {[]*Policy{allow(Match{NotNamespaces: exact("x")})}, plain, true, "shop/a"},
		"namespaces":                                     {[]*Policy{allow(Match{Namespaces: exact("edge")})}, gateway, true, "shop/a"},
		"service accounts of any trust domain":           {[]*Policy{allow(Match{ServiceAccounts: []ServiceAccount{{"edge", "gateway"}}})}, gateway, true, "shop/a"},
		"service accounts need an identity":              {[]*Policy{allow(Match{ServiceAccounts: []ServiceAccount{{"", ""}}})}, plain, false, "shop/a"},
		"source addresses":                               {[]*Policy{allow(Match{SourceIPs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}})}, gateway, true, "shop/a"},
		"not source addresses":                           {[]*Policy{deny(Match{NotSourceIPs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})}, gateway, true, ""},
		"source addresses of a link":                     {[]*Policy{deny(Match{SourceIPs: []netip.Prefix{netip.MustParsePrefix("fe80::/10")}})}, onLink, false, "shop/d"},
		"destination addresses of a link":                {[]*Policy{deny(Match{DestinationIPs: []netip.Prefix{netip.MustParsePrefix("fe80::2/128")}})}, onLink, false, "shop/d"},
		"destination addresses":                          {[]*Policy{deny(Match{DestinationIPs: []netip.Prefix{netip.MustParsePrefix("10.244.1.9/32")}})}, gateway, false, "shop/d"},
		"ports":                                          {[]*Policy{deny(Match{DestinationPorts: []uint16{8080}})}, gateway, false, "shop/d"},
		"not ports":                                      {[]*Policy{deny(Match{NotPorts: []uint16{8080}})}, gateway, true, ""},
		"all fields of a match":                          {[]*Policy{deny(Match{DestinationPorts: []uint16{8080}, Namespaces: exact("other")})}, gateway, true, ""},
		"DENY goes before ALLOW":                         {[]*Policy{allow(Match{Namespaces: exact("edge")}), deny(Match{Namespaces: exact("edge")})}, gateway, false, "shop/d"},
		"a DENY of HTTP fields only denies nobody":       {[]*Policy{deny(Match{})}, gateway, true, ""},
		"an ALLOW of them admits nobody":                 {[]*Policy{allow(Match{})}, gateway, false, "shop/a"},
		"an ALLOW without rules admits nobody":           {[]*Policy{{Namespace: "shop", Name: "none", Scope: ScopeNamespace}}, gateway, false, "shop/none"},
		"an empty rule matches all":                      {[]*Policy{{Namespace: "shop", Name: "all", Scope: ScopeNamespace, Action: Deny, Rules: []Rule{{}}}}, gateway, false, "shop/all"},
		"an empty clause matches all":                    {[]*Policy{{Namespace: "shop", Name: "all", Scope: ScopeNamespace, Action: Deny, Rules: []Rule{{Clause{}}}}}, gateway, false, "shop/all"},
		"all clauses of a rule": {[]*Policy{{Namespace: "shop", Name: "and", Scope: ScopeNamespace, Action: Deny,
			Rules: []Rule{{Clause{Match{Namespaces: exact("edge")}}, Clause{Match{DestinationPorts: []uint16{1}}}}}}}, gateway, true, ""},
		"any match of a clause": {[]*Policy{{Namespace: "shop", Name: "or", Scope: ScopeNamespace, Action: Deny,
			Rules: []Rule{{Clause{Match{Namespaces: exact("x")}, Match{DestinationPorts: []uint16{8080}}}}}}}, gateway, false, "shop/or"},
		"dry run decides nothing":            {[]*Policy{{Namespace: "shop", Name: "dry", Scope: ScopeNamespace, Action: Deny, Rules: []Rule{{}}, DryRun: true}}, gateway, true, ""},
		"another namespace's":                {[]*Policy{{Namespace: "other", Name: "d", Scope: ScopeNamespace, Action: Deny, Rules: []Rule{{}}}}, gateway, true, ""},
		"a selector's, not listed":           {[]*Policy{{Namespace: "shop", Name: "d", Scope: ScopeWorkload, Action: Deny, Rules: []Rule{{}}}}, gateway, true, ""},
		"an alias is another, as to ztunnel": {[]*Policy{allow(Match{Principals: old})}, gateway, false, "shop/a"},
		"an alias that is named is the same": {[]*Policy{allow(Match{Principals: old})}, aliased, true, "shop/a"},
		"so is the name itself":              {[]*Policy{allow(Match{Principals: exact("cluster.local/ns/edge/sa/gateway")})}, aliased, true, "shop/a"},
		"an alias is denied":                 {[]*Policy{deny(Match{Principals: old})}, aliased, false, "shop/d"},
		"an alias is not excepted":           {[]*Policy{deny(Match{NotPrincipals: old})}, aliased, true, ""},
		"neither is the name itself":         {[]*Policy{deny(Match{NotPrincipals: exact("cluster.local/ns/edge/sa/gateway")})}, aliased, true, ""},
		"others are no alias":                {[]*Policy{allow(Match{Principals: exact("other.example/ns/edge/sa/gateway")})}, aliased, false, "shop/a"},
		"STRICT admits an alias":             {[]*Policy{strict}, aliased, true, ""},
		"a global policy, anywhere":          {[]*Policy{{Namespace: "istio-system", Name: "d", Scope: ScopeGlobal, Action: Deny, Rules: []Rule{{}}}}, gateway, false, "istio-system/d"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := NewSet(tt.policies, "shop", []string{strict.Key()}).Decide(tt.conn)
			if got.Allow != tt.allow || got.Policy != tt.policy {
				t.Errorf("got %+v, want allow=%v by %q", got, tt.allow, tt.policy)
			}
			if got.Reason == "" {
				t.Error("there is no reason")
			}
		})
	}
}

func TestIPv4InIPv6IsIPv4(t *testing.T) {
	conn := Conn{SourceAddr: netip.MustParseAddr("::ffff:10.244.1.5"), Dest: netip.MustParseAddrPort("[::ffff:10.244.1.9]:80")}
	for name, m := range map[string]Match{
		"source":      {SourceIPs: []netip.Prefix{netip.MustParsePrefix("10.244.1.5/32")}},
		"destination": {DestinationIPs: []netip.Prefix{netip.MustParsePrefix("10.244.1.9/32")}},
	} {
		deny := &Policy{Namespace: "shop", Name: "d", Scope: ScopeNamespace, Action: Deny, Rules: one(m)}
		if NewSet([]*Policy{deny}, "shop", nil).Decide(conn).Allow {
			t.Errorf("a DENY by %s address does not hold", name)
		}
	}
}

func TestListedPoliciesThatAreNotThereAreReported(t *testing.T) {
	s := NewSet(nil, "shop", []string{"shop/late"})
	if got := s.Missing(); len(got) != 1 || got[0] != "shop/late" {
		t.Errorf("missing %v", got)
	}
	late := &Policy{Namespace: "shop", Name: "late", Scope: ScopeWorkload, Action: Deny, Rules: []Rule{{}}}
	if s = NewSet([]*Policy{late}, "shop", []string{"shop/late"}); len(s.Missing()) != 0 || s.Decide(Conn{}).Allow {
		t.Error("the policy came and does not decide")
	}
}

func BenchmarkDecide(b *testing.B) {
	var policies []*Policy
	for i := range 1000 {
		policies = append(policies, &Policy{Namespace: "shop", Name: string(rune('a'+i%26)) + "x", Scope: ScopeNamespace, Action: Deny,
			Rules: one(Match{Principals: exact("cluster.local/ns/edge/sa/nobody")})})
	}
	set := NewSet(policies, "shop", nil)
	c := Conn{Source: spiffeid.RequireFromString("spiffe://cluster.local/ns/edge/sa/gateway"), Dest: netip.MustParseAddrPort("10.0.0.1:80")}
	b.ReportAllocs()
	for b.Loop() {
		set.Decide(c)
	}
}
