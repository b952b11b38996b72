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
	// To narrows the whole rule to what was asked about. Zero: the rule takes every request of the source.
	To To
	// Near and NearValue are what one rule lacks, where adding it would let in others too, or more than was asked, and a rule of its own is named in its
	// place.
	Near, NearValue string
	// Careful says what else it lets through, or leaves open, of the same source. Empty: nothing that was not asked about.
	Careful string
	// Advice says it where no value of a field does it.
	Advice string
}

// To is the operation of a rule that a Change adds: a value for each field, or "" for every one.
type To struct{ Methods, Paths, Hosts, Ports string }

// fields are those that have a value, by their names in a policy.
func (t To) fields() (list []toField) {
	for _, f := range [...]toField{{"methods", t.Methods}, {"paths", t.Paths}, {"hosts", t.Hosts}, {"ports", t.Ports}} {
		if f.value != "" {
			list = append(list, f)
		}
	}
	return list
}

type toField struct{ name, value string }

// String says it in one line.
func (c Change) String() string {
	switch {
	case c.Advice != "":
		return c.Advice
	case c.Field == fieldRules:
		text := fmt.Sprintf("add to %v a rule: from source principals %s", c.Policy, c.Value)
		for i, f := range c.To.fields() {
			if i == 0 {
				text += ", to operation"
			} else {
				text += ","
			}
			text += " " + f.name + " " + f.value
		}
		return text
	}
	return fmt.Sprintf("add %s to %s of %v", c.Value, c.Field, c.Policy)
}

const fieldRules = "rules"

// WhyNot names the smallest change by which a denied request is denied no more: values to add to fields, all of them together. It widens no rule for others:
// a DENY gets an exception for the source, an ALLOW what it lacks, or a rule for what was asked where that would let the source do more. What is not known of
// the request may still decide. Nil: the request is not denied, or too little is known of it.
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
	v := wish{view: view{r: r, source: &r.Source, sourceIP: &r.SourceIP, destIP: &r.WorkloadIP, destPort: &r.WorkloadPort, point: p.http}}
	if p.waypoint {
		if v.destIP, v.destPort = &r.ServiceIP, &r.ServicePort; len(r.Protocol.list) > 0 && r.Protocol.list[0] == TCP {
			v.point = p.tcp
		}
	}
	v.ask(p.waypoint && v.point == p.http)
	return append(v.exceptions(), v.admission()...)
}

// wish is a request that is to pass, with what was asked of it.
type wish struct {
	view
	to To
	// unsaid are the parts of a request that were not asked about, and dumb those that were and that no field can say here.
	unsaid, dumb []string
	http         bool // requests are read here
}

// ask finds what was asked about.
func (v *wish) ask(http bool) {
	v.http = http
	said := v.r.PortAsked
	for _, part := range [...]struct {
		name  string
		known bool
		c     cond
		to    *string
	}{
		{"method", v.r.Method.known, cond{kind: method}, &v.to.Methods},
		{"path", v.r.Path.known, cond{kind: path}, &v.to.Paths},
		{"host", v.r.Host.known, cond{kind: host}, &v.to.Hosts},
	} {
		said = said || part.known
		switch value, ok := v.value(&part.c); {
		case !part.known && http:
			v.unsaid = append(v.unsaid, part.name)
		case !part.known:
		case http && ok:
			*part.to = value
		default:
			v.dumb = append(v.dumb, part.name)
		}
	}
	if said && len(v.destPort.list) == 1 {
		v.to.Ports = strconv.Itoa(int(v.destPort.list[0]))
	}
}

// wide says that more than was asked about is let through: each that what admits.
func (v *wish) wide(what string) string {
	var texts []string
	if list := v.unsaid; len(list) > 0 {
		texts = append(texts, fmt.Sprintf("not asked about: %s. Each that %s is let through", strings.Join(list, ", "), what))
	}
	if list := v.dumb; len(list) > 0 {
		texts = append(texts, fmt.Sprintf("no policy here can name the asked %s. Each that %s is let through", strings.Join(list, ", "), what))
	}
	return strings.Join(texts, "; ")
}

// exceptions are what keeps every DENY rule from matching. One that may match by what is not known of the request stays as it is, unless no other denies.
func (v *wish) exceptions() (all []Change) {
	deny := &v.point.deny
	for i := range deny.rules {
		if r := &deny.rules[i]; r.eval(&v.view) == yes {
			all = append(all, v.exception(r)...)
		}
	}
	if len(all) > 0 || !v.admitted() {
		return all
	}
	for i := range deny.rules { // several of them deny it together
		if r := &deny.rules[i]; r.eval(&v.view) == maybe {
			all = append(all, v.exception(r)...)
		}
	}
	return all
}

// exception keeps one DENY rule from matching.
func (v *wish) exception(r *rule) (places []Change) {
	if r.provider != "" {
		return []Change{{Policy: r.policy, Advice: noProvider(r.policy)}}
	}
	who := principalOf(v.source.list[0])
	open := false // an alternative without conditions, which takes every source
	for _, c := range r.clauses {
		for _, a := range c {
			open = open || len(a) == 0
			if at, ok := sourceOf(a); ok && a.eval(&v.view) != no {
				places = append(places, Change{Policy: r.policy, Field: at + "notPrincipals", Value: who})
			}
		}
	}
	if open || len(places) == 0 {
		places = []Change{{Policy: r.policy, Field: fmt.Sprintf("rules[%d].from[].source.notPrincipals", r.index), Value: who}}
	}
	if len(v.dumb) > 0 || !v.within(r, "") {
		places[0].Careful = fmt.Sprintf("rules[%d] of %v then denies %s nothing at all, not this request alone", r.index, r.policy, who)
	}
	return places
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

// admitted says whether ALLOW rules let it through, for sure or perhaps, where there are any.
func (v *wish) admitted() bool {
	return len(v.point.allow.policies) == 0 || v.point.allow.eval(&v.view).matches != no
}

// admission is what makes the nearest ALLOW rule match; nil when one does or may, or none is asked for.
func (v *wish) admission() (best []Change) {
	if v.admitted() {
		return nil
	}
	allow := &v.point.allow
	for i := range allow.rules {
		r := &allow.rules[i]
		lacks, ok := v.lacks(r)
		if ok && len(lacks) == 1 && v.forItAlone(lacks[0]) && v.within(r, lacks[0].Field) {
			lacks[0].Careful = v.wide(fmt.Sprintf("rules[%d] of %v takes", r.index, r.policy))
			return lacks
		}
		if ok && (best == nil || len(lacks) < len(best)) {
			best = lacks
		}
	}
	own := Change{Policy: allow.policies[0], Field: fieldRules, Value: principalOf(v.source.list[0]), To: v.to, Careful: v.wide("this rule takes")}
	if own.To == (To{}) {
		own.Careful = "the rule lets through every request of " + own.Value
	}
	if len(best) == 1 {
		own.Policy, own.Near, own.NearValue = best[0].Policy, best[0].Field, best[0].Value
	}
	// Several fields of somebody's rule say more than a rule of its own does, and what others are named for too would be open to these.
	return []Change{own}
}

// within says whether a rule, with the asked value in a field of it, takes no other requests than what was asked about, as far as fields can say it.
func (v *wish) within(r *rule, field string) bool {
	to := v.to
	if !v.r.PortAsked {
		to.Ports = "" // a Service has what ports it has
	}
	for _, f := range to.fields() {
		if strings.HasSuffix(field, ".operation."+f.name) {
			continue
		}
		names := func(c cond) bool {
			return !c.not && strings.HasSuffix(c.field, ".operation."+f.name) && c.only(f.value)
		}
		if !slices.ContainsFunc(r.clauses, func(c clause) bool {
			mine := slices.IndexFunc(c, func(a alternative) bool { return slices.ContainsFunc(a, func(c cond) bool { return c.field == field }) })
			if mine >= 0 {
				c = c[mine : mine+1] // the others take no more than before
			}
			return len(c) > 0 && !slices.ContainsFunc(c, func(a alternative) bool { return !slices.ContainsFunc(a, names) })
		}) {
			return false
		}
	}
	return true
}

// only says whether a field of an operation lists one value, and nothing else.
func (c *cond) only(value string) bool {
	switch c.kind {
	case destPort:
		return !slices.ContainsFunc(c.ports, func(p uint16) bool { return strconv.Itoa(int(p)) != value })
	case atZtunnel:
		return len(c.l4.DestinationPorts) > 0 && !slices.ContainsFunc(c.l4.DestinationPorts, func(p uint16) bool { return strconv.Itoa(int(p)) != value })
	case method, path, host:
		return len(c.templates) == 0 && !slices.ContainsFunc(c.texts, func(p pattern) bool {
			return p.unreadable || p.odd != nil || p.re != nil || p.contains || p.Kind != authz.Exact || !strings.EqualFold(p.Value, value) || c.kind != host && p.Value != value
		})
	}
	return false
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

// lacks are the fewest values that make a rule match, or perhaps, by what is not known of the request.
func (v *view) lacks(r *rule) (all []Change, ok bool) {
	for _, c := range r.clauses {
		if v.holds(c.eval(v), c...) {
			continue
		}
		var best []Change
		for _, a := range c {
			var lacks []Change
			for i := range a {
				if v.holds(a[i].eval(v), alternative{a[i]}) {
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

// holds says whether alternatives hold, or may by what was not asked about. What nobody understands may as well never hold.
func (v *view) holds(t tri, all ...alternative) bool {
	return t == yes || t == maybe && !slices.ContainsFunc(all, func(a alternative) bool {
		return slices.ContainsFunc(a, func(c cond) bool { return c.eval(v) == maybe && c.attr&OnUnreadable != 0 })
	})
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
