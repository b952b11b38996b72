package policy

// Point is an enforcement point: what it has to enforce, compiled. It is immutable, and safe for concurrent use.
type Point struct {
	// Skipped are policies that a workload lists and that istiod does not send: ztunnel enforces none of them, and hbone denies until they come.
	Skipped []Ref

	waypoint  bool
	http, tcp *engine
}

// engine decides by the policies of a point, for one protocol.
type engine struct {
	tcp                 bool
	domains             []string // names of the mesh's trust domain that are one here; none: each is itself
	normalization       Normalization
	tokens              []tokenRule
	written             []string // headers that RequestAuthentications write or take away
	custom, deny, allow ruleset
}

func (e *engine) build() {
	e.custom.build()
	e.deny.build()
	e.allow.build()
}

// Policies lists those that the point enforces, DENY and CUSTOM before ALLOW. RequestAuthentications are not among them.
func (p *Point) Policies() []Ref {
	var list []Ref
	for _, s := range []*ruleset{&p.http.custom, &p.http.deny, &p.http.allow} {
		list = append(list, s.policies...)
	}
	return list
}

// DefaultDeny reports whether an ALLOW policy applies, so that what none matches is denied.
func (p *Point) DefaultDeny() bool { return len(p.http.allow.policies) > 0 }

// Decide answers for a class of requests. It allocates nothing where no attribute has several values, and paths are in a usual form.
func (p *Point) Decide(r *Request) Decision {
	d := p.decide(r)
	if d.Verdict != Depends {
		return d
	}
	// Conditions are looked at one by one, so that what two rules have of two values is not seen yet.
	var same Decision
	for i, part := range r.apart() {
		one := p.Decide(&part)
		if one.Verdict == Depends || i > 0 && one.Verdict != same.Verdict {
			return d
		}
		if i == 0 {
			same = one
		}
	}
	if same.Verdict == Depends {
		return d
	}
	return same
}

// decide looks at one condition after the other.
func (p *Point) decide(r *Request) Decision {
	if !p.waypoint {
		return p.http.decide(&view{r: r, source: &r.Source, sourceIP: &r.SourceIP, destIP: &r.WorkloadIP, destPort: &r.WorkloadPort, point: p.http})
	}
	var absent Decision
	switch {
	case r.Source.known && len(r.Source.list) == 0:
		return decided(Deny, NoIdentity)
	case r.Source.absent || !r.Source.known:
		absent = decided(Deny, NoIdentity)
	}
	named := r.Source
	named.absent = false
	v := view{r: r, source: &named, sourceIP: &r.SourceIP, destIP: &r.ServiceIP, destPort: &r.ServicePort}
	d := p.byProtocol(&v)
	if absent.Verdict == Deny {
		d = either(d, absent, OnSource)
	}
	return d
}

// byProtocol decides by what the Service's port speaks.
func (p *Point) byProtocol(v *view) Decision {
	var mayHTTP, mayTCP = !v.r.Protocol.known, !v.r.Protocol.known
	for _, is := range v.r.Protocol.list {
		mayHTTP, mayTCP = mayHTTP || is == HTTP, mayTCP || is == TCP
	}
	if !mayTCP {
		v.point = p.http
		return p.http.decide(v)
	}
	v.point = p.tcp
	d := p.tcp.decide(v)
	if mayHTTP {
		v.point = p.http
		d = either(p.http.decide(v), d, OnProtocol)
	}
	return d
}

// decide goes through the actions in their order. What is not known yet of an earlier one is kept, until a later one makes it not matter.
func (e *engine) decide(v *view) Decision {
	var kept Decision // the first that may deny
	keep := func(d Decision) {
		if kept.Reason != Undecided {
			kept = d
			return
		}
		kept.On |= d.On
	}
	token := e.authenticate(v)
	switch token.Verdict {
	case Deny:
		return token
	case Depends:
		keep(token)
	}
	if o := e.custom.eval(v); o.matches.has(yes) {
		d := o.decision(Depends, Undecided)
		d.On |= OnExternalAuthorizer
		keep(d)
	}
	switch o := e.deny.eval(v); o.matches {
	case yes:
		return o.decision(Deny, o.denial())
	case maybe:
		keep(o.decision(Depends, Undecided))
	}
	d := decided(Allow, NoPolicy)
	if len(e.allow.policies) > 0 {
		switch o := e.allow.eval(v); o.matches {
		case yes:
			d = o.decision(Allow, Allowed)
		case no:
			d = decided(Deny, NotAllowed)
			if len(e.allow.policies) == 1 {
				d.Policy = e.allow.policies[0]
			}
			return d
		case maybe:
			keep(o.decision(Depends, Undecided))
		}
	}
	if kept.Reason == Undecided {
		return kept
	}
	return d
}

// denial is why a DENY rule denies.
func (o *outcome) denial() Reason {
	switch {
	case o.rule.policy.Kind == kindPeerAuthentication:
		return Plaintext
	case o.rule.provider != "":
		return Custom
	}
	return Denied
}

func (o *outcome) decision(v Verdict, why Reason) Decision {
	d := Decision{Verdict: v, Reason: why, Policy: o.rule.policy, Rule: o.rule.index}
	if v == Depends {
		d.On, d.Field = o.on, o.field
	}
	return d
}
