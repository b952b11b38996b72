package check

import (
	"fmt"
	"slices"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge/rules"
)

func findFailOpenHeaders(w *World, found func(Finding)) {
	for t := range w.trips() {
		m := t.mesh(w)
		if m == nil {
			continue
		}
		for _, r := range t.rules {
			if r.ExtAuth == nil || r.ExtAuth.FailOpen != rules.Yes || len(r.Unknown) > 0 {
				continue
			}
			for _, h := range m.trusts() {
				answered := func(o *rules.Rule) bool { return o.Object == r.Object && writesFrom(o, h.header, rules.FromExtAuth) }
				if !slices.ContainsFunc(t.rules, answered) || t.passes(h.header) == rules.No {
					continue
				}
				found(Finding{
					Object: ruleObject(r.Object), Field: r.Field, Related: []Object{decidingObject(h.policy), ruleObject(t.route), ServiceObject(m.service)},
					Message: fmt.Sprintf("while this authorizer does not answer, %s lets requests pass with the %s that clients send, which %s trusts",
						t.edge.View.String(), h.header, decidingObject(h.policy)),
					Fix: fmt.Sprintf("set failOpen: false, or take %s away at %s before the authorizer is asked", h.header, t.edge.View.String()),
				})
			}
		}
	}
}

func findTwiceWritten(w *World, found func(Finding)) {
	for t := range w.trips() {
		m := w.edgeWorld().mesh.side(t.service)
		if m == nil {
			continue
		}
		for _, r := range t.rules {
			if r.Headers == nil || r.Object.Name == "" {
				continue
			}
			for _, h := range r.Headers.Writes {
				if h.Name == "*" || h.From == rules.FromToken {
					continue
				}
				if by, field, what := m.writesToo(w, h); field != "" {
					found(Finding{
						Object: by, Field: field, Related: []Object{ruleObject(r.Object), ServiceObject(m.service)},
						Message: fmt.Sprintf("it writes header %s for %s, which %s of %s writes too: %s", fold(h.Name), ServiceObject(m.service), ruleObject(r.Object),
							t.edge.View.String(), what),
						Fix: "let one of them write it",
					})
				}
			}
		}
	}
}

// writesToo finds what writes a header at the waypoint that a gateway has written.
func (s *meshSide) writesToo(w *World, h rules.Header) (by Object, field, what string) {
	name := fold(h.Name)
	for _, r := range s.tokens {
		for i, j := range r.Spec.JwtRules {
			for k, o := range j.GetOutputClaimToHeaders() {
				if fold(o.GetHeader()) == name {
					return tokenObject(r), fmt.Sprintf("spec.jwtRules[%d].outputClaimToHeaders[%d]", i, k),
						"the gateway's value is lost, also where the waypoint sees no token"
				}
			}
		}
	}
	for _, route := range w.edgeWorld().mesh.routes[ServiceObject(s.service).NamespacedName] {
		for i := range route.Spec.Rules {
			for j := range route.Spec.Rules[i].Filters {
				f := route.Spec.Rules[i].Filters[j].RequestHeaderModifier
				if f == nil {
					continue
				}
				for _, add := range f.Add {
					if fold(string(add.Name)) == name {
						return gammaObject(route), fmt.Sprintf("spec.rules[%d].filters[%d]", i, j),
							"it arrives with both values, and what compares it with one of them does not match"
					}
				}
			}
		}
	}
	return Object{}, "", ""
}

func findPassedCertificates(w *World, found func(Finding)) {
	const header = "x-forwarded-client-cert"
	for t := range w.trips() {
		r := t.forwarded()
		if r == nil || r.Forwarded.ClientCert != rules.Passes && r.Forwarded.ClientCert != rules.Appends || t.passes(header) != rules.Yes {
			continue
		}
		usual := r.Object.Name == "" // nobody has asked for it, and it is as every gateway of this kind has it
		f := Finding{Object: ruleObject(r.Object), Field: r.Field, Related: []Object{ruleObject(t.route)}, Severity: v1alpha1.SeverityInfo}
		if usual {
			f.Object = t.edge.object()
		}
		f.Fix = "let the gateway remove or replace what clients send, unless only a proxy of yours that does so can reach it"
		f.Message = fmt.Sprintf("%s passes on X-Forwarded-Client-Cert as clients send it: an application that trusts it takes anybody for the one "+
			"that is named there", t.edge.View.String())
		if m := t.mesh(w); m != nil {
			for _, h := range m.trusts() {
				if h.header == header {
					f.Severity, f.Related = v1alpha1.SeverityError, append(f.Related, decidingObject(h.policy))
					f.Message = fmt.Sprintf("%s passes on X-Forwarded-Client-Cert as clients send it, and %s trusts it at the waypoint of %s: anybody outside gets in by it",
						t.edge.View.String(), decidingObject(h.policy), ServiceObject(m.service))
					t.severity(w, &f, false)
					break
				}
			}
		}
		if !usual || f.Severity != v1alpha1.SeverityInfo {
			found(f)
		}
	}
}

// forwarded is the rule about what clients say of themselves, or nil where there is none, several or one that is not understood.
func (t *trip) forwarded() *rules.Rule {
	list := t.having(func(r *rules.Rule) bool { return r.Forwarded != nil })
	if len(list) != 1 || len(list[0].Unknown) > 0 {
		return nil
	}
	return list[0]
}

// writesFrom says whether a rule writes a header with a value of an origin.
func writesFrom(r *rules.Rule, header string, from rules.Origin) bool {
	return r.Headers != nil && slices.ContainsFunc(r.Headers.Writes, func(h rules.Header) bool { return fold(h.Name) == header && h.From == from })
}
