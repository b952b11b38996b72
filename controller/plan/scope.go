package plan

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// conditionPrincipal is the condition by which the rules for others leave a gateway out.
const conditionPrincipal = "source.principal"

// scoped is what the twin of a list of callers becomes where a gateway is to call what its routes call, and no more.
type scoped struct {
	allow  *securityv1.AuthorizationPolicy // nil: it stays as it is
	awaits string                          // a route that the gateway has not spoken of: until it has, nothing is taken away
}

// scope finds what takes the place of the list of callers among the policies of a pairing, where its gateways may call what their routes call, of what the list
// lets in of theirs. Others are let in as before. Before the Service leads to its waypoint, and what is from before has ended, the list stays as wide as the
// pods'; where it is narrow already it follows the routes.
func (m *maker) scope(x *pairing, list []*securityv1.AuthorizationPolicy, before []*policy.Point) {
	i := slices.IndexFunc(list, func(p *securityv1.AuthorizationPolicy) bool { return p.Name == m.pairKey(x.backend, pairAllow).Name })
	if !m.Edge.Scopes() || i < 0 {
		return
	}
	stands := m.narrowAt(x.backend)
	ids, why, fix := m.callersAt(stands)
	narrow := list[i].DeepCopy()
	narrow.Spec.Rules = nil
	for _, r := range list[i].Spec.GetRules() {
		if r = without(r, ids); r != nil {
			narrow.Spec.Rules = append(narrow.Spec.Rules, r)
		}
	}
	awaits, kept := "", ""
	for _, id := range ids {
		its := m.callsBy(x.backend, id)
		awaits = cmp.Or(awaits, its.awaits)
		switch {
		case its.why == "":
		case stands != nil:
			kept = cmp.Or(kept, its.why)
		case why == "":
			why, fix = its.why, "have its routes say it otherwise, or leave spec.authorization.pair.scope at Service"
		}
		ports := m.letIn(x.backend, before, id)
		to := operations(its.list, ports)
		if stands != nil && (its.awaits != "" || its.why != "") {
			to = distinctTo(append(to, atPorts(calledOf(stands, id), ports)...))
		}
		if len(to) > 0 {
			narrow.Spec.Rules = append(narrow.Spec.Rules, ruleOf(id, to))
		}
		m.leftOpen(x, its)
	}
	if len(narrow.Spec.Rules) > maxTwinRules && why == "" {
		why, fix = fmt.Sprintf("its list of callers would have more than %d rules", maxTwinRules), "make fewer"
	}
	if why != "" {
		m.unscoped(x, v1alpha1.SeverityWarning, why, fix)
		return
	}
	if kept != "" {
		m.about(x.itself(), func() {
			m.once(v1alpha1.Finding{
				Code: v1alpha1.FindingUnscoped, Severity: v1alpha1.SeverityWarning, Object: x.String(), Fix: "mend that; or set spec.authorization.pair.scope to Service",
				Message: "what its waypoint lets in of the gateway by its routes stays as it is, and more is refused there, as it is not known what these call: " + kept,
			})
		})
	}
	m.otherwiseIn(x, ids)
	x.scoped = &scoped{awaits: awaits}
	if stands != nil || awaits == "" {
		x.scoped.allow = narrow
	}
	if stands != nil {
		list[i] = narrow
	}
}

// ruleOf lets one principal in. It says twice who that is, so that it is known from those that pods have.
func ruleOf(id string, to []*securityapi.Rule_To) *securityapi.Rule {
	return &securityapi.Rule{
		From: []*securityapi.Rule_From{{Source: &securityapi.Source{Principals: []string{id}}}}, To: to,
		When: []*securityapi.Condition{{Key: conditionPrincipal, Values: []string{id}}},
	}
}

// ruledFor is the principal of such a rule, or "".
func ruledFor(r *securityapi.Rule) string {
	from, when := r.GetFrom(), r.GetWhen()
	if len(from) != 1 || len(when) != 1 || when[0].GetKey() != conditionPrincipal || len(when[0].GetValues()) != 1 || !slices.Equal(when[0].GetValues(), from[0].GetSource().GetPrincipals()) {
		return ""
	}
	return when[0].GetValues()[0]
}

// callersAt are the gateways' principals, or why they cannot be told from others. Where a list leaves them out already that goes on, whatever came since.
func (m *maker) callersAt(stands *securityv1.AuthorizationPolicy) (ids []string, why, fix string) {
	ids, why, fix = m.principals()
	if why == "" || stands == nil {
		return ids, why, fix
	}
	ids = m.gatewayPrincipals()
	for _, r := range stands.Spec.GetRules() {
		if id := ruledFor(r); id != "" {
			ids = append(ids, id)
		}
	}
	if m.podless() != nil {
		ids = append(ids, leftOut(stands)...)
	}
	return unique(ids), "", ""
}

// podless is a gateway without pods, whose principal nobody knows for now; nil: there is none.
func (m *maker) podless() *gateway {
	for _, g := range m.gateways {
		if len(g.identities(m.trustDomain())) == 0 {
			return g
		}
	}
	return nil
}

// leftOut are the principals that a list leaves out of all its rules for others, as without does.
func leftOut(p *securityv1.AuthorizationPolicy) (ids []string) {
	for _, r := range p.Spec.GetRules() {
		when := r.GetWhen()
		switch {
		case ruledFor(r) != "":
			continue
		case len(when) == 0 || when[len(when)-1].GetKey() != conditionPrincipal || len(when[len(when)-1].GetNotValues()) == 0:
			return nil
		case ids == nil:
			ids = when[len(when)-1].GetNotValues()
		case !slices.Equal(ids, when[len(when)-1].GetNotValues()):
			return nil
		}
	}
	return ids
}

// gatewayPrincipals are who the gateways' pods are, whoever else is.
func (m *maker) gatewayPrincipals() (ids []string) {
	for _, g := range m.gateways {
		ids = append(ids, shorts(parseIDs(g.identities(m.trustDomain())))...)
	}
	return unique(ids)
}

// narrowAt is the list of callers that stands at the waypoint of a backend where it lets gateways in by what their routes call, and the Service leads to one; else nil.
func (m *maker) narrowAt(b *backend) *securityv1.AuthorizationPolicy {
	p := m.policyAt(m.pairKey(b, pairAllow))
	if p == nil || !m.made(p) || m.present(b).Name == "" {
		return nil
	}
	ids := m.gatewayPrincipals()
	if m.podless() != nil {
		ids = append(ids, leftOut(p)...)
	}
	if len(p.Spec.GetRules()) == 0 || slices.ContainsFunc(p.Spec.GetRules(), func(r *securityapi.Rule) bool {
		return ruledFor(r) != "" || slices.ContainsFunc(r.GetWhen(), func(c *securityapi.Condition) bool {
			return c.GetKey() == conditionPrincipal && slices.ContainsFunc(c.GetNotValues(), func(id string) bool { return slices.Contains(ids, id) })
		})
	}) {
		return p
	}
	return nil
}

// without is a rule that lets in whom it did but for some principals, or for none; nil where it lets in nobody else.
func without(r *securityapi.Rule, ids []string) *securityapi.Rule {
	if len(ids) == 0 {
		return r
	}
	alone := len(r.GetFrom()) > 0 && !slices.ContainsFunc(r.GetFrom(), func(f *securityapi.Rule_From) bool {
		s := f.GetSource()
		return len(s.GetPrincipals()) == 0 || slices.ContainsFunc(s.GetPrincipals(), func(id string) bool { return !slices.Contains(ids, id) })
	})
	if alone {
		return nil
	}
	r = r.DeepCopy()
	r.When = append(r.When, &securityapi.Condition{Key: conditionPrincipal, NotValues: ids})
	return r
}

// callsBy is what the routes of the gateways with a principal call of a backend.
func (m *maker) callsBy(b *backend, id string) *calls {
	all := &calls{}
	if g := m.podless(); g != nil && !slices.Contains(m.gatewayPrincipals(), id) {
		all.why = g.String() + " has no pods to tell its identity" // it may be that
	}
	for _, g := range m.gateways {
		if !slices.Contains(shorts(parseIDs(g.identities(m.trustDomain()))), id) {
			continue // another's, or one that has gone
		}
		its := m.callsOf(g, b)
		all.list, all.rest = append(all.list, its.list...), append(all.rest, its.rest...)
		all.why, all.awaits = cmp.Or(all.why, its.why), cmp.Or(all.awaits, its.awaits)
	}
	if all.list = least(all.list); len(all.list) == 0 && all.why == "" && all.awaits == "" && !m.leadsTo(b) {
		all.why = "no route says what that is"
	}
	return all
}

// leadsTo says whether a route that counts leads to a backend, of any of the gateways.
func (m *maker) leadsTo(b *backend) bool {
	return slices.ContainsFunc(m.follow(), func(f *followed) bool { return f.why == "" && f.sendsTo(b) })
}

func shorts(ids []spiffeid.ID) (list []string) {
	for _, id := range ids {
		list = append(list, short(id))
	}
	return list
}

// letIn are the ports of a backend at which its pods let a principal in.
func (m *maker) letIn(b *backend, before []*policy.Point, id string) (list []string) {
	ids := parseIDs([]string{"spiffe://" + id})
	for _, p := range m.twinsFor(b).ports {
		if len(ids) > 0 && !slices.ContainsFunc(before, func(at *policy.Point) bool { return at.Decide(p.request(policy.Of(ids...))).Verdict != policy.Allow }) {
			list = append(list, fmt.Sprint(p.service))
		}
	}
	return unique(list)
}

// calledOf is what a list of callers lets in of a principal by a rule of its own.
func calledOf(p *securityv1.AuthorizationPolicy, id string) (list []*securityapi.Rule_To) {
	if p == nil {
		return nil
	}
	for _, r := range p.Spec.GetRules() {
		if ruledFor(r) == id {
			list = append(list, r.GetTo()...)
		}
	}
	return list
}

// atPorts are operations, as far as they are at some ports.
func atPorts(list []*securityapi.Rule_To, ports []string) (all []*securityapi.Rule_To) {
	for _, to := range list {
		if both := common(to.GetOperation().GetPorts(), ports); len(both) > 0 {
			to = to.DeepCopy()
			to.Operation.Ports = both
			all = append(all, to)
		}
	}
	return all
}

func common(list, other []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(v string) bool { return !slices.Contains(other, v) })
}

func distinctTo(list []*securityapi.Rule_To) (once []*securityapi.Rule_To) {
	seen := map[string]bool{}
	for _, to := range list {
		if text := to.String(); !seen[text] {
			seen[text], once = true, append(once, to)
		}
	}
	return once
}

// followRoutes has a write of a list of callers be held as others are, where routes have the gateway let in to more: what it takes away is not.
func (m *maker) followRoutes(s *Step, want *securityv1.AuthorizationPolicy) {
	stands := m.policyAt(keyOf(want))
	if s.Write == nil || stands == nil {
		return
	}
	less := want.DeepCopy()
	less.Spec.Rules = inBoth(want, stands)
	if sameRules(want, less) {
		return // it takes away alone
	}
	if s.revokes = false; !sameRules(stands, less) {
		s.less = m.newPair(less, stands)
	}
}

// inBoth are the rules of a list of callers that another has too, and of those that are for a gateway what both let it call.
func inBoth(p, other *securityv1.AuthorizationPolicy) (list []*securityapi.Rule) {
	for _, r := range p.Spec.GetRules() {
		id := ruledFor(r)
		if id == "" {
			if slices.ContainsFunc(other.Spec.GetRules(), func(o *securityapi.Rule) bool { return o.String() == r.String() }) {
				list = append(list, r)
			}
			continue
		}
		if to := operationsInBoth(r.GetTo(), calledOf(other, id)); len(to) > 0 {
			list = append(list, ruleOf(id, to))
		}
	}
	return list
}

// operationsInBoth are those that two lists allow, as far as they say that in the same words: each path, host and method of one that the other has too.
func operationsInBoth(list, other []*securityapi.Rule_To) (both []*securityapi.Rule_To) {
	for _, to := range list {
		if slices.ContainsFunc(other, func(o *securityapi.Rule_To) bool { return o.String() == to.String() }) {
			both = append(both, to)
			continue
		}
		for _, o := range other {
			a, b := to.GetOperation(), o.GetOperation()
			ports, at := meet(a.GetPorts(), b.GetPorts())
			hosts, of := meet(a.GetHosts(), b.GetHosts())
			methods, by := meet(a.GetMethods(), b.GetMethods())
			if paths, on := meet(a.GetPaths(), b.GetPaths()); at && of && by && on {
				both = append(both, &securityapi.Rule_To{Operation: &securityapi.Operation{Ports: ports, Hosts: hosts, Methods: methods, Paths: paths}})
			}
		}
	}
	return distinctTo(both)
}

// meet are the values of both lists, of which an empty one has all; is: there are some.
func meet(list, other []string) (values []string, is bool) {
	switch {
	case len(list) == 0:
		return other, true
	case len(other) == 0:
		return list, true
	}
	values = common(list, other)
	return values, len(values) > 0
}

// scopeSteps add what takes from the gateways, last of all, what their routes do not call. From then on the list at the waypoint follows the routes.
func (m *maker) scopeSteps() {
	for _, x := range m.pairings {
		if x.stays() {
			continue
		}
		if x.scoped == nil {
			if m.Edge.Scopes() && !m.held(x.String()) && !slices.ContainsFunc(x.wanted, func(p *securityv1.AuthorizationPolicy) bool {
				return p.Spec.GetAction() == securityapi.AuthorizationPolicy_ALLOW && hasTargets(p)
			}) {
				m.unscoped(x, v1alpha1.SeverityInfo, "Pair makes no list of callers there", "set spec.authorization.pair.defaultDeny to Set, if everybody else is to be refused")
			}
			continue
		}
		key := m.pairKey(x.backend, pairAllow)
		s := Step{part: partLock, of: x.itself(), Step: v1alpha1.Step{
			Verb: VerbNarrow, Object: object("AuthorizationPolicy", key), State: v1alpha1.StepNext,
			Reason: fmt.Sprintf("have waypoint %s let in of the gateway what its routes call of %s, and no more", x.waypoint, x.backend),
		}}
		want, p := x.scoped.allow, m.policyAt(key)
		switch {
		case want == nil:
			s.watched, s.Reason = true, "the gateway has not spoken of "+x.scoped.awaits+" yet: nothing is taken from it until then"
		case p != nil && m.made(p) && sameRules(p, want) && !dryRun(p):
			m.about(x.itself(), func() { m.seenInForce(&s, x, p, pairAllow) })
		case p == nil || !m.created(p): // its own step says so
		case !slices.ContainsFunc(x.wanted, func(o *securityv1.AuthorizationPolicy) bool { return o == want }):
			s.Write = m.newPair(want, p)
		}
		if want != nil {
			s.wants = func() *Write { return m.newPair(want, nil) }
		}
		needs := []part{partEnrol, partWaypoint, partPair, partWitness, partWire, partLock}
		if lock := object("AuthorizationPolicy", m.lockKey(x.backend)); slices.ContainsFunc(m.plan.Steps, func(o Step) bool {
			return o.Verb == VerbLock && o.Object == lock && o.State == v1alpha1.StepBlocked
		}) {
			needs = needs[:len(needs)-1] // for what a lock is refused is no matter here
			if why, _ := m.notYet(); why != "" && s.Write != nil {
				s.Write, s.State, s.Reason = nil, v1alpha1.StepBlocked, why
			}
		}
		m.add(s, needs...)
	}
}

// unscoped finds a backend of which a gateway may call by its waypoint all that its pods let in.
func (m *maker) unscoped(x *pairing, severity v1alpha1.Severity, why, fix string) {
	m.about(x.itself(), func() {
		m.once(v1alpha1.Finding{
			Code: v1alpha1.FindingUnscoped, Severity: severity, Object: x.String(), Fix: fix,
			Message: "by its waypoint the gateway may call all of this Service that the pods let in, and not only what its routes call: " + why,
		})
	})
}

// leftOpen finds the parts of routes that no policy can say.
func (m *maker) leftOpen(x *pairing, its *calls) {
	for _, u := range its.rest {
		f := v1alpha1.Finding{
			Code: v1alpha1.FindingUnscoped, Severity: v1alpha1.SeverityInfo, Object: u.route, Field: u.field,
			Message: fmt.Sprintf("what a policy cannot say of this route is left open at the waypoint of %s: %s", x, u.what),
		}
		if u.whole {
			f.Severity = v1alpha1.SeverityWarning
			f.Message = fmt.Sprintf("of %s the gateway may call anything by its waypoint, on the port of this rule: no policy can say %s", x, u.what)
			f.Fix = "do without it, or give that rule a Service of its own"
		}
		if !slices.Contains(m.plan.Findings, f) {
			m.about(x.itself(), func() { m.found(f) })
		}
	}
}

// otherwiseIn finds policies that let the gateways in at the waypoint of a backend beside what is written for it: what that takes from them they have by these.
func (m *maker) otherwiseIn(x *pairing, ids []string) {
	key := m.pairKey(x.backend, pairAllow)
	for _, p := range among(m.Policies, x.key.Namespace, x.waypoint.Namespace, m.Root()) {
		if keyOf(p) == key || p.Spec.GetAction() != securityapi.AuthorizationPolicy_ALLOW || !hasTargets(p) || !m.decidesFor(p, x.backend) || dryRun(p) {
			continue
		}
		at := m.set([]*securityv1.AuthorizationPolicy{p}, x.waypoint.Namespace, x.key.Namespace).Waypoint(
			policy.Target{Kind: policy.KindGateway, Namespace: x.waypoint.Namespace, Name: x.waypoint.Name},
			policy.Target{Kind: policy.KindService, Namespace: x.key.Namespace, Name: x.key.Name})
		r := everything(x.backend)
		if r.Source = policy.Of(principalIDs(ids)...); at.Decide(r).Verdict == policy.Deny {
			continue
		}
		what := object("AuthorizationPolicy", keyOf(p))
		if !m.consents(x.key.Namespace, "", "Service") {
			what = "a policy there"
		}
		m.unscoped(x, v1alpha1.SeverityWarning, what+" lets it in there too", "have that leave the gateway's principal out")
	}
}

func principalIDs(ids []string) (list []spiffeid.ID) {
	for _, id := range ids {
		list = append(list, parseIDs([]string{"spiffe://" + id})...)
	}
	return list
}
