package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/isthmus-mesh/isthmus/hbone/authz"
)

// Change is what would let a denied request pass one enforcement point.
type Change struct {
	// Policy is to be changed. Zero: no policy, but the source.
	Policy Ref
	// Field of its spec, such as rules[0].from[0].source.principals: Value is added to it. from[] is each source of the rule, or a new one where it has
	// none; rules takes a whole rule.
	Field, Value string
	// Near and NearValue are what one rule lacks, where adding it would let in others too, and a rule of its own is named in its place.
	Near, NearValue string
	// Advice says it where no value of a field does it.
	Advice string
}

// String says it in one line.
func (c Change) String() string {
	switch {
	case c.Advice != "":
		return c.Advice
	case c.Field == fieldRules:
		return fmt.Sprintf("add to %v a rule: from source principals %s", c.Policy, c.Value)
	}
	return fmt.Sprintf("add %s to %s of %v", c.Value, c.Field, c.Policy)
}

const fieldRules = "rules"

// WhyNot names the smallest change that lets a denied request pass: values to add to fields, all of them together. It widens no rule for others: a
// DENY gets an exception for the source, an ALLOW what it lacks. Nil: the request is not denied, or too little is known of it.
func (p *Point) WhyNot(r *Request) []Change {
	d := p.Decide(r)
	if d.Verdict != Deny {
		return nil
	}
	switch d.Reason {
	case NoIdentity, Plaintext:
		return []Change{{Advice: "bring the source into the mesh: it has no identity"}}
	case BadToken:
		return []Change{{Policy: d.Policy, Advice: "send a token that the RequestAuthentications at the waypoint take, or none"}}
	case Custom:
		return []Change{{Policy: d.Policy, Advice: noProvider(d.Policy)}}
	}
	if len(r.Source.list) != 1 || r.Source.absent {
		return []Change{{Advice: "bring the source into the mesh: it has no identity"}}
	}
	v := view{r: r, source: &r.Source, sourceIP: &r.SourceIP, destIP: &r.WorkloadIP, destPort: &r.WorkloadPort, point: p.http}
	if p.waypoint {
		if v.destIP, v.destPort = &r.ServiceIP, &r.ServicePort; len(r.Protocol.list) > 0 && r.Protocol.list[0] == TCP {
			v.point = p.tcp
		}
	}
	return append(v.exceptions(), v.admission()...)
}

// exceptions are what keeps every DENY rule from matching.
func (v *view) exceptions() (all []Change) {
	who := principalOf(v.source.list[0])
	for i := range v.point.deny.rules {
		r := &v.point.deny.rules[i]
		if r.eval(v) == no {
			continue
		}
		if r.provider != "" {
			all = append(all, Change{Policy: r.policy, Advice: noProvider(r.policy)})
			continue
		}
		var places []Change
		open := false // an alternative without conditions, which takes every source
		for _, c := range r.clauses {
			for _, a := range c {
				open = open || len(a) == 0
				if at, ok := sourceOf(a); ok && a.eval(v) != no {
					places = append(places, Change{Policy: r.policy, Field: at + "notPrincipals", Value: who})
				}
			}
		}
		if open || len(places) == 0 {
			places = []Change{{Policy: r.policy, Field: fmt.Sprintf("rules[%d].from[].source.notPrincipals", r.index), Value: who}}
		}
		all = append(all, places...)
	}
	return all
}

func noProvider(p Ref) string {
	return fmt.Sprintf("name an extension provider in %v that the mesh has", p)
}

// sourceOf is the source that an alternative is of: rules[0].from[1].source. with its last dot.
func sourceOf(a alternative) (string, bool) {
	if len(a) == 0 {
		return "", false
	}
	at, _, ok := strings.Cut(a[0].field, ".source.")
	return at + ".source.", ok
}

// admission is what makes the nearest ALLOW rule match; nil when one does, or none is asked for.
func (v *view) admission() (best []Change) {
	allow := &v.point.allow
	if len(allow.policies) == 0 || allow.eval(v).matches == yes {
		return nil
	}
	for i := range allow.rules {
		if lacks, ok := v.lacks(&allow.rules[i]); ok && (best == nil || len(lacks) < len(best)) {
			best = lacks
		}
	}
	own := Change{Policy: allow.policies[0], Field: fieldRules, Value: principalOf(v.source.list[0])}
	if len(best) == 1 {
		if v.forItAlone(best[0]) {
			return best
		}
		own.Policy, own.Near, own.NearValue = best[0].Policy, best[0].Field, best[0].Value
	}
	// Several fields of somebody's rule say more than a rule of its own does, and what others are named for too would be open to these.
	return []Change{own}
}

// forItAlone says whether a change of an ALLOW rule lets in the source and nobody else: it names the source, or the rule names nobody else.
func (v *view) forItAlone(c Change) bool {
	switch name := c.Field[strings.LastIndex(c.Field, ".")+1:]; {
	case name == "principals" || name == "serviceAccounts":
		return true
	case strings.Contains(c.Field, ".source."):
		return false // a whole namespace, a trust domain, an address
	}
	return slices.ContainsFunc(v.point.allow.rules, func(r rule) bool {
		at := fmt.Sprintf("rules[%d].", r.index)
		return r.policy == c.Policy && strings.HasPrefix(c.Field, at) && slices.ContainsFunc(r.clauses, v.namesItAlone)
	})
}

// namesItAlone says whether every alternative of a clause names the source, and only it.
func (v *view) namesItAlone(c clause) bool {
	id := v.source.list[0]
	if len(c) == 0 || !ordinary(v.source.list) {
		return false
	}
	ns, sa, _ := strings.Cut(strings.TrimPrefix(id.Path(), "/ns/"), "/sa/")
	own, ours := id.TrustDomain().Name(), v.point.domains
	its := func(m authz.StringMatch) bool {
		domain, account, _ := strings.Cut(m.Value, "/")
		return m.Kind == authz.Exact && account == "ns/"+ns+"/sa/"+sa && (domain == own || slices.Contains(ours, domain) && slices.Contains(ours, own))
	}
	names := func(c cond) bool {
		switch {
		case c.not || !strings.HasSuffix(c.field, ".principals") && !strings.HasSuffix(c.field, ".serviceAccounts"):
			return false
		case c.kind == atZtunnel:
			return len(c.l4.Principals)+len(c.l4.ServiceAccounts) > 0 && !slices.ContainsFunc(c.l4.Principals, func(m authz.StringMatch) bool { return !its(m) }) &&
				!slices.ContainsFunc(c.l4.ServiceAccounts, func(a authz.ServiceAccount) bool { return a.Namespace != ns || a.Name != sa })
		case c.kind == sourceText:
			return len(c.texts) > 0 && !slices.ContainsFunc(c.texts, func(p pattern) bool {
				return p.unreadable || p.odd != nil || p.re != nil || p.contains || !its(p.StringMatch)
			})
		}
		return false
	}
	return !slices.ContainsFunc(c, func(a alternative) bool { return !slices.ContainsFunc(a, names) })
}

// lacks are the fewest values that make a rule match.
func (v *view) lacks(r *rule) (all []Change, ok bool) {
	for _, c := range r.clauses {
		if c.eval(v) == yes {
			continue
		}
		var best []Change
		for _, a := range c {
			var lacks []Change
			for i := range a {
				if a[i].eval(v) == yes {
					continue
				}
				value, ok := v.value(&a[i])
				if !ok {
					lacks = nil
					break
				}
				lacks = append(lacks, Change{Policy: r.policy, Field: a[i].field, Value: value})
			}
			if len(lacks) > 0 && (best == nil || len(lacks) < len(best)) {
				best = lacks
			}
		}
		if best == nil {
			return nil, false
		}
		all = append(all, best...)
	}
	return all, true
}

// value is what a field has to list for the request, if listing it is enough.
func (v *view) value(c *cond) (string, bool) {
	one := func(list []string) (string, bool) {
		if len(list) != 1 || list[0] == "" || strings.Contains(list[0], "*") {
			return "", false
		}
		return list[0], true
	}
	name := c.field[strings.LastIndex(c.field, ".")+1:]
	switch {
	case strings.HasPrefix(name, "not"):
		return "", false
	case name == "values":
		return "", false // what it lists depends on its key
	case c.attr == OnSource:
		return v.sourceValue(name)
	case c.kind == method:
		return one(v.r.Method.list)
	case c.kind == host:
		return one(v.r.Host.list)
	case c.kind == path && v.r.Path.known && v.normal():
		var list []string
		for _, p := range v.r.Path.list {
			s, _ := v.point.normalization.normal(p)
			list = append(list, s)
		}
		if slices.ContainsFunc(list, func(s string) bool { return strings.ContainsAny(s, "{}") }) {
			return "", false
		}
		return one(list)
	case c.attr == OnDestinationPort && len(v.destPort.list) == 1:
		return strconv.Itoa(int(v.destPort.list[0])), true
	case c.kind == atZtunnel && c.attr == OnSourceIP && len(v.sourceIP.list) == 1:
		return v.sourceIP.list[0].Unmap().String(), true
	}
	return "", false
}

// sourceValue is the source as a field lists it.
func (v *view) sourceValue(field string) (string, bool) {
	id := v.source.list[0]
	if !ordinary(v.source.list) {
		return principalOf(id), field == "principals"
	}
	ns, sa, _ := strings.Cut(strings.TrimPrefix(id.Path(), "/ns/"), "/sa/")
	switch field {
	case "principals":
		return principalOf(id), true
	case "namespaces":
		return ns, true
	case "serviceAccounts":
		return ns + "/" + sa, true
	case "trustDomains":
		return id.TrustDomain().Name(), true
	}
	return "", false
}
