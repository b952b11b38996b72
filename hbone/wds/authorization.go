package wds

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/isthmus-mesh/isthmus/hbone/authz"
)

// The fields of istio.security's messages that are read here.
var (
	policyFields  = fields{1: text, 2: text, 3: number, 4: number, 5: text, 6: number}
	ruleFields    = fields{1: text}
	clauseFields  = fields{2: text}
	matchFields   = fields{1: text, 2: text, 3: text, 4: text, 5: text, 6: text, 7: text, 8: text, 9: numbers, 10: numbers, 11: text, 12: text}
	stringFields  = fields{1: text, 2: text, 3: text, 4: text}
	prefixFields  = fields{1: text, 2: number}
	accountFields = fields{1: text, 2: text}
)

// decodeAuthorization reads an istio.security.Authorization.
func decodeAuthorization(b []byte) (*authz.Policy, error) {
	p := &authz.Policy{}
	err := walk(b, policyFields, func(f field) error {
		switch f.num {
		case 1:
			p.Name = string(f.bytes)
		case 2:
			p.Namespace = string(f.bytes)
		case 3:
			if p.Scope = authz.Scope(f.n); f.n > 2 {
				return fmt.Errorf("scope %d is not known", f.n)
			}
		case 4:
			if p.Action = authz.Action(f.n); f.n > 1 {
				return fmt.Errorf("action %d is not known", f.n)
			}
		case 5:
			rule, err := decodeRule(f.bytes)
			p.Rules = append(p.Rules, rule)
			return err
		case 6:
			p.DryRun = f.n != 0
		}
		return nil
	})
	if err == nil && p.Name == "" {
		err = errors.New("a policy without name")
	}
	return p, err
}

func decodeRule(b []byte) (authz.Rule, error) {
	rule := authz.Rule{}
	err := walk(b, ruleFields, func(f field) error {
		if f.num != 1 {
			return nil
		}
		clause := authz.Clause{}
		err := walk(f.bytes, clauseFields, func(f field) error {
			if f.num != 2 || len(f.bytes) == 0 && len(clause) > 0 {
				return nil // beside others a match without conditions says nothing, and takes much memory
			}
			m, err := decodeMatch(f.bytes)
			clause = append(clause, m)
			return err
		})
		rule = append(rule, clause)
		return err
	})
	return rule, err
}

func decodeMatch(b []byte) (m authz.Match, err error) {
	err = walk(b, matchFields, func(f field) error {
		switch f.num {
		case 1:
			return addString(&m.Namespaces, f)
		case 2:
			return addString(&m.NotNamespaces, f)
		case 3:
			return addString(&m.Principals, f)
		case 4:
			return addString(&m.NotPrincipals, f)
		case 5:
			return addPrefix(&m.SourceIPs, f)
		case 6:
			return addPrefix(&m.NotSourceIPs, f)
		case 7:
			return addPrefix(&m.DestinationIPs, f)
		case 8:
			return addPrefix(&m.NotDestinationIPs, f)
		case 9:
			return addPorts(&m.DestinationPorts, f)
		case 10:
			return addPorts(&m.NotPorts, f)
		case 11:
			return addAccount(&m.ServiceAccounts, f)
		case 12:
			return addAccount(&m.NotServiceAccounts, f)
		case 13: // extensions, which are no conditions
			return nil
		}
		// Without a condition that is not known here an ALLOW would admit more than it should.
		return errors.New("a condition that is not known")
	})
	return m, err
}

func addString(list *[]authz.StringMatch, f field) error {
	known := false
	var m authz.StringMatch
	err := walk(f.bytes, stringFields, func(f field) error {
		known = true
		m.Value = string(f.bytes)
		switch f.num {
		case 1:
			m.Kind = authz.Exact
		case 2:
			m.Kind = authz.Prefix
		case 3:
			m.Kind = authz.Suffix
		case 4:
			m = authz.StringMatch{Kind: authz.Presence}
		default:
			return fmt.Errorf("string match %d is not known", f.num)
		}
		return nil
	})
	if err == nil && !known {
		err = errors.New("a string match that matches nothing")
	}
	*list = append(*list, m)
	return err
}

func addPrefix(list *[]netip.Prefix, f field) error {
	var ip netip.Addr
	var bits uint64
	err := walk(f.bytes, prefixFields, func(f field) (err error) {
		switch f.num {
		case 1:
			ip, err = f.ip()
		case 2:
			bits = f.n
		}
		return err
	})
	if err != nil {
		return err
	}
	if !ip.IsValid() || bits > uint64(ip.BitLen()) {
		return fmt.Errorf("%v/%d is no prefix", ip, bits)
	}
	*list = append(*list, netip.PrefixFrom(ip, int(bits)).Masked())
	return nil
}

func addPorts(list *[]uint16, f field) error {
	return f.packed(func(n uint64) error {
		if n > 65535 {
			return fmt.Errorf("%d is no port", n)
		}
		*list = append(*list, uint16(n))
		return nil
	})
}

func addAccount(list *[]authz.ServiceAccount, f field) error {
	var a authz.ServiceAccount
	err := walk(f.bytes, accountFields, func(f field) error {
		switch f.num {
		case 1:
			a.Namespace = string(f.bytes)
		case 2:
			a.Name = string(f.bytes)
		}
		return nil
	})
	*list = append(*list, a)
	return err
}
