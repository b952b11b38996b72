package authz

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Scope says to which workloads a policy applies.
type Scope int

// The scopes: all, those of the policy's namespace, and those that list it by name.
const (
	ScopeGlobal Scope = iota
	ScopeNamespace
	ScopeWorkload
)

// Action is what a matching policy does.
type Action int

// The actions.
const (
	Allow Action = iota
	Deny
)

// Policy is an istio.security.Authorization. PeerAuthentication in STRICT mode comes as one too.
type Policy struct {
	Namespace, Name string
	Scope           Scope
	Action          Action
	Rules           []Rule // any matches; none: the policy never matches
	DryRun          bool   // decides nothing
}

// Key is namespace/name, as workloads list it.
func (p *Policy) Key() string { return p.Namespace + "/" + p.Name }

// Rule matches when all its clauses do.
type Rule []Clause

// Clause matches when any of its matches does, or when it has none.
type Clause []Match

// Match holds when every field that is set does. One without any field never holds: that is what istiod leaves of HTTP attributes.
type Match struct {
	Namespaces, NotNamespaces           []StringMatch
	ServiceAccounts, NotServiceAccounts []ServiceAccount
	Principals, NotPrincipals           []StringMatch // without spiffe://
	SourceIPs, NotSourceIPs             []netip.Prefix
	DestinationIPs, NotDestinationIPs   []netip.Prefix
	DestinationPorts, NotPorts          []uint16
}

// ServiceAccount names a service account of any trust domain.
type ServiceAccount struct{ Namespace, Name string }

// StringKind is how a StringMatch compares.
type StringKind int

// The kinds. Presence holds for every string but the empty one.
const (
	Exact StringKind = iota
	Prefix
	Suffix
	Presence
)

// StringMatch compares a string.
type StringMatch struct {
	Kind  StringKind
	Value string
}

func (m StringMatch) holds(s string) bool {
	switch m.Kind {
	case Prefix:
		return strings.HasPrefix(s, m.Value)
	case Suffix:
		return strings.HasSuffix(s, m.Value)
	case Presence:
		return s != ""
	}
	return s == m.Value
}

// Conn is a connection to decide on.
type Conn struct {
	Source spiffeid.ID // zero: plaintext, nobody known
	// Also is the source by other names, as where trust domains are aliases: a principal or namespace of a policy that fits one of them fits. ztunnel
	// knows no such names, and istiod sends it policies as they are written; at a waypoint istiod makes a principal one of each alias.
	Also       []spiffeid.ID
	SourceAddr netip.Addr
	Dest       netip.AddrPort // the workload's own address and port
}

// who is what policies see of a source.
type who struct {
	principal, namespace, account string
	also                          []who // by other names
}

func (c *Conn) who() who {
	w := named(c.Source)
	for _, id := range c.Also {
		w.also = append(w.also, named(id))
	}
	return w
}

// named is what policies see of id.
func named(id spiffeid.ID) who {
	if id.IsZero() {
		return who{}
	}
	// String is spiffe://domain/path; the parts are slices of it.
	w := who{principal: strings.TrimPrefix(id.String(), "spiffe://")}
	rest, ok := strings.CutPrefix(id.Path(), "/ns/")
	if !ok {
		return w
	}
	ns, sa, ok := strings.Cut(rest, "/sa/")
	if ok && !strings.Contains(ns, "/") && !strings.Contains(sa, "/") {
		w.namespace, w.account = ns, sa
	}
	return w
}

// match is the index of the first rule that matches, or -1.
func (p *Policy) match(c *Conn, w *who) int {
	for i, rule := range p.Rules {
		if rule.holds(c, w) {
			return i
		}
	}
	return -1
}

func (r Rule) holds(c *Conn, w *who) bool {
	for _, clause := range r {
		if !clause.holds(c, w) {
			return false
		}
	}
	return true
}

func (cl Clause) holds(c *Conn, w *who) bool {
	if len(cl) == 0 {
		return true
	}
	for i := range cl {
		if !cl[i].empty() && cl[i].holds(c, w) {
			return true
		}
	}
	return false
}

func (m *Match) empty() bool {
	return len(m.Namespaces)+len(m.NotNamespaces)+len(m.ServiceAccounts)+len(m.NotServiceAccounts)+
		len(m.Principals)+len(m.NotPrincipals)+len(m.SourceIPs)+len(m.NotSourceIPs)+
		len(m.DestinationIPs)+len(m.NotDestinationIPs)+len(m.DestinationPorts)+len(m.NotPorts) == 0
}

func (m *Match) holds(c *Conn, w *who) bool {
	return within(c.Dest.Addr(), m.DestinationIPs, m.NotDestinationIPs) &&
		within(c.SourceAddr, m.SourceIPs, m.NotSourceIPs) &&
		listed(c.Dest.Port(), m.DestinationPorts, m.NotPorts) &&
		(len(m.ServiceAccounts) == 0 || w.hasAccount(m.ServiceAccounts)) && !w.hasAccount(m.NotServiceAccounts) &&
		(len(m.Principals) == 0 || w.hasPrincipal(m.Principals)) && !w.hasPrincipal(m.NotPrincipals) &&
		(len(m.Namespaces) == 0 || w.hasNamespace(m.Namespaces)) && !w.hasNamespace(m.NotNamespaces)
}

// hasPrincipal reports whether a principal of w is in list. One is compared only where there is one: a source without passes "not".
func (w *who) hasPrincipal(list []StringMatch) bool {
	return w.principal != "" && holdsAny(list, w.principal) || slices.ContainsFunc(w.also, func(o who) bool { return o.hasPrincipal(list) })
}

func (w *who) hasNamespace(list []StringMatch) bool {
	return holdsAny(list, w.namespace) || slices.ContainsFunc(w.also, func(o who) bool { return o.hasNamespace(list) })
}

func (w *who) hasAccount(list []ServiceAccount) bool {
	return w.account != "" && slices.Contains(list, ServiceAccount{w.namespace, w.account}) ||
		slices.ContainsFunc(w.also, func(o who) bool { return o.hasAccount(list) })
}

func holdsAny(list []StringMatch, s string) bool {
	for _, m := range list {
		if m.holds(s) {
			return true
		}
	}
	return false
}

func within(a netip.Addr, is, not []netip.Prefix) bool {
	found := func(list []netip.Prefix) bool {
		for _, p := range list {
			if p.Contains(a) {
				return true
			}
		}
		return false
	}
	return (len(is) == 0 || found(is)) && !found(not)
}

func listed(port uint16, is, not []uint16) bool {
	return (len(is) == 0 || slices.Contains(is, port)) && !slices.Contains(not, port)
}
