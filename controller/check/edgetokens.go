package check

import (
	"fmt"
	"slices"
	"strings"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge/rules"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

func edgeTokenChecks() []Check {
	worse, degrades := v1alpha1.SeverityError, v1alpha1.SeverityWarning
	return []Check{
		{
			Code: v1alpha1.FindingTokenTaken, Title: "the edge takes away the token that the mesh asks for", Severities: []v1alpha1.Severity{worse, degrades},
			Pains:  []string{"B7", "B15", "EJ01"},
			Matter: "A gateway checks tokens and does not pass them on, and policies at the waypoint ask for a token.",
			Harm:   "Every request that comes by this gateway is answered with 403.",
			Fix:    "Let the gateway forward the token, or let the policy ask for the gateway's principal instead.",
			Find:   findTakenTokens,
		},
		{
			Code: "ISM501", Title: "the edge takes issuers that the mesh does not know", Severities: []v1alpha1.Severity{worse, degrades},
			Pains:  []string{"B7", "B15", "EJ03"},
			Matter: "A gateway takes tokens of an issuer and passes them on, and the RequestAuthentications at the waypoint do not list that issuer.",
			Harm:   "Whoever sends such a token gets 401 from the waypoint, also where no policy asks for a token.",
			Fix:    "List the same issuers at both hops.",
			Find:   findForeignIssuers,
		},
		{
			Code: "ISM502", Title: "edge and mesh ask for other audiences", Severities: []v1alpha1.Severity{degrades, v1alpha1.SeverityInfo},
			Pains:  []string{"B7", "B15", "EJ04"},
			Matter: "A gateway and the RequestAuthentication at the waypoint take tokens of one issuer for different audiences.",
			Harm:   "Tokens that one hop takes are refused by the other; or tokens for another API pass inside the mesh.",
			Fix:    "Ask for the same audiences at both hops.",
			Find:   findOtherAudiences,
		},
		{
			Code: "ISM503", Title: "the edge lets anonymous requests in that the mesh refuses", Severities: []v1alpha1.Severity{degrades},
			Pains:  []string{"B7", "B15", "EJ05"},
			Matter: "A gateway lets requests without a token pass, by a rule that is written for that, and policies at the waypoint refuse them.",
			Harm:   "Anonymous requests of these routes get 403 from the waypoint.",
			Fix:    "Decide which hop owns it: ask for a token at the gateway too, or take it from the policy.",
			Find:   findDeadAnonymous,
		},
		{
			Code: "ISM504", Title: "edge and mesh look for the token in different places", Severities: []v1alpha1.Severity{worse, degrades},
			Pains:  []string{"B7", "B15", "EJ06"},
			Matter: "A gateway takes tokens from a header, parameter or cookie in which the RequestAuthentication at the waypoint does not look.",
			Harm:   "The waypoint sees no token, and policies that ask for one refuse the request.",
			Fix:    "Name the same place in fromHeaders, fromParams or fromCookies.",
			Find:   findElsewhereTokens,
		},
		{
			Code: "ISM505", Title: "the edge cannot fetch the keys of its tokens", Severities: []v1alpha1.Severity{worse},
			Pains:  []string{"B10", "EJ07"},
			Matter: "A gateway outside the mesh fetches keys from a Service whose pods take no plaintext.",
			Harm:   "It cannot check tokens, and refuses every request that brings one.",
			Fix:    "Bring the gateway into the mesh, or fetch the keys from outside.",
			Find:   findUnreachableKeys,
		},
	}
}

// token is one that a RequestAuthentication rule takes.
func tokenFor(issuer string, audiences []string) policy.Token {
	t := policy.Token{Claims: map[string]any{"iss": issuer}, Partial: true}
	if len(audiences) > 0 {
		t.Claims["aud"] = audiences[0]
	}
	return t
}

// wanted are tokens that the waypoint takes, one for each of its rules.
func (s *meshSide) wanted() []policy.Token {
	var list []policy.Token
	for _, r := range s.tokens {
		for _, j := range r.Spec.JwtRules {
			list = append(list, tokenFor(j.GetIssuer(), j.GetAudiences()))
		}
	}
	return list
}

// asksToken says whether every request of a trip is refused without a token, and may pass with one; and by which policy.
func (t *trip) asksToken(w *World, m *meshSide) (by policy.Decision, is bool) {
	if len(m.policies) == 0 || len(m.tokens) == 0 {
		return by, false
	}
	list := t.requests(w, m)
	for i := range list {
		r := &list[i]
		if !r.Method.Known() {
			r.Method = policy.Of("GET")
		}
		without, with := *r, *r
		without.Token = policy.Absent[policy.Token]()
		if by = m.point.Decide(&without); by.Verdict != policy.Deny {
			return by, false
		}
		if !slices.ContainsFunc(m.wanted(), func(token policy.Token) bool {
			with.Token = policy.Of(token)
			return m.point.Decide(&with).Verdict != policy.Deny
		}) {
			return by, false
		}
	}
	return by, true
}

// forwards says whether the token of a request comes out of the gateway, by all rules in force; by is the rule that takes it away.
func (t *trip) forwards() (is rules.Answer, by *rules.Rule) {
	is = rules.Yes
	unsure := func(r *rules.Rule) bool {
		return r.Headers != nil && slices.ContainsFunc(r.Headers.Writes, func(h rules.Header) bool {
			return (fold(h.Name) == "authorization" || h.Name == "*") && h.From != rules.FromToken
		})
	}
	for _, r := range t.rules {
		takes := rules.Yes
		switch {
		case unsure(r):
			return rules.Unsure, nil
		case r.JWT != nil:
			for i := range r.JWT.Providers {
				if f := r.JWT.Providers[i].Forwards(t.rules); i == 0 || f != takes {
					if takes = f; i > 0 {
						takes = rules.Unsure
					}
				}
			}
		case r.Login != nil && r.Login.TakesTokens == rules.No:
			takes = r.Login.Forwards
		}
		switch {
		case takes == rules.Yes:
		case len(r.Unknown) > 0 || takes == rules.Unsure:
			return rules.Unsure, nil
		default:
			is, by = rules.No, r
		}
	}
	return is, by
}

func findTakenTokens(w *World, found func(Finding)) {
	for t := range w.trips() {
		m := t.mesh(w)
		if m == nil {
			continue
		}
		forwards, by := t.forwards()
		if forwards != rules.No {
			continue
		}
		d, asks := t.asksToken(w, m)
		if !asks {
			continue
		}
		policies := m.deciding(d)
		f := Finding{Object: ruleObject(by.Object), Field: by.Field, Related: []Object{policies, ruleObject(t.route), ServiceObject(m.service)}}
		f.Message = fmt.Sprintf("%s takes the token away once it has checked it, and %s asks for one: what comes to %s by it is answered with 403",
			t.edge.View.String(), policies, ServiceObject(m.service))
		t.severity(w, &f, d.Reason == policy.Denied)
		f.Fix, f.Patch = t.forwardToken(by)
		found(f)
	}
}

// severity is that of the check if requests really come by the waypoint and all is understood, and Warning, with what is not so, otherwise. Of files it
// is Warning too, unless what is there decides whatever else may be in the cluster.
func (t *trip) severity(w *World, f *Finding, decides bool) {
	is, why := t.leads(w)
	switch {
	case is != rules.Yes:
		f.Message += fmt.Sprintf(" (%s)", why)
	case t.open:
		f.Message += fmt.Sprintf(" (not all that %s does is understood)", t.edge.View.String())
	case decides || !w.Paper:
		return
	}
	f.Severity = v1alpha1.SeverityWarning
}

// forwardToken is how a kind of gateways is told to pass a token on.
func (t *trip) forwardToken(by *rules.Rule) (fix, patch string) {
	o := by.Object
	instead := fmt.Sprintf("; or let the policy ask for the principal of %s, and not for a token", t.edge.View.String())
	switch {
	case o.Kind == "GatewayExtension" && by.JWT != nil:
		var ops []string
		for i := range by.JWT.Providers {
			ops = append(ops, fmt.Sprintf(`{"op":"add","path":"/%s/providers/%d/forwardToken","value":true}`, strings.ReplaceAll(by.Field, ".", "/"), i))
		}
		return "set forwardToken: true for its providers" + instead,
			fmt.Sprintf("kubectl patch gatewayextensions.gateway.kgateway.dev -n %s %s --type=json -p '[%s]'", o.Namespace, o.Name, strings.Join(ops, ","))
	case o.Kind == "GatewayExtension":
		return "have oauth2 forward the access token (forwardAccessToken)" + instead, ""
	case o.Kind == "SecurityPolicy":
		return "set forwardAccessToken: true" + instead,
			fmt.Sprintf(`kubectl patch securitypolicies.gateway.envoyproxy.io -n %s %s --type=merge -p '{"spec":{"oidc":{"forwardAccessToken":true}}}'`,
				o.Namespace, o.Name)
	case o.Kind == "RequestAuthentication":
		return "set forwardOriginalToken: true in its jwtRules" + instead, ""
	case strings.HasSuffix(o.Kind, "AgentgatewayPolicy"):
		return "have it pass the token on with backend.auth.passthrough: {}" + instead, ""
	case strings.HasPrefix(o.Kind, "EnterpriseKgateway"):
		return "set keepToken: true for its providers" + instead, ""
	}
	return "have the gateway pass the token on" + instead, ""
}

// bearer says whether a provider takes tokens of Authorization headers.
func bearer(p *rules.Provider) bool {
	return slices.ContainsFunc(p.Locations, func(l rules.Location) bool {
		return fold(l.Header) == "authorization" && (l.Prefix == "" || strings.TrimSpace(l.Prefix) == "Bearer")
	})
}

func findForeignIssuers(w *World, found func(Finding)) {
	for t := range w.trips() {
		m := t.mesh(w)
		if m == nil || len(m.tokens) == 0 {
			continue
		}
		if forwards, _ := t.forwards(); forwards != rules.Yes {
			continue
		}
		for p, by := range t.providers() {
			if p.Issuer == "" || !bearer(p) {
				continue
			}
			list := t.requests(w, m)
			if slices.ContainsFunc(list, func(r policy.Request) bool {
				if !r.Method.Known() {
					r.Method = policy.Of("GET")
				}
				r.Token = policy.Of(tokenFor(p.Issuer, nil))
				d := m.point.Decide(&r)
				return d.Verdict != policy.Deny || d.Reason != policy.BadToken
			}) {
				continue
			}
			at := m.tokens[0]
			f := Finding{Object: tokenObject(at), Field: "spec.jwtRules", Related: []Object{ruleObject(by.Object), ruleObject(t.route), ServiceObject(m.service)}}
			f.Message = fmt.Sprintf("%s takes tokens of issuer %s and passes them on, and the waypoint of %s does not know that issuer: "+
				"such requests are answered with 401", t.edge.View.String(), p.Issuer, ServiceObject(m.service))
			t.severity(w, &f, false)
			f.Fix = "list the issuer here too, or have the gateway take the token away"
			if len(p.Audiences) > 0 {
				f.Fix = fmt.Sprintf("list the issuer here too, with the audiences that the gateway asks for (%s), or have the gateway take the token away",
					strings.Join(p.Audiences, ", "))
			}
			found(f)
		}
	}
}

// jwtRule is a rule of a RequestAuthentication for an issuer, and where it stands.
type jwtRule struct {
	at                    *securityv1.RequestAuthentication
	field                 string
	audiences             []string
	headers, params, jars []string // a header has its prefix behind it
}

// rule is that for an issuer, or nil, also where there are several.
func (s *meshSide) rule(issuer string) *jwtRule {
	var is *jwtRule
	for _, r := range s.tokens {
		for i, j := range r.Spec.JwtRules {
			if j.GetIssuer() != issuer {
				continue
			}
			if is != nil {
				return nil
			}
			is = &jwtRule{at: r, field: fmt.Sprintf("spec.jwtRules[%d]", i), audiences: j.GetAudiences(), params: j.GetFromParams(), jars: j.GetFromCookies()}
			for _, h := range j.GetFromHeaders() {
				is.headers = append(is.headers, fold(h.GetName())+" "+strings.TrimSpace(h.GetPrefix()))
			}
			if len(is.headers)+len(is.params)+len(is.jars) == 0 {
				is.headers, is.params = []string{"authorization Bearer"}, []string{"access_token"}
			}
		}
	}
	return is
}
