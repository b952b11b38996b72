package plan

import (
	"slices"

	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// narrowed are the twins of a pairing that stands and cannot be had as things are now: what the pods do not allow any more ends at the waypoint, and what they
// deny is denied there. Nobody is let in for whom that is not sure: a rule that allows, and cannot be had at a waypoint, is left out, one that denies loses
// what a waypoint does not see as the pods do, and denies more. One that would deny everybody is left out, as it always has been behind a waypoint.
func (m *maker) narrowed(b *backend, at []*policy.Point) (list []*securityv1.AuthorizationPolicy) {
	t := m.twinsFor(b)
	t.lenient = true
	var deny, allow []*securityapi.Rule
	lists := false
	for _, point := range at {
		var its []*securityapi.Rule
		stands := false
		for _, p := range m.policiesAt(point) {
			more, _ := t.rules(p) // nothing keeps it from that
			if p.Spec.GetAction() == securityapi.AuthorizationPolicy_DENY {
				deny = append(deny, more...)
				continue
			}
			its, stands = append(its, more...), true
		}
		switch {
		case !stands:
		case !lists:
			allow, lists = its, true
		default: // what these pods allow too, in the same words
			allow = slices.DeleteFunc(allow, func(r *securityapi.Rule) bool { return !hasRule(its, r) })
		}
	}
	if deny = m.stood(b, distinct(deny)); len(deny) > 0 {
		list = append(list, m.atService(b, pairDeny, securityapi.AuthorizationPolicy_DENY, deny))
	}
	if allow = distinct(allow); lists {
		list = append(list, m.atService(b, pairAllow, securityapi.AuthorizationPolicy_ALLOW, allow[:min(len(allow), maxTwinRules)]))
	}
	return list
}

// stood has of rules that deny those first that stand, where one policy may not have all.
func (m *maker) stood(b *backend, rules []*securityapi.Rule) []*securityapi.Rule {
	if len(rules) <= maxTwinRules {
		return rules
	}
	var first []*securityapi.Rule
	if p := m.policyAt(m.pairKey(b, pairDeny)); p != nil {
		first = p.Spec.GetRules()
	}
	stand := func(r *securityapi.Rule) bool { return hasRule(first, r) }
	slices.SortStableFunc(rules, func(a, b *securityapi.Rule) int {
		switch x, y := stand(a), stand(b); {
		case x && !y:
			return -1
		case y && !x:
			return 1
		}
		return 0
	})
	return rules[:maxTwinRules]
}

func hasRule(list []*securityapi.Rule, r *securityapi.Rule) bool {
	return slices.ContainsFunc(list, func(o *securityapi.Rule) bool { return o.String() == r.String() })
}

// distinct are rules, each once.
func distinct(list []*securityapi.Rule) (once []*securityapi.Rule) {
	seen := map[string]bool{}
	for _, r := range list {
		if text := r.String(); !seen[text] {
			seen[text], once = true, append(once, r)
		}
	}
	return once
}

// widened is a rule that denies, without what a waypoint does not see as pods do; nil where nothing tells callers apart then.
func widened(r *securityapi.Rule) *securityapi.Rule {
	wide := &securityapi.Rule{To: r.GetTo()}
	tells := false
	for _, c := range r.GetWhen() {
		if c.GetKey() == "source.ip" || c.GetKey() == "destination.ip" {
			continue
		}
		tells = tells || c.GetKey() == "source.principal" || c.GetKey() == "source.namespace"
		wide.When = append(wide.When, c)
	}
	anybody := false // by one of its sources, as a waypoint sees them
	for _, from := range r.GetFrom() {
		s := from.GetSource().DeepCopy()
		s.IpBlocks, s.NotIpBlocks = nil, nil
		if tellsSource(s) {
			wide.From = append(wide.From, &securityapi.Rule_From{Source: s})
		} else if len(from.GetSource().GetIpBlocks())+len(from.GetSource().GetNotIpBlocks()) > 0 {
			anybody = true
		}
	}
	switch {
	case tells && anybody:
		wide.From = nil
	case !tells && len(wide.From) == 0:
		return nil
	}
	return wide
}

// tellsSource says whether a source has an identity that ztunnel knows.
func tellsSource(s *securityapi.Source) bool {
	return len(s.GetPrincipals())+len(s.GetNotPrincipals())+len(s.GetNamespaces())+len(s.GetNotNamespaces())+len(s.GetServiceAccounts())+len(s.GetNotServiceAccounts()) > 0
}

// narrowSteps add the steps of a pairing that cannot be had now, and of which something stands: they are held back by nothing, as they open nothing.
func (m *maker) narrowSteps(x *pairing) {
	for _, want := range x.narrow {
		_, role := pairedFor(want)
		s := Step{part: partPair, of: x.itself(), revokes: true, Step: v1alpha1.Step{Verb: VerbPair, Object: object("AuthorizationPolicy", keyOf(want)), State: v1alpha1.StepNext, Reason: m.pairReason(x, role) + ", as far as that can be had"}}
		m.pairStep(&s, x, want, role)
		m.add(s)
	}
}
