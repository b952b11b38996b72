package check

import (
	"fmt"
	"slices"
	"strings"

	securityapi "istio.io/api/security/v1beta1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge/rules"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

func edgeLimitChecks() []Check {
	return []Check{
		{
			Code: "ISM518", Title: "a limit of requests at one gateway alone", Severities: []v1alpha1.Severity{v1alpha1.SeverityWarning, v1alpha1.SeverityInfo},
			Pains: []string{"B15"},
			Matter: "A gateway limits how many requests pass, and the Service behind it is reached by everybody in the mesh, or by whoever sends what " +
				"policies take for a sign of the gateway: a header that it writes, a client's address.",
			Harm: "Who goes another way is not counted: the Service gets more than its limit.",
			Fix:  "Have policies at the waypoint admit the gateway's principal alone, or limit there too.",
			Find: findLimitsAtOneEdge,
		},
	}
}

func findLimitsAtOneEdge(w *World, found func(Finding)) {
	ways := w.waysPast(limits)
	for t := range w.trips() {
		i := slices.IndexFunc(t.rules, func(r *rules.Rule) bool { return limits(r) && len(r.Unknown) == 0 })
		if i < 0 {
			continue
		}
		by, s := t.rules[i], ServiceObject(w.Service(t.service))
		f := Finding{Object: ruleObject(by.Object), Field: by.Field, Related: []Object{ruleObject(t.route)}, Severity: v1alpha1.SeverityInfo}
		if e := w.entry(t); e != nil {
			f.Severity, f.Related = v1alpha1.SeverityWarning, append(f.Related, e.policy)
			f.Message = fmt.Sprintf("it limits requests at %s alone: %s takes who sends %s for that gateway, and every workload of the mesh that does so gets to %s unlimited",
				t.edge.View.String(), e.policy, e.sends, s)
		} else if w.guarded(t) {
			continue
		} else {
			f.Message = fmt.Sprintf("it limits requests at %s alone: everybody in the mesh gets to %s unlimited", t.edge.View.String(), s)
		}
		for _, other := range ways[t.service] {
			if other.edge != t.edge {
				f.Related = append(f.Related, ruleObject(other.route))
				f.Message += fmt.Sprintf("; %s leads there too, and limits nothing", other.edge.View.String())
				break
			}
		}
		f.Fix = fmt.Sprintf("have policies at the waypoint of %s admit the principal of %s alone, or limit there too", s, t.edge.View.String())
		found(f)
	}
}

// limits says whether a rule limits how many requests pass.
func limits(r *rules.Rule) bool { return r.RateLimit != nil }

// entry is how a workload that no policy names passes for a gateway.
type entry struct {
	policy Object // that lets it in
	sends  string // as Header: value
}

// entry is a way by which a workload that no policy names, and that has no token, gets to the Service of a trip because it sends what policies take for a
// sign of the gateway: a header that the gateway writes, or a client's address. Nil: there is none, or nobody can tell.
func (w *World) entry(t *trip) *entry {
	m := t.mesh(w)
	if m == nil || !m.there {
		return nil
	}
	for _, p := range m.policies {
		if p.Spec.Action != securityapi.AuthorizationPolicy_ALLOW {
			continue
		}
		for _, rule := range p.Spec.Rules {
			if pinned(rule) {
				continue
			}
			r := policy.Request{
				Source: policy.Of(w.stranger()), Protocol: policy.Of(policy.HTTP), ServicePort: policy.Of(uint16(t.port)), Token: policy.Absent[policy.Token](),
				Headers: map[string]policy.Values[policy.Header]{},
			}
			fill(&r, rule)
			var sends []string
			for _, h := range m.trusts() {
				if _, written := t.edge.writes[h.header]; written && h.rule == rule {
					r.Headers[h.header] = policy.Of(policy.Header{h.value})
					sends = append(sends, h.header+": "+h.value)
				}
			}
			for _, c := range m.addresses() {
				if ip, ok := address(c.blocks[0]); ok && c.rule == rule {
					r.RemoteIP = policy.Of(ip)
					sends = append(sends, "x-forwarded-for: "+ip.String())
					break
				}
			}
			if len(sends) > 0 && m.point.Decide(&r).Verdict == policy.Allow {
				return &entry{decidingObject(p), strings.Join(sends, ", ")}
			}
		}
	}
	return nil
}
