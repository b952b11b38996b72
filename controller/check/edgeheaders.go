package check

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	securityapi "istio.io/api/security/v1beta1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge/rules"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

func edgeHeaderChecks() []Check {
	worse, degrades := v1alpha1.SeverityError, v1alpha1.SeverityWarning
	return []Check{
		{
			Code: "ISM510", Title: "a header that the edge writes is forged from outside", Severities: []v1alpha1.Severity{worse, degrades},
			Pains:  []string{"B15", "EH02"},
			Matter: "A policy at the waypoint trusts a header that a gateway writes on one route, and another route of that gateway lets a client's own pass.",
			Harm:   "Anybody outside gets in under the gateway's identity by sending the header.",
			Fix:    "Take the header away at the gateway itself, before it writes it.",
			Find:   findForgedOutside,
		},
		{
			Code: "ISM511", Title: "a header that the edge writes is forged from inside", Severities: []v1alpha1.Severity{worse, degrades},
			Pains:  []string{"B15", "EH01"},
			Matter: "A policy at the waypoint trusts a header that a gateway writes, whoever sends it.",
			Harm:   "Every workload of the mesh gets in by sending the header.",
			Fix:    "Name the gateway's principal in the same rule.",
			Find:   findForgedInside,
		},
		{
			Code: "ISM512", Title: "the mesh trusts a header of an authorizer that may be passed by", Severities: []v1alpha1.Severity{degrades},
			Pains:  []string{"B15", "EH03"},
			Matter: "An external authorizer of a gateway fails open, and a policy at the waypoint trusts a header of its answer.",
			Harm:   "While the authorizer is down, what clients send under that name is trusted.",
			Fix:    "Let it fail closed, or take the header away at the gateway first.",
			Find:   findFailOpenHeaders,
		},
		{
			Code: "ISM513", Title: "a header is written at both hops", Severities: []v1alpha1.Severity{degrades},
			Pains:  []string{"A12", "EH04"},
			Matter: "A gateway and what stands at the waypoint write the same header.",
			Harm:   "It arrives twice, or without the gateway's value, and policies that compare it do not match.",
			Fix:    "Let one hop write it.",
			Find:   findTwiceWritten,
		},
		{
			Code: "ISM514", Title: "a client's X-Forwarded-Client-Cert comes through", Severities: []v1alpha1.Severity{worse, degrades, v1alpha1.SeverityInfo},
			Pains:  []string{"B15", "EH05"},
			Matter: "A gateway passes on X-Forwarded-Client-Cert as clients send it.",
			Harm:   "Whoever trusts that header, a policy or an application, takes anybody for the one that is named in it.",
			Fix:    "Let the gateway remove or replace it.",
			Find:   findPassedCertificates,
		},
	}
}

func findForgedOutside(w *World, found func(Finding)) {
	for t := range w.trips() {
		m := t.mesh(w)
		if m == nil {
			continue
		}
		for _, h := range m.trusts() {
			by, written := t.edge.writes[h.header]
			if !written || t.passes(h.header) != rules.Yes {
				continue
			}
			verdict := policy.Deny
			for _, r := range t.requests(w, m) {
				r.Headers = map[string]policy.Values[policy.Header]{h.header: policy.Of(policy.Header{h.value})}
				switch d := m.point.Decide(&r); {
				case d.Verdict == policy.Allow:
					verdict = policy.Allow
				case d.Verdict == policy.Depends && verdict == policy.Deny:
					verdict = policy.Depends
				}
			}
			if verdict == policy.Deny {
				continue
			}
			f := Finding{
				Object: ruleObject(t.route), Field: "spec." + t.section,
				Related: []Object{decidingObject(h.policy), ruleObject(by.rule.Object), t.edge.object()},
			}
			f.Message = fmt.Sprintf("%s trusts header %s, which %s writes on %s; here it comes through as the client sends it: anybody outside gets to %s by "+
				"sending %s: %s, under the gateway's identity", decidingObject(h.policy), h.header, ruleObject(by.rule.Object), by.trip.where(),
				ServiceObject(m.service), h.header, h.value)
			t.severity(w, &f, false)
			if verdict != policy.Allow {
				f.Severity = v1alpha1.SeverityWarning
			}
			f.Fix, f.Patch = t.strip(w, h.header)
			found(f)
		}
	}
}

// strip is how a kind of gateways takes a header away before everything else.
func (t *trip) strip(w *World, header string) (fix, patch string) {
	key := t.edge.View.Key
	fix = fmt.Sprintf("take %s away at %s itself, before any route", header, t.edge.View.String())
	name := key.Name + "-strip-" + strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '-'
	}, header)
	target := fmt.Sprintf("  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: %s}]\n", key.Name)
	switch t.edge.View.Vendor.Name {
	case "kgateway":
		kind := schema.GroupKind{Group: "gateway.kgateway.dev", Kind: "ListenerPolicy"}
		if is := w.already(kind, key.Namespace, "Gateway", key.Name); is != "" || !plain(header) {
			return fix + ", by earlyRequestHeaderModifier of " + cmp.Or(is, "a ListenerPolicy"), ""
		}
		return fix + ", by a ListenerPolicy", fmt.Sprintf("apiVersion: gateway.kgateway.dev/v1alpha1\nkind: ListenerPolicy\n"+
			"metadata: {name: %s, namespace: %s}\nspec:\n%s"+
			"  default: {httpSettings: {earlyRequestHeaderModifier: {remove: [%s]}}}\n", name, key.Namespace, target, header)
	case "envoy-gateway":
		fix += ", by headers.earlyRequestHeaders of a ClientTrafficPolicy"
		if slices.ContainsFunc(t.edge.Rules.Rules, func(r rules.Rule) bool { return r.Object.Kind == "ClientTrafficPolicy" }) {
			return fix + ": there is one already", "" // a second one would not count
		}
		return fix, fmt.Sprintf("apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: ClientTrafficPolicy\nmetadata: {name: %s, namespace: %s}\nspec:\n%s"+
			"  headers: {earlyRequestHeaders: {remove: [%s]}}\n", name, key.Namespace, target, header)
	case "traefik":
		return fix + ", by a headers middleware on its entrypoint", ""
	}
	if t.route.Kind == "HTTPRoute" {
		return fix + ", or in this rule by a RequestHeaderModifier filter that removes it", ""
	}
	return fix, ""
}

func findForgedInside(w *World, found func(Finding)) {
	for t := range w.trips() {
		m := t.mesh(w)
		if m == nil {
			continue
		}
		for _, h := range m.trusts() {
			by, written := t.edge.writes[h.header]
			if !written || pinned(h.rule) {
				continue
			}
			r := policy.Request{
				Source: policy.Of(w.stranger()), Protocol: policy.Of(policy.HTTP), ServicePort: policy.Of(uint16(t.port)),
				Token:   policy.Absent[policy.Token](),
				Headers: map[string]policy.Values[policy.Header]{h.header: policy.Of(policy.Header{h.value})},
			}
			fill(&r, h.rule)
			d := m.point.Decide(&r)
			if d.Verdict == policy.Deny || !m.there {
				continue
			}
			f := Finding{Object: decidingObject(h.policy), Field: h.field, Related: []Object{ruleObject(by.rule.Object), ServiceObject(m.service)}}
			f.Message = fmt.Sprintf("it trusts header %s, which %s writes, and does not say that %s must send it: "+
				"every workload of the mesh gets to %s by sending %s: %s", h.header, ruleObject(by.rule.Object), t.edge.View.String(),
				ServiceObject(m.service), h.header, h.value)
			if d.Verdict != policy.Allow || w.Paper {
				f.Severity = v1alpha1.SeverityWarning
			}
			f.Fix = "name the gateway's principal in the same rule"
			if ids := t.edge.View.Identities; len(ids) == 1 {
				who := strings.TrimPrefix(ids[0], "spiffe://")
				f.Fix += ": " + who
				if len(h.rule.GetFrom()) == 0 && plain(who) {
					f.Patch = fmt.Sprintf(`kubectl patch authorizationpolicies.security.istio.io -n %s %s --type=json -p '[{"op":"add","path":"/%s/from","value":`+
						`[{"source":{"principals":["%s"]}}]}]'`, h.policy.Namespace, h.policy.Name, strings.NewReplacer(".", "/", "[", "/", "]", "").Replace(h.at), who)
				}
			}
			found(f)
		}
	}
}

// fill makes a request one that the operations of a rule fit, as far as they say it in plain words.
func fill(r *policy.Request, rule *securityapi.Rule) {
	if len(rule.GetTo()) == 0 {
		return
	}
	op := rule.GetTo()[0].GetOperation()
	if list := op.GetMethods(); len(list) > 0 {
		r.Method = policy.Of(fitting(list[0]))
	}
	if list := op.GetHosts(); len(list) > 0 {
		r.Host = policy.Of(fitting(list[0]))
	}
	if list := op.GetPaths(); len(list) > 0 && !strings.Contains(list[0], "{") {
		r.Path = policy.Of("/" + strings.TrimPrefix(fitting(list[0]), "/"))
	}
}
