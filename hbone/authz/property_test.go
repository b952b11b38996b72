package authz

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

var (
	texts   = []string{"td/ns/a/sa/x", "td/ns/b/sa/x", "a", "b", "td/", "/sa/x", ""}
	sources = []spiffeid.ID{
		{}, spiffeid.RequireFromString("spiffe://td/ns/a/sa/x"), spiffeid.RequireFromString("spiffe://td/ns/b/sa/y"),
		spiffeid.RequireFromString("spiffe://td/other/a/form"),
	}
)

func some[T any](rng *rand.Rand, one func() T) (list []T) {
	for rng.IntN(4) == 0 {
		list = append(list, one())
	}
	return list
}

func randomMatch(rng *rand.Rand) Match {
	text := func() StringMatch { return StringMatch{StringKind(rng.IntN(4)), texts[rng.IntN(len(texts))]} }
	account := func() ServiceAccount { return ServiceAccount{texts[2+rng.IntN(2)], "x"} }
	prefix := func() netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(rng.IntN(4))}), 30+rng.IntN(3)).Masked()
	}
	port := func() uint16 { return uint16(rng.IntN(3)) }
	return Match{
		Namespaces: some(rng, text), NotNamespaces: some(rng, text), Principals: some(rng, text), NotPrincipals: some(rng, text),
		ServiceAccounts: some(rng, account), NotServiceAccounts: some(rng, account),
		SourceIPs: some(rng, prefix), NotSourceIPs: some(rng, prefix), DestinationIPs: some(rng, prefix), NotDestinationIPs: some(rng, prefix),
		DestinationPorts: some(rng, port), NotPorts: some(rng, port),
	}
}

func randomPolicies(rng *rand.Rand) (list []*Policy) {
	for i := range rng.IntN(5) {
		p := &Policy{Namespace: texts[2+rng.IntN(2)], Name: fmt.Sprint(i), Scope: Scope(rng.IntN(3)), Action: Action(rng.IntN(2)), DryRun: rng.IntN(8) == 0}
		p.Rules = some(rng, func() Rule {
			return some(rng, func() Clause { return some(rng, func() Match { return randomMatch(rng) }) })
		})
		list = append(list, p)
	}
	return list
}

func randomConn(rng *rand.Rand) Conn {
	ip := func() netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(rng.IntN(4))}) }
	return Conn{Source: sources[rng.IntN(len(sources))], SourceAddr: ip(), Dest: netip.AddrPortFrom(ip(), uint16(rng.IntN(3)))}
}

func TestLawsOfDecisions(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 50_000 {
		policies, c := randomPolicies(rng), randomConn(rng)
		var listed []string
		for _, p := range policies {
			if rng.IntN(2) == 0 {
				listed = append(listed, p.Key())
			}
		}
		d := NewSet(policies, "a", listed).Decide(c)
		check := func(law string, ok bool) {
			t.Helper()
			if !ok {
				t.Fatalf("%s: %+v for %+v by %+v listing %v", law, d, c, policies, listed)
			}
		}
		// Order does not matter, but for which policy is named.
		mixed := slices.Clone(policies)
		rng.Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
		check("order", NewSet(mixed, "a", listed).Decide(c).Allow == d.Allow)
		// A further DENY never admits, and one that matches all admits nobody.
		deny := &Policy{Namespace: "a", Name: "deny", Scope: ScopeNamespace, Action: Deny, Rules: []Rule{{{randomMatch(rng)}}}}
		check("a DENY admits", d.Allow || !NewSet(append(mixed, deny), "a", listed).Decide(c).Allow)
		all := &Policy{Namespace: "z", Name: "all", Scope: ScopeGlobal, Action: Deny, Rules: []Rule{{}}}
		check("a DENY of all", !NewSet(append(mixed, all), "a", listed).Decide(c).Allow)
		// Where no DENY matches, a further ALLOW that matches admits.
		if d.Allow || d.Reason == "no ALLOW policy matches" {
			all = &Policy{Namespace: "z", Name: "all", Scope: ScopeGlobal, Rules: []Rule{{}}}
			check("an ALLOW of all", NewSet(append(mixed, all), "a", listed).Decide(c).Allow)
		}
		// Policies of others, and dry ones, say nothing.
		for _, p := range []*Policy{
			{Namespace: "c", Name: "c", Scope: ScopeNamespace, Action: Deny, Rules: []Rule{{}}},
			{Namespace: "a", Name: "unlisted", Scope: ScopeWorkload, Action: Deny, Rules: []Rule{{}}},
			{Namespace: "a", Name: "dry", Scope: ScopeNamespace, Rules: []Rule{{}}, DryRun: true},
		} {
			check("a policy of others", NewSet(append(mixed, p), "a", listed).Decide(c) == NewSet(mixed, "a", listed).Decide(c))
		}
		check("a reason", d.Reason != "" && !d.Missing)
	}
}

// A match and the same with "not" in place of "is" never both hold, and where the source is known one of them does.
func TestNotIsTheOpposite(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for range 20_000 {
		m, c := randomMatch(rng), randomConn(rng)
		for name, pair := range map[string][2]Match{
			"namespaces":   {{Namespaces: m.Namespaces}, {NotNamespaces: m.Namespaces}},
			"principals":   {{Principals: m.Principals}, {NotPrincipals: m.Principals}},
			"accounts":     {{ServiceAccounts: m.ServiceAccounts}, {NotServiceAccounts: m.ServiceAccounts}},
			"sources":      {{SourceIPs: m.SourceIPs}, {NotSourceIPs: m.SourceIPs}},
			"destinations": {{DestinationIPs: m.DestinationIPs}, {NotDestinationIPs: m.DestinationIPs}},
			"ports":        {{DestinationPorts: m.DestinationPorts}, {NotPorts: m.DestinationPorts}},
		} {
			w := c.who()
			is, not := Clause{pair[0]}.holds(&c, &w), Clause{pair[1]}.holds(&c, &w)
			switch empty := pair[0].empty(); {
			case empty && (is || not):
				t.Fatalf("%s: an empty match holds for %+v", name, c)
			case !empty && is == not:
				t.Fatalf("%s: %v and %v of %+v for %+v", name, is, not, pair, c)
			}
		}
	}
}
