package policy

import (
	"cmp"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/hbone/authz"
)

// ruleset is the rules of one action at one enforcement point. Most rules name a source, a host, a path or a port exactly, so
// that they are found by it; the others are looked at one by one.
type ruleset struct {
	policies []Ref // those in force, also without rules
	rules    []rule
	byKey    map[key][]int32
	byDim    [dims][]int32 // all that are found by a dimension, for requests in which it is not known
	rest     []int32       // those that are found by none
}

// dim is an attribute by which rules are found.
type dim uint8

const (
	byPrincipal dim = iota
	byNamespace
	byAccount
	byHost
	byPath
	byPort
	dims
)

type key struct {
	dim  dim
	text string
	port uint16
}

// add adds a policy that is in force.
func (s *ruleset) add(policy Ref, rules []rule) {
	s.policies = append(s.policies, policy)
	s.rules = append(s.rules, rules...)
}

// build makes the index. Each rule is found by the dimension whose keys it shares with the fewest others.
func (s *ruleset) build() {
	count := map[key]int{}
	for i := range s.rules {
		for d := range dims {
			for _, k := range s.rules[i].keys(d) {
				count[k]++
			}
		}
	}
	s.byKey = map[key][]int32{}
	for i := range s.rules {
		var best []key
		fewest := len(s.rules) + 1
		for d := range dims {
			keys := s.rules[i].keys(d)
			most := 0
			for _, k := range keys {
				most = max(most, count[k])
			}
			if len(keys) > 0 && most < fewest {
				best, fewest = keys, most
			}
		}
		if best == nil {
			s.rest = append(s.rest, int32(i))
			continue
		}
		for _, k := range best {
			s.byKey[k] = append(s.byKey[k], int32(i))
		}
		s.byDim[best[0].dim] = append(s.byDim[best[0].dim], int32(i))
	}
}

// keys are what d must be one of for the rule to match; none when it may be anything.
func (r *rule) keys(d dim) []key {
	for _, c := range r.clauses {
		var keys []key
		for _, a := range c {
			found := false
			for i := range a {
				if more := a[i].keys(d); len(more) > 0 {
					keys, found = append(keys, more...), true
					break
				}
			}
			if !found {
				keys = nil
				break
			}
		}
		if len(keys) > 0 {
			slices.SortFunc(keys, func(a, b key) int { return cmp.Or(cmp.Compare(a.text, b.text), cmp.Compare(a.port, b.port)) })
			return slices.Compact(keys)
		}
	}
	return nil
}

func (c *cond) keys(d dim) []key {
	switch {
	case c.not:
		return nil
	case c.kind == atZtunnel:
		return l4Keys(c.l4, d)
	case c.kind == sourceText && d == byPrincipal:
		return exactly(c.texts, d)
	case c.kind == sourceText && d == byNamespace:
		return namespaceKeys(c.texts)
	case c.kind == sourceText && d == byAccount:
		return accountKeys(c.texts)
	case c.kind == host && d == byHost:
		return exactly(c.texts, d)
	case c.kind == path && d == byPath && len(c.templates) == 0:
		return exactly(c.texts, d)
	case c.kind == destPort && d == byPort:
		return portKeys(c.ports)
	}
	return nil
}

func portKeys(ports []uint16) []key {
	var keys []key
	for _, p := range ports {
		keys = append(keys, key{dim: byPort, port: p})
	}
	return keys
}

func exactly(list []pattern, d dim) []key {
	var keys []key
	for i := range list {
		p := &list[i]
		if p.Kind != authz.Exact || p.contains || p.re != nil || p.odd != nil || p.unreadable {
			return nil
		}
		keys = append(keys, key{dim: d, text: p.Value})
	}
	return keys
}

func exactMatches(list []authz.StringMatch, d dim) []key {
	var keys []key
	for _, m := range list {
		if m.Kind != authz.Exact || m.Value == "" { // a source without identity has the namespace ""
			return nil
		}
		keys = append(keys, key{dim: d, text: m.Value})
	}
	return keys
}

// namespaceKeys are those of namespaces at a waypoint, which are looked for anywhere in the source.
func namespaceKeys(list []pattern) []key {
	var keys []key
	for i := range list {
		p := &list[i]
		ns := strings.TrimSuffix(strings.TrimPrefix(p.Value, "/ns/"), "/")
		if !p.contains || strings.Contains(ns, "/") {
			return nil
		}
		keys = append(keys, key{dim: byNamespace, text: ns})
	}
	return keys
}

// accountKeys are those of service accounts at a waypoint.
func accountKeys(list []pattern) []key {
	var keys []key
	for i := range list {
		if list[i].odd == nil {
			return nil
		}
		keys = append(keys, key{dim: byAccount, text: list[i].Value})
	}
	return keys
}

func l4Keys(m *authz.Match, d dim) []key {
	switch d {
	case byPrincipal:
		return exactMatches(m.Principals, d)
	case byNamespace:
		return exactMatches(m.Namespaces, d)
	case byAccount:
		var keys []key
		for _, a := range m.ServiceAccounts {
			keys = append(keys, key{dim: d, text: "/ns/" + a.Namespace + "/sa/" + a.Name})
		}
		return keys
	case byPort:
		return portKeys(m.DestinationPorts)
	}
	return nil
}

// outcome is what a ruleset says: whether a rule matches, which, and what that depends on.
type outcome struct {
	matches tri
	rule    *rule // that matches, or the first that may
	on      Attributes
	field   string
}

// eval looks for a rule that matches. It stops at the first.
func (s *ruleset) eval(v *view) outcome {
	o := outcome{matches: no}
	if len(s.rules) == 0 || s.look(v, &o, s.rest) {
		return o
	}
	for d := range dims {
		if len(s.byDim[d]) > 0 && s.find(v, &o, d) {
			return o
		}
	}
	return o
}

// look evaluates rules, and reports whether one matches.
func (s *ruleset) look(v *view, o *outcome, rules []int32) bool {
	for _, i := range rules {
		r := &s.rules[i]
		switch r.eval(v) {
		case yes:
			*o = outcome{matches: yes, rule: r}
			return true
		case maybe:
			on, field := r.unsure(v)
			if o.on |= on; o.matches == no {
				o.matches, o.rule, o.field = maybe, r, field
			}
		}
	}
	return false
}

// find evaluates the rules that are found by d.
func (s *ruleset) find(v *view, o *outcome, d dim) bool {
	by := func(k key) bool { return s.look(v, o, s.byKey[k]) }
	switch d {
	case byPrincipal, byNamespace, byAccount:
		if !v.source.known || !ordinary(v.source.list) {
			break
		}
		for _, id := range v.source.list {
			k := key{dim: d, text: principalOf(id)}
			switch d {
			case byNamespace:
				k.text, _, _ = strings.Cut(id.Path()[len("/ns/"):], "/")
			case byAccount:
				k.text = id.Path()
			}
			if by(k) {
				return true
			}
		}
		return false
	case byHost:
		if !v.r.Host.known {
			break
		}
		for _, h := range v.r.Host.list {
			if by(key{dim: d, text: strings.ToLower(h)}) {
				return true
			}
		}
		return false
	case byPath:
		if !v.r.Path.known || !v.normal() {
			break
		}
		for _, p := range v.r.Path.list {
			text, _ := v.point.normalization.normal(p)
			if by(key{dim: d, text: text}) {
				return true
			}
		}
		return false
	case byPort:
		if !v.destPort.known {
			break
		}
		for _, p := range v.destPort.list {
			if by(key{dim: d, port: p}) {
				return true
			}
		}
		return false
	}
	return s.look(v, o, s.byDim[d])
}

// normal reports whether it is known what policies see of each path.
func (v *view) normal() bool {
	for _, p := range v.r.Path.list {
		if _, ok := v.point.normalization.normal(p); !ok {
			return false
		}
	}
	return true
}

// ordinary reports whether each source is /ns/x/sa/y, so that its parts are found by what they are.
func ordinary(list []spiffeid.ID) bool {
	for _, id := range list {
		ns, sa, ok := strings.Cut(strings.TrimPrefix(id.Path(), "/ns/"), "/sa/")
		if !ok || !strings.HasPrefix(id.Path(), "/ns/") || strings.Contains(ns, "/") || strings.Contains(sa, "/") {
			return false
		}
	}
	return true
}
