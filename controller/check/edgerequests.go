package check

import (
	"fmt"
	"slices"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge/rules"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

func edgeRequestChecks() []Check {
	worse, degrades := v1alpha1.SeverityError, v1alpha1.SeverityWarning
	return []Check{
		{
			Code: "ISM520", Title: "the edge rewrites the host that the mesh compares", Severities: []v1alpha1.Severity{worse, degrades},
			Pains:  []string{"B15", "ER01"},
			Matter: "A gateway puts another host into requests, and policies at the waypoint compare the one that clients send.",
			Harm:   "An ALLOW refuses these requests, a DENY lets them in.",
			Fix:    "Name the host that comes out of the gateway.",
			Find:   findRewrittenHosts,
		},
		{
			Code: "ISM521", Title: "the edge rewrites the path that the mesh compares", Severities: []v1alpha1.Severity{worse, degrades},
			Pains:  []string{"B15", "ER02"},
			Matter: "A gateway changes paths, and policies at the waypoint compare those that clients send.",
			Harm:   "An ALLOW refuses these requests, a DENY lets them in.",
			Fix:    "Name the path that comes out of the gateway.",
			Find:   findRewrittenPaths,
		},
		{
			Code: "ISM522", Title: "the mesh refuses what browsers ask first", Severities: []v1alpha1.Severity{v1alpha1.SeverityInfo},
			Pains: []string{"B15", "ER03"},
			Matter: "Policies at the waypoint ask every request for a token, and a gateway does not answer browsers' preflight requests, which have none, " +
				"as it does elsewhere for the same host.",
			Harm: "Browsers on other sites cannot call the route.",
			Fix:  "Let the gateway answer CORS, or exempt OPTIONS in the policy.",
			Find: findDeadPreflights,
		},
		{
			Code: "ISM523", Title: "a route of the edge leads to what the mesh refuses", Severities: []v1alpha1.Severity{worse, degrades},
			Pains: []string{"B5", "B15", "ER07"},
			Matter: "A rule of a route takes requests all of which policies at the waypoint refuse, as its host, path or method is not among those " +
				"that they admit for the gateway.",
			Harm: "Every request by that rule is answered with 403.",
			Fix:  "Admit them for the gateway, or take the rule away.",
			Find: findRefusedRoutes,
		},
		{
			Code: "ISM524", Title: "who calls is asked at the edge alone", Severities: []v1alpha1.Severity{degrades, v1alpha1.SeverityInfo},
			Pains: []string{"B15", "EJ05", "ER07"},
			Matter: "A gateway asks who calls, and no policy of the mesh does: the Service is reached by another gateway that asks nothing, " +
				"or by everybody in the mesh.",
			Harm: "Who goes another way is not asked.",
			Fix:  "Have a policy at the waypoint admit the gateway alone, or ask for the token there too.",
			Find: findEdgeOnly,
		},
	}
}

func findRewrittenHosts(w *World, found func(Finding)) {
	rewritten(w, found, hostBefore, (*trip).hostRewrites, "host")
}

func findRewrittenPaths(w *World, found func(Finding)) {
	rewritten(w, found, pathBefore, (*trip).pathRewrites, "path")
}

// rewritten finds requests of which policies decide otherwise than of those that came to the gateway.
func rewritten(w *World, found func(Finding), before stage, by func(*trip) []*rules.Rule, what string) {
	for t := range w.trips() {
		m := t.mesh(w)
		if m == nil || len(m.policies) == 0 || t.open {
			continue
		}
		list := by(t)
		if len(list) != 1 {
			continue
		}
		was, is := t.requests(w, m, before), t.requests(w, m)
		for i := range is {
			a, b := m.point.Decide(&was[i]), m.point.Decide(&is[i])
			f := Finding{Object: m.deciding(b), Field: "spec.rules", Related: []Object{ruleObject(list[0].Object), ruleObject(t.route), ServiceObject(m.service)}}
			out := t.comesOut(list[0].Rewrite, what, i)
			switch {
			case a.Verdict != policy.Deny && b.Verdict == policy.Deny && b.Reason != policy.NoIdentity:
				f.Message = fmt.Sprintf("%s rewrites the %s to %s, which it does not admit: requests by %s are answered with 403, "+
					"and would not be with the one that clients send", t.edge.View.String(), what, out, t.where())
				f.Fix = fmt.Sprintf("name %s %s here too, or leave the %s as it is", what, out, what)
			case a.Verdict == policy.Deny && a.Reason == policy.Denied && b.Verdict == policy.Allow:
				f.Object = m.deciding(a)
				f.Message = fmt.Sprintf("it denies the %s of %s, and %s rewrites that to %s: they get in", what, t.where(), t.edge.View.String(), out)
				f.Fix = fmt.Sprintf("deny %s %s", what, out)
			default:
				continue
			}
			t.severity(w, &f, b.Reason == policy.Denied)
			if list[0].Rewrite.BackendHost {
				f.Severity = v1alpha1.SeverityWarning
			}
			found(f)
		}
	}
}

// comesOut is what a host or path becomes.
func (t *trip) comesOut(r *rules.Rewrite, what string, match int) string {
	switch {
	case what == "host" && r.BackendHost:
		return serviceNames(t)[3] + " or as it calls its backend otherwise"
	case what == "host":
		return r.Host
	}
	switch c := pathAfter(t.matches[match].paths, r); c.kind {
	case oneText:
		return c.text
	case segments:
		return c.text + "/*"
	}
	return "another"
}

func findDeadPreflights(w *World, found func(Finding)) {
	for t := range w.trips() {
		m := t.mesh(w)
		if m == nil || t.open || len(t.having(func(r *rules.Rule) bool { return r.CORS != nil })) > 0 || !t.corsElsewhere() {
			continue
		}
		d, needs := t.asksToken(w, m)
		if !needs {
			continue
		}
		refused := true
		for _, r := range t.requests(w, m) {
			r.Method, r.Token = policy.Of("OPTIONS"), policy.Absent[policy.Token]()
			r.Headers = map[string]policy.Values[policy.Header]{
				"origin": policy.Of(policy.Header{"https://site.example"}), "access-control-request-method": policy.Of(policy.Header{"GET"}),
			}
			refused = refused && m.point.Decide(&r).Verdict == policy.Deny
		}
		if refused {
			found(Finding{
				Object: ruleObject(t.route), Field: "spec." + t.section, Related: []Object{m.deciding(d), ServiceObject(m.service)},
				Message: fmt.Sprintf("%s does not answer CORS here, as it does for other routes of the host, and %s refuses OPTIONS without a token: "+
					"browsers on other sites cannot call it", t.edge.View.String(), m.deciding(d)),
				Fix: "let the gateway answer CORS here too, or admit OPTIONS in the policy",
			})
		}
	}
}

// corsElsewhere says whether the gateway answers CORS for the same host on another way.
func (t *trip) corsElsewhere() bool {
	return slices.ContainsFunc(t.hosts, func(h string) bool { return t.edge.cors[h] })
}

// corsHosts are the hosts for which a gateway answers CORS somewhere.
func (e *Edge) corsHosts() map[string]bool {
	hosts := map[string]bool{}
	for i := range e.trips {
		if slices.ContainsFunc(e.trips[i].rules, func(r *rules.Rule) bool { return r.CORS != nil }) {
			for _, h := range e.trips[i].hosts {
				hosts[h] = true
			}
		}
	}
	return hosts
}

func findRefusedRoutes(w *World, found func(Finding)) {
	for t := range w.trips() {
		m := t.mesh(w)
		if m == nil || len(m.policies) == 0 || t.open {
			continue
		}
		anything := policy.Request{Source: policy.Of(t.identities(w, m)...), Protocol: policy.Of(policy.HTTP), ServicePort: policy.Of(uint16(t.port))}
		if m.point.Decide(&anything).Verdict == policy.Deny { // it is refused whatever it sends, which is told elsewhere
			continue
		}
		was := t.requests(w, m, hostBefore, pathBefore)
		for i, r := range t.requests(w, m) {
			d := m.point.Decide(&r)
			if d.Verdict != policy.Deny || d.Reason != policy.Denied && d.Reason != policy.NotAllowed {
				continue
			}
			if m.point.Decide(&was[i]).Verdict != policy.Deny { // a rewrite has it so, which is told elsewhere
				continue
			}
			f := Finding{Object: ruleObject(t.route), Field: "spec." + t.section, Related: []Object{m.deciding(d), ServiceObject(m.service)}}
			f.Message = fmt.Sprintf("%s sends %s to %s, and the policies there refuse all of that: %s", t.edge.View.String(), t.takes(i), ServiceObject(m.service), d)
			t.severity(w, &f, d.Reason == policy.Denied)
			f.Fix = "admit it for the gateway's principal in " + m.deciding(d).String() + ", or take this rule from the route"
			found(f)
		}
	}
}

// takes is what a match of a trip takes, for messages.
func (t *trip) takes(i int) string {
	match := t.matches[i]
	s := match.method
	if s == "" {
		s = "requests"
	}
	switch match.paths.kind {
	case oneText:
		s += " for " + match.paths.text
	case segments:
		s += " for " + match.paths.text + "/*"
	}
	if len(t.hosts) > 0 {
		s += " of " + commas(t.hosts)
	}
	return s
}

func findEdgeOnly(w *World, found func(Finding)) {
	ways := w.waysPast(asks)
	for t := range w.trips() {
		i := slices.IndexFunc(t.rules, func(r *rules.Rule) bool {
			return len(r.Unknown) == 0 && r.IPs == nil && asks(r) && (r.JWT == nil || r.JWT.Mode == rules.Strict)
		})
		if i < 0 || w.guarded(t) {
			continue
		}
		by, s := t.rules[i], ServiceObject(w.Service(t.service))
		f := Finding{Object: ruleObject(by.Object), Field: by.Field, Related: []Object{ruleObject(t.route)}, Severity: v1alpha1.SeverityInfo}
		f.Message = fmt.Sprintf("%s asks who calls, and nothing in the mesh does: every workload gets to %s without", t.edge.View.String(), s)
		for _, other := range ways[t.service] {
			if other.edge != t.edge {
				f.Severity, f.Related = v1alpha1.SeverityWarning, append(f.Related, ruleObject(other.route))
				f.Message = fmt.Sprintf("%s asks who calls, and %s, which leads to %s too, does not; nor does anything in the mesh",
					t.edge.View.String(), other.edge.View.String(), s)
				break
			}
		}
		f.Fix = fmt.Sprintf("have a policy at the waypoint of %s admit %s alone, or ask for the token there too", s, t.edge.View.String())
		found(f)
	}
}
