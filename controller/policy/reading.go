package policy

import (
	"fmt"

	securityapi "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
)

// Reading is what ztunnel makes of a rule of a policy that is attached to pods.
type Reading struct {
	// Rule is its index in spec.rules.
	Rule int
	// Lost are the fields of the spec that ztunnel does not know, such as rules[0].to[0].operation.paths.
	Lost []string
	// Void: the rule is left out, or matches nothing.
	Void bool
	// Wider: it matches more than is written, as a lost field stands beside one that is kept.
	Wider bool
}

// AtZtunnel says what ztunnel makes of each rule of an ALLOW or DENY policy. Where a policy is attached is not looked at.
func AtZtunnel(p *securityv1.AuthorizationPolicy) []Reading {
	allow := p.Spec.Action == securityapi.AuthorizationPolicy_ALLOW
	var list []Reading
	for i, r := range p.Spec.Rules {
		if r == nil {
			continue
		}
		reading := Reading{Rule: i, Void: allow && OnlyHTTP(r) || empty(r)}
		lose := func(kept bool, at string, fields []lostField) {
			for _, f := range fields {
				if len(f.values) > 0 {
					reading.Lost = append(reading.Lost, at+f.name)
					reading.Wider = reading.Wider || kept && !reading.Void
				}
			}
		}
		for j, from := range r.From {
			kept := !empty(&securityapi.Rule{From: []*securityapi.Rule_From{from}})
			lose(kept, fmt.Sprintf("rules[%d].from[%d].source.", i, j), lostOfSource(from.GetSource()))
		}
		for j, to := range r.To {
			kept := !empty(&securityapi.Rule{To: []*securityapi.Rule_To{to}})
			lose(kept, fmt.Sprintf("rules[%d].to[%d].operation.", i, j), lostOfOperation(to.GetOperation()))
		}
		for j, when := range r.When {
			if OnlyHTTP(&securityapi.Rule{When: []*securityapi.Condition{when}}) {
				reading.Lost = append(reading.Lost, fmt.Sprintf("rules[%d].when[%d]", i, j))
			}
		}
		list = append(list, reading)
	}
	return list
}

// empty says whether ztunnel finds a part of a rule without conditions that it knows, which it never takes for a match.
func empty(r *securityapi.Rule) bool {
	p := &securityv1.AuthorizationPolicy{}
	p.Spec.Action, p.Spec.Rules = securityapi.AuthorizationPolicy_DENY, []*securityapi.Rule{r}
	for _, c := range l4Rules(p)[0].clauses {
		if len(c) == 0 {
			return true
		}
	}
	return false
}

// lostField is a field of which ztunnel knows nothing.
type lostField struct {
	name   string
	values []string
}

func lostOfSource(s *securityapi.Source) []lostField {
	return []lostField{
		{"trustDomains", s.GetTrustDomains()}, {"notTrustDomains", s.GetNotTrustDomains()},
		{"remoteIpBlocks", s.GetRemoteIpBlocks()}, {"notRemoteIpBlocks", s.GetNotRemoteIpBlocks()},
		{"requestPrincipals", s.GetRequestPrincipals()}, {"notRequestPrincipals", s.GetNotRequestPrincipals()},
	}
}

func lostOfOperation(op *securityapi.Operation) []lostField {
	return []lostField{
		{"hosts", op.GetHosts()}, {"notHosts", op.GetNotHosts()}, {"methods", op.GetMethods()}, {"notMethods", op.GetNotMethods()},
		{"paths", op.GetPaths()}, {"notPaths", op.GetNotPaths()},
	}
}
