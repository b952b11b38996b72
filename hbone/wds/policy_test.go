package wds

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/hbone/authz"
	"google.golang.org/protobuf/encoding/protowire"
)

func prefix(ip string, bits uint64) msg { return msg{}.bytes(1, ipBytes(ip)).varint(2, bits) }

func account(ns, name string) msg { return msg{}.str(1, ns).str(2, name) }

func TestDecodeAuthorization(t *testing.T) {
	all := msg{}.
		bytes(1, exact("ns")).bytes(2, msg{}.str(2, "not-")).
		bytes(3, msg{}.str(3, "/sa/x")).bytes(4, msg{}.bytes(4, nil)).
		bytes(5, prefix("10.1.2.3", 8)).bytes(6, prefix("fd00::1", 64)).
		bytes(7, prefix("10.0.0.1", 32)).bytes(8, prefix("0.0.0.0", 0)).
		bytes(9, protowire.AppendVarint(protowire.AppendVarint(nil, 80), 443)).varint(10, 22).varint(10, 23).
		bytes(11, account("shop", "cart")).bytes(12, account("", "")).bytes(13, []byte("extension"))
	in := msg{}.str(1, "p").str(2, "shop").varint(3, 2).varint(4, 1).varint(6, 1).
		bytes(5, rules(all, msg{}).bytes(1, nil).bytes(1, msg{}.bytes(2, nil))). // a clause of two matches, one of none, one of an empty one
		bytes(5, nil).                                                           // a rule without clause
		future()
	want := &authz.Policy{
		Namespace: "shop", Name: "p", Scope: authz.ScopeWorkload, Action: authz.Deny, DryRun: true,
		Rules: []authz.Rule{
			{{{
				Namespaces:         []authz.StringMatch{{Kind: authz.Exact, Value: "ns"}},
				NotNamespaces:      []authz.StringMatch{{Kind: authz.Prefix, Value: "not-"}},
				Principals:         []authz.StringMatch{{Kind: authz.Suffix, Value: "/sa/x"}},
				NotPrincipals:      []authz.StringMatch{{Kind: authz.Presence}},
				SourceIPs:          []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
				NotSourceIPs:       []netip.Prefix{netip.MustParsePrefix("fd00::/64")},
				DestinationIPs:     []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32")},
				NotDestinationIPs:  []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")},
				DestinationPorts:   []uint16{80, 443},
				NotPorts:           []uint16{22, 23},
				ServiceAccounts:    []authz.ServiceAccount{{Namespace: "shop", Name: "cart"}},
				NotServiceAccounts: []authz.ServiceAccount{{}},
			}}, {}, {{}}},
			{},
		},
	}
	p, err := decodeAuthorization(in)
	if err != nil || !reflect.DeepEqual(p, want) {
		t.Errorf("got  %+v, %v\nwant %+v", p, err, want)
	}
}

// The enums' numbers are istiod's.
func TestDecodeAuthorizationScopeAndAction(t *testing.T) {
	for n, want := range []authz.Scope{authz.ScopeGlobal, authz.ScopeNamespace, authz.ScopeWorkload} {
		if p, err := decodeAuthorization(policy(msg{}.varint(3, uint64(n)))); err != nil || p.Scope != want || p.Action != authz.Allow {
			t.Errorf("scope %d is %+v, %v", n, p, err)
		}
	}
}

func TestDecodeAuthorizationRefuses(t *testing.T) {
	match := func(m msg) msg { return policy(msg{}.bytes(5, rules(m))) }
	for name, tt := range map[string]struct {
		in   msg
		want string
	}{
		"no name":                   {msg{}.str(2, "shop"), "without name"},
		"a scope of the future":     {policy(msg{}.varint(3, 3)), "scope 3"},
		"an action of the future":   {policy(msg{}.varint(4, 2)), "action 2"},
		"a scope that wraps around": {policy(msg{}.varint(3, 1<<63)), "scope"},
		"a condition of the future": {match(msg{}.varint(14, 1)), "a condition that is not known"},
		"a string match of nothing": {match(msg{}.bytes(3, nil)), "matches nothing"},
		"a principal by number":     {match(msg{}.varint(3, 1)), "wire type is 0"},
		"a string match of future":  {match(msg{}.bytes(1, msg{}.str(5, "x"))), "string match 5"},
		"an address of 5 bytes":     {match(msg{}.bytes(5, msg{}.bytes(1, []byte("12345")))), "4 or 16 bytes"},
		"a prefix without address":  {match(msg{}.bytes(6, msg{}.varint(2, 8))), "no prefix"},
		"a prefix of 33 bits":       {match(msg{}.bytes(7, prefix("10.0.0.0", 33))), "no prefix"},
		"a prefix of many bits":     {match(msg{}.bytes(8, prefix("fd00::", 1<<40))), "no prefix"},
		"port 65536":                {match(msg{}.varint(9, 65536)), "no port"},
		"packed port 65536":         {match(msg{}.bytes(10, protowire.AppendVarint(nil, 65536))), "no port"},
		"packed ports, cut off":     {match(msg{}.bytes(9, []byte{0x80})), "unexpected EOF"},
		"an account, cut off":       {match(msg{}.bytes(11, []byte{0x0a, 5})), "unexpected EOF"},
	} {
		if p, err := decodeAuthorization(tt.in); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %+v, %v, want %q", name, p, err, tt.want)
		}
	}
}
