package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/hbone/authz"
)

// levels are the PeerAuthentications that make up what a workload asks of its peers; nil where there is none.
type levels struct {
	mesh, namespace, workload *securityv1.PeerAuthentication
}

// levels picks them for a workload: in each the oldest.
func (s *Set) levels(w Workload) (l levels) {
	older := func(at **securityv1.PeerAuthentication, p *securityv1.PeerAuthentication) {
		if *at == nil || p.CreationTimestamp.Before(&(*at).CreationTimestamp) {
			*at = p
		}
	}
	for _, p := range s.m.PeerAuthentications {
		wide := p.Spec.Selector == nil || len(p.Spec.Selector.MatchLabels) == 0
		switch {
		case p.Namespace == s.m.RootNamespace && wide && (p.Spec.Selector == nil || w.Namespace == p.Namespace):
			older(&l.mesh, p)
		case p.Namespace != w.Namespace || p.Namespace == s.m.RootNamespace:
		case wide:
			older(&l.namespace, p)
		case selects(p.Spec.Selector, w.Labels):
			older(&l.workload, p)
		}
	}
	return l
}

// mode is a mode that says something: DISABLE is PERMISSIVE here.
type mode uint8

const (
	unset mode = iota
	permissive
	strict
)

func modeOf(m *securityapi.PeerAuthentication_MutualTLS) mode {
	switch m.GetMode() {
	case securityapi.PeerAuthentication_MutualTLS_STRICT:
		return strict
	case securityapi.PeerAuthentication_MutualTLS_PERMISSIVE, securityapi.PeerAuthentication_MutualTLS_DISABLE:
		return permissive
	}
	return unset
}

// strictness is what PeerAuthentications make of a workload, as istiod converts them: DENY rules of the one that decides, or a zero Ref. It is not
// sent when the workload lists a policy that istiod then does not make.
func (s *Set) strictness(w Workload) (ref Ref, rules []rule, sent bool) {
	l := s.levels(w)
	inherited := unset // the mode that the workload's own inherits, and where it is from
	var from *securityv1.PeerAuthentication
	for _, p := range []*securityv1.PeerAuthentication{l.mesh, l.namespace} {
		if p != nil && (modeOf(p.Spec.Mtls) != unset || inherited == unset) {
			inherited, from = modeOf(p.Spec.Mtls), p
		}
	}
	if l.workload == nil {
		if inherited != strict {
			return Ref{}, nil, true
		}
		return refOf(kindPeerAuthentication, from), strictly(from), true
	}
	own := modeOf(l.workload.Spec.Mtls)
	effective := inherited
	if own != unset {
		effective, from = own, l.workload
	}
	if s.byPorts(l.workload, own, effective) {
		rules, sent := s.sent(l.workload, own)
		return refOf(kindPeerAuthentication, l.workload), rules, sent
	}
	if effective != strict {
		return Ref{}, nil, true
	}
	return refOf(kindPeerAuthentication, from), strictly(from), true
}

// byPorts says whether the workload lists a policy that istiod makes of its PeerAuthentication's ports.
func (s *Set) byPorts(p *securityv1.PeerAuthentication, own, effective mode) bool {
	exception := strict
	if effective == strict {
		exception = permissive
	}
	for _, m := range p.Spec.PortLevelMtls {
		if own == unset && effective == strict && m.GetMode() == securityapi.PeerAuthentication_MutualTLS_DISABLE {
			continue // only PERMISSIVE counts there
		}
		if modeOf(m) == exception {
			return true
		}
	}
	return false
}

// sent are the rules that istiod makes of a PeerAuthentication with ports; not any, when it makes none. It does not make them anew when one that
// stands above it comes: of what came later it may know nothing yet. Where that matters the rules are those of both, and none is certain.
func (s *Set) sent(p *securityv1.PeerAuthentication, own mode) ([]rule, bool) {
	var made [][]rule
	for _, ns := range seen(s.widest(p.Namespace), p) {
		for _, root := range seen(s.widest(s.m.RootNamespace), p) {
			made = append(made, s.converted(p, own, ns, root))
		}
	}
	certain := true
	var all []rule
	for _, rules := range made {
		certain = certain && describe(rules) == describe(made[0])
		all = append(all, rules...)
	}
	if certain {
		return made[0], made[0] != nil
	}
	for i := range all {
		all[i].clauses = append(all[i].clauses, clause{{cond{kind: constant, attr: OnUnreadable, field: "portLevelMtls", result: maybe}}})
	}
	return all, true
}

// seen is what istiod may know of a PeerAuthentication that stands above another: it, and nothing where it came later. Without times they came together.
func seen(above, p *securityv1.PeerAuthentication) []*securityv1.PeerAuthentication {
	list := []*securityv1.PeerAuthentication{above}
	if above != nil && !p.CreationTimestamp.IsZero() && !above.CreationTimestamp.Before(&p.CreationTimestamp) {
		list = append(list, nil)
	}
	return list
}

// describe tells rules apart.
func describe(rules []rule) string {
	var b strings.Builder
	for _, r := range rules {
		for _, c := range r.clauses {
			for _, a := range c {
				for _, one := range a {
					fmt.Fprintf(&b, "%d %+v;", one.attr, *one.l4)
				}
				b.WriteByte('|')
			}
			b.WriteByte('&')
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// converted are the rules for what stands above; nil when istiod makes none.
func (s *Set) converted(p *securityv1.PeerAuthentication, own mode, ns, root *securityv1.PeerAuthentication) []rule {
	strictRoot := (ns == nil || modeOf(ns.Spec.Mtls) == unset) && root != nil && modeOf(root.Spec.Mtls) == strict
	strictAbove := ns != nil && modeOf(ns.Spec.Mtls) == strict || strictRoot
	nothingAbove := ns != nil && modeOf(ns.Spec.Mtls) != strict || ns == nil && (root == nil || modeOf(root.Spec.Mtls) != strict)

	compiled := func(clauses ...clause) rule {
		return rule{policy: refOf(kindPeerAuthentication, p), index: -1, clauses: clauses}
	}
	var rules []rule
	var all []clause // of one rule
	if own == strict {
		all = append(all, plaintext("mtls.mode", 0))
	}
	open := false
	for _, port := range slices.Sorted(maps.Keys(p.Spec.PortLevelMtls)) {
		field := fmt.Sprintf("portLevelMtls[%d]", port)
		switch modeOf(p.Spec.PortLevelMtls[port]) {
		case strict:
			// A strict mesh is thought to do this already, whatever the workload's own mode says: it may be open instead.
			if own == strict || own == unset && ns != nil && modeOf(ns.Spec.Mtls) == strict || strictRoot {
				continue
			}
			rules = append(rules, compiled(plaintext(field, uint16(port))))
		case permissive:
			if own == permissive || own == unset && nothingAbove {
				continue
			}
			open = true
			m := authz.Match{NotPorts: []uint16{uint16(port)}}
			all = append(all, clause{{cond{kind: atZtunnel, attr: OnDestinationPort, field: field, l4: &m}}})
		}
	}
	if own == strict && !open {
		return nil
	}
	if open && strictAbove {
		all = append(all, plaintext("mtls.mode", 0))
	}
	if len(all) > 0 {
		rules = append(rules, compiled(all...))
	}
	return rules
}

// widest is the oldest PeerAuthentication of a namespace that has no selector.
func (s *Set) widest(namespace string) *securityv1.PeerAuthentication {
	var oldest *securityv1.PeerAuthentication
	for _, p := range s.m.PeerAuthentications {
		if p.Namespace == namespace && p.Spec.Selector == nil && (oldest == nil || p.CreationTimestamp.Before(&oldest.CreationTimestamp)) {
			oldest = p
		}
	}
	return oldest
}

// plaintext is a source without identity, at one port or, with 0, at any.
func plaintext(field string, port uint16) clause {
	m := authz.Match{NotPrincipals: []authz.StringMatch{{Kind: authz.Presence}}}
	a := alternative{cond{kind: atZtunnel, attr: OnSource, field: field, l4: &m}}
	if port != 0 {
		at := authz.Match{DestinationPorts: []uint16{port}}
		a = append(a, cond{kind: atZtunnel, attr: OnDestinationPort, field: field, l4: &at})
	}
	return clause{a}
}

func strictly(p *securityv1.PeerAuthentication) []rule {
	return []rule{{policy: refOf(kindPeerAuthentication, p), index: -1, clauses: []clause{plaintext("mtls.mode", 0)}}}
}
