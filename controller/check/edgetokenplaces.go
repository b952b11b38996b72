package check

import (
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge/rules"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// trips are all ways through all gateways.
func (w *World) trips() iter.Seq[*trip] {
	return func(yield func(*trip) bool) {
		edges := w.EdgeRules()
		for i := range edges {
			for j := range edges[i].trips {
				if !yield(&edges[i].trips[j]) {
					return
				}
			}
		}
	}
}

// providers are those whose tokens are taken on a trip, and the rules that they are of, as far as these are understood.
func (t *trip) providers() iter.Seq2[*rules.Provider, *rules.Rule] {
	return func(yield func(*rules.Provider, *rules.Rule) bool) {
		for _, r := range t.rules {
			if r.JWT == nil || len(r.Unknown) > 0 {
				continue
			}
			for i := range r.JWT.Providers {
				if !yield(&r.JWT.Providers[i], r) {
					return
				}
			}
		}
	}
}

func findOtherAudiences(w *World, found func(Finding)) {
	for t := range w.trips() {
		m := t.mesh(w)
		if m == nil {
			continue
		}
		if forwards, _ := t.forwards(); forwards != rules.Yes {
			continue
		}
		for p, by := range t.providers() {
			r := m.rule(p.Issuer)
			if r == nil || !bearer(p) {
				continue
			}
			f := Finding{
				Object: tokenObject(r.at), Field: r.field + ".audiences", Related: []Object{ruleObject(by.Object), ruleObject(t.route)},
				Severity: v1alpha1.SeverityInfo,
			}
			names := func(list []string) string { return strings.Join(list, ", ") }
			common := slices.ContainsFunc(p.Audiences, func(a string) bool { return slices.Contains(r.audiences, a) })
			switch {
			case len(p.Audiences) > 0 && len(r.audiences) > 0 && !common:
				f.Severity = v1alpha1.SeverityWarning
				f.Message = fmt.Sprintf("%s takes tokens of %s for audience %s, and this one for %s: a token for one of them alone is refused with 403",
					t.edge.View.String(), p.Issuer, names(p.Audiences), names(r.audiences))
				f.Fix = "ask for the same audiences at both hops"
			case len(p.Audiences) == 0 && len(r.audiences) > 0:
				f.Object, f.Field, f.Related = ruleObject(by.Object), by.Field, []Object{tokenObject(r.at), ruleObject(t.route)}
				f.Message = fmt.Sprintf("%s takes tokens of %s for any audience, and the waypoint of %s only those for %s: others pass the gateway and get 403 behind it",
					t.edge.View.String(), p.Issuer, ServiceObject(m.service), names(r.audiences))
				f.Fix = "ask for audience " + names(r.audiences) + " at the gateway too"
			case len(p.Audiences) > 0 && len(r.audiences) == 0:
				f.Message = fmt.Sprintf("%s takes tokens of %s for %s alone, and this one takes any audience: inside the mesh, tokens for another API pass",
					t.edge.View.String(), p.Issuer, names(p.Audiences))
				f.Fix = "ask for audience " + names(p.Audiences) + " here too"
			default:
				continue
			}
			found(f)
		}
	}
}

func findDeadAnonymous(w *World, found func(Finding)) {
	for t := range w.trips() {
		m := t.mesh(w)
		if m == nil {
			continue
		}
		i := slices.IndexFunc(t.rules, func(r *rules.Rule) bool {
			return r.JWT != nil && len(r.Unknown) == 0 && (r.JWT.Mode == rules.Optional || r.JWT.Mode == rules.Permissive)
		})
		if i < 0 || slices.ContainsFunc(t.rules, func(r *rules.Rule) bool { return r.Login != nil }) {
			continue
		}
		if forwards, _ := t.forwards(); forwards != rules.Yes { // else nobody gets in, which is told elsewhere
			continue
		}
		d, asks := t.asksToken(w, m)
		if !asks {
			continue
		}
		by := t.rules[i]
		found(Finding{
			Object: ruleObject(by.Object), Field: by.Field, Related: []Object{m.deciding(d), ruleObject(t.route), ServiceObject(m.service)},
			Message: fmt.Sprintf("%s lets requests without a token pass, and %s refuses every one of them at the waypoint of %s",
				t.edge.View.String(), m.deciding(d), ServiceObject(m.service)),
			Fix: "ask for a token at the gateway too, so that it says 401 and not 403; or let the policy admit anonymous requests of the gateway",
		})
	}
}

func findElsewhereTokens(w *World, found func(Finding)) {
	for t := range w.trips() {
		m := t.mesh(w)
		if m == nil {
			continue
		}
		if forwards, _ := t.forwards(); forwards != rules.Yes {
			continue
		}
		for p, by := range t.providers() {
			r := m.rule(p.Issuer)
			if r == nil || len(p.Locations) == 0 {
				continue
			}
			var missed []string
			for _, l := range p.Locations {
				if name := r.misses(l); name != "" {
					missed = append(missed, name)
				}
			}
			d, asks := t.asksToken(w, m)
			if len(missed) < len(p.Locations) || !asks {
				continue
			}
			f := Finding{Object: tokenObject(r.at), Field: r.field, Related: []Object{ruleObject(by.Object), m.deciding(d), ruleObject(t.route)}}
			f.Message = fmt.Sprintf("%s takes tokens of %s from %s alone, and the waypoint of %s does not look there: %s refuses these requests with 403",
				t.edge.View.String(), p.Issuer, strings.Join(missed, " and "), ServiceObject(m.service), m.deciding(d))
			t.severity(w, &f, d.Reason == policy.Denied)
			f.Fix = "name that place here, in fromHeaders, fromParams or fromCookies"
			found(f)
		}
	}
}

// misses names a place of tokens in which the rule does not look, or nothing.
func (r *jwtRule) misses(l rules.Location) string {
	switch {
	case l.Header != "" && !slices.Contains(r.headers, fold(l.Header)+" "+strings.TrimSpace(l.Prefix)):
		return "header " + l.Header
	case l.Query != "" && !slices.Contains(r.params, l.Query):
		return "parameter " + l.Query
	case l.Cookie != "" && !slices.Contains(r.jars, l.Cookie):
		return "cookie " + l.Cookie
	}
	return ""
}

func findUnreachableKeys(w *World, found func(Finding)) {
	strict := map[types.NamespacedName]policy.Ref{}
	for t := range w.trips() {
		if w.inside(t.edge.View) != rules.No {
			continue
		}
		for p, by := range t.providers() {
			to := p.Keys.Backend
			s := w.Service(types.NamespacedName{Namespace: to.Namespace, Name: to.Name})
			if to.Kind != "Service" || s == nil {
				continue
			}
			key := types.NamespacedName{Namespace: s.Namespace, Name: s.Name}
			if _, done := strict[key]; !done {
				strict[key] = w.refusesPlaintext(key)
			}
			refuses := strict[key]
			if refuses.IsZero() {
				continue
			}
			found(Finding{
				Object: ruleObject(by.Object), Field: by.Field,
				Related: []Object{{"security.istio.io", "PeerAuthentication", types.NamespacedName{Namespace: refuses.Namespace, Name: refuses.Name}}, ServiceObject(s)},
				Message: fmt.Sprintf("%s is outside the mesh and fetches the keys of %s from %s, whose pods take no plaintext by %v: "+
					"it cannot check tokens, and refuses them", t.edge.View.String(), p.Issuer, ServiceObject(s), refuses),
				Fix: "bring the gateway into the mesh, or have it fetch the keys from outside the cluster",
			})
		}
	}
}

// refusesPlaintext is the PeerAuthentication by which every pod of a Service takes no plaintext. Zero: one does, or there are none.
func (w *World) refusesPlaintext(key types.NamespacedName) policy.Ref {
	s := w.Service(key)
	var by policy.Ref
	for _, p := range w.PodsOf(s) {
		if !w.InMesh(p) {
			return policy.Ref{}
		}
		d := w.Evaluator().Ztunnel(policy.Workload{Namespace: p.Namespace, Labels: p.Labels}).Decide(&policy.Request{Source: policy.Absent[spiffeid.ID]()})
		if d.Verdict != policy.Deny || d.Reason != policy.Plaintext {
			return policy.Ref{}
		}
		by = d.Policy
	}
	return by
}
