package policy

import (
	"slices"
	"strings"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
)

// tokenRule is one of a RequestAuthentication.
type tokenRule struct {
	policy    Ref
	issuer    string
	audiences []string
	located   bool     // it looks for tokens elsewhere than usual
	delimited []string // claims that are lists with blanks between
}

// addTokens adds a RequestAuthentication.
func (e *engine) addTokens(p *securityv1.RequestAuthentication) {
	for _, r := range p.Spec.JwtRules {
		e.tokens = append(e.tokens, tokenRule{
			policy: refOf(kindRequestAuthentication, p), issuer: r.GetIssuer(), audiences: r.GetAudiences(),
			located:   len(r.GetFromHeaders())+len(r.GetFromParams())+len(r.GetFromCookies()) > 0,
			delimited: append([]string{"scope", "permission"}, r.GetSpaceDelimitedClaims()...),
		})
		if h := r.GetOutputPayloadToHeader(); h != "" {
			e.written = append(e.written, strings.ToLower(h))
		}
		for _, o := range r.GetOutputClaimToHeaders() {
			e.written = append(e.written, strings.ToLower(o.GetHeader()))
		}
		if r.GetForwardOriginalToken() {
			continue
		}
		e.written = append(e.written, "authorization")
		for _, from := range r.GetFromHeaders() {
			e.written = append(e.written, strings.ToLower(from.GetName()))
		}
	}
}

// writes reports whether a header may be another one after tokens were looked at.
func (e *engine) writes(name string) bool { return slices.Contains(e.written, name) }

// check says whether a token passes, and by which rule. One that may pass may also not be seen.
func (e *engine) check(t *Token) (tri, *tokenRule) {
	issuer, ok := t.Claims["iss"].(string)
	if !ok || t.Elsewhere || slices.ContainsFunc(e.tokens, func(r tokenRule) bool { return r.located }) {
		return maybe, nil
	}
	passes, by := no, (*tokenRule)(nil)
	for i := range e.tokens {
		r := &e.tokens[i]
		if r.issuer != issuer || t.Bad {
			continue
		}
		if by != nil {
			return maybe, nil // which of them reads it is Envoy's affair
		}
		passes, by = r.audience(t), r
	}
	return passes, by
}

// audience says whether a token is for one that the rule takes.
func (r *tokenRule) audience(t *Token) tri {
	if len(r.audiences) == 0 {
		return yes
	}
	is, there := t.Claims["aud"]
	if !there {
		return t.missing()
	}
	found := no
	each(is, func(s string) bool {
		for _, want := range r.audiences {
			if s == want {
				found = yes
			} else if bare(s) == bare(want) && found == no {
				found = maybe
			}
		}
		return found == yes
	})
	return found
}

// bare is an audience without what Envoy may leave out.
func bare(s string) string {
	if _, rest, ok := strings.Cut(s, "://"); ok {
		s = rest
	}
	return strings.TrimSuffix(s, "/")
}

// missing is what a claim is that the token is not known to have.
func (t *Token) missing() tri {
	if t.Partial {
		return maybe
	}
	return no
}

// each calls f for a claim that is a string or has strings in a list, until f says that it is enough.
func each(claim any, f func(string) bool) {
	switch c := claim.(type) {
	case string:
		f(c)
	case []string:
		for _, s := range c {
			if f(s) {
				return
			}
		}
	case []any:
		for _, v := range c {
			if s, ok := v.(string); ok && f(s) {
				return
			}
		}
	}
}

// authenticate decides on the token alone. Allow is for the policies to decide.
func (e *engine) authenticate(v *view) Decision {
	d := decided(Allow, NoPolicy)
	if len(e.tokens) == 0 {
		return d
	}
	passes := over(&v.r.Token, yes, func(t *Token) tri {
		p, _ := e.check(t)
		return p
	})
	preflight := v.preflight()
	if passes |= preflight & yes; passes == yes || preflight == yes {
		return d
	}
	d = decided(Deny, BadToken)
	if d.Policy = e.tokens[0].policy; slices.ContainsFunc(e.tokens, func(r tokenRule) bool { return r.policy != d.Policy }) {
		d.Policy = Ref{}
	} else {
		d.Field = "jwtRules"
	}
	if passes == maybe {
		d.Verdict, d.Reason, d.On = Depends, Undecided, OnToken
	}
	return d
}

// overTokens is what holds of the token that policies see: none, where no RequestAuthentication is or none is sent.
func (e *engine) overTokens(v *view, of func(*Token, *tokenRule) tri) tri {
	if len(e.tokens) == 0 {
		return no
	}
	preflight := v.preflight()
	if preflight == yes {
		return no
	}
	t := over(&v.r.Token, no, func(t *Token) tri {
		switch passes, by := e.check(t); passes {
		case yes:
			return of(t, by)
		case maybe:
			return maybe
		}
		return 0 // it does not come here
	})
	if t == 0 || preflight == maybe {
		t |= no
	}
	return t
}

// preflight says whether a request is one of CORS, of which nobody asks a token.
func (v *view) preflight() tri {
	t := over(&v.r.Method, no, func(s *string) tri { return is(*s == "OPTIONS") })
	for _, name := range []string{"origin", "access-control-request-method"} {
		if t == no {
			break
		}
		values, ok := v.r.Headers[name]
		switch {
		case ok:
			t = t.and(over(&values, no, func(h *Header) tri { return is(strings.Join(*h, "") != "") }))
		case v.r.NoOtherHeaders:
			t = no
		default:
			t = t.and(maybe)
		}
	}
	return t
}

// evalToken looks at a token that is seen.
func (c *cond) evalToken(t *Token, by *tokenRule) tri {
	if c.kind == requestPrincipal {
		found := no
		for i := range c.issuers {
			found = found.or(t.text("iss", &c.issuers[i]).and(t.text("sub", &c.subjects[i])))
		}
		return found
	}
	var claim any = t.Claims
	for i, name := range c.claims {
		object, ok := claim.(map[string]any)
		if !ok {
			return no
		}
		if claim, ok = object[name]; !ok {
			if i == 0 {
				return t.missing()
			}
			return no
		}
	}
	found := no
	if s, ok := claim.(string); ok && len(c.claims) == 1 && slices.Contains(by.delimited, c.claims[0]) {
		for word := range strings.FieldsSeq(s) {
			found = found.or(anyHolds(c.texts, word))
		}
		return found
	}
	each(claim, func(s string) bool {
		found = found.or(anyHolds(c.texts, s))
		return found == yes
	})
	return found
}

// text compares a claim that is a string.
func (t *Token) text(name string, p *pattern) tri {
	is, there := t.Claims[name]
	if !there {
		return t.missing()
	}
	s, ok := is.(string)
	if !ok {
		return no
	}
	return p.holds(s)
}
