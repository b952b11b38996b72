package authz

import "net/netip"

// Set is the policies that apply to one workload. The zero value has none and allows everything.
type Set struct {
	deny, allow []*Policy
	missing     []string
}

// Decision is the answer for a connection.
type Decision struct {
	Allow   bool
	Policy  string // namespace/name of the policy that decided; "" when none applied, or none of several ALLOW policies matched
	Rule    int    // index of the rule that matched; -1 when none did
	Reason  string
	Missing bool // denied because a policy that the workload lists is not there yet
}

// NewSet picks what applies to a workload of namespace that lists the policies in listed: those, the namespace's own and the global ones.
// The policies must not change afterwards.
func NewSet(policies []*Policy, namespace string, listed []string) *Set {
	s := &Set{}
	want := make(map[string]bool, len(listed)) // name → found
	for _, name := range listed {
		want[name] = false
	}
	for _, p := range policies {
		_, named := want[p.Key()]
		if named {
			want[p.Key()] = true
		}
		applies := named || p.Scope == ScopeGlobal || p.Scope == ScopeNamespace && p.Namespace == namespace
		switch {
		case !applies || p.DryRun:
		case p.Action == Deny:
			s.deny = append(s.deny, p)
		default:
			s.allow = append(s.allow, p)
		}
	}
	for _, name := range listed {
		if !want[name] {
			s.missing = append(s.missing, name)
		}
	}
	return s
}

// Missing lists the policies that the workload lists and that are not there.
func (s *Set) Missing() []string { return s.missing }

// Decide answers for one connection: DENY before ALLOW; with ALLOW policies one must match; without any the connection is allowed.
// It says nothing of missing policies: Missing does.
func (s *Set) Decide(c Conn) Decision {
	// A socket of both families shows IPv4 in IPv6, and one of a link names the link: no prefix contains either.
	c.SourceAddr = c.SourceAddr.Unmap().WithZone("")
	c.Dest = netip.AddrPortFrom(c.Dest.Addr().Unmap().WithZone(""), c.Dest.Port())
	w := c.who()
	for _, p := range s.deny {
		if i := p.match(&c, &w); i >= 0 {
			return Decision{Policy: p.Key(), Rule: i, Reason: "a DENY policy matches"}
		}
	}
	if len(s.allow) == 0 {
		return Decision{Allow: true, Rule: -1, Reason: "no ALLOW policy applies"}
	}
	for _, p := range s.allow {
		if i := p.match(&c, &w); i >= 0 {
			return Decision{Allow: true, Policy: p.Key(), Rule: i, Reason: "an ALLOW policy matches"}
		}
	}
	d := Decision{Rule: -1, Reason: "no ALLOW policy matches"}
	if len(s.allow) == 1 {
		d.Policy = s.allow[0].Key()
	}
	return d
}
