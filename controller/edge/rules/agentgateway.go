package rules

import "k8s.io/apimachinery/pkg/runtime/schema"

const groupAgentgateway = "agentgateway.dev"

// agentgateway was read at head of August 2026, after 1.4.1: policies merge field by field, the narrower target wins. A token that was checked is always
// taken away, and put back only by backend.auth.passthrough. Nothing that writes X-Forwarded-For was found in it.
func agentgateway() vendor {
	kind := schema.GroupKind{Group: groupAgentgateway, Kind: "AgentgatewayPolicy"}
	return vendor{
		name: "agentgateway", kinds: []schema.GroupVersionKind{kind.WithVersion("v1alpha1")},
		policies: []policy{{kind: kind, merges: true, read: agentPolicy}},
		edge:     func(r *reader) { r.usually(Rule{Forwarded: &Forwarded{For: Passes}}) },
	}
}

func agentPolicy(_ *reader, d *doc, spec *fields) {
	family := d.how.family
	if s := spec.sub("strategy"); s != nil {
		switch s.str("inheritance") {
		case "", "Default":
		case "Override":
			d.how.last = true
		default:
			s.unsure("inheritance")
		}
	}
	if t := spec.sub("traffic"); t != nil {
		phase := t.str("phase")
		if phase == "" {
			phase = "PostRouting"
		}
		d.how.family = family + " " + phase // phases do not merge together
		agentTraffic(d, t, phase == "PreRouting")
	}
	d.how.last = false
	d.how.family = family + " frontend"
	if f := spec.sub("frontend"); f != nil {
		f.skip("tcp", "tls", "http", "proxyProtocol", "connect", "accessLog", "tracing", "metrics")
		if a := f.sub("networkAuthorization"); a != nil {
			d.add(a, "networkAuthorization", Rule{Access: celAccess(a)})
		}
	}
	d.how.family = family + " backend"
	if b := spec.sub("backend"); b != nil {
		agentBackend(d, b)
	}
	d.how.family = family
}

// conditional makes a field unknown that holds under conditions.
func conditional(f *fields) {
	if f.has("conditional") {
		f.unsure("conditional")
	}
}

func agentTraffic(d *doc, t *fields, early bool) {
	t.skip("csrf", "buffer", "delay", "directResponse")
	modes := map[string]Mode{"Strict": Strict, "Optional": Optional, "Permissive": Permissive}
	if j := t.sub("jwtAuthentication"); j != nil {
		j.skip("mcp")
		at := agentLocation(j)
		rule := &JWT{Mode: modeOf(j, "mode", Strict, modes)}
		for _, p := range j.each("providers") {
			provider := Provider{Issuer: p.str("issuer"), Audiences: p.strs("audiences"), Locations: at, Forward: No}
			keys := p.sub("jwks")
			keys.skip("inline")
			if k := keys.sub("remote"); k != nil {
				k.skip("cacheDuration", "jwksPath")
				provider.Keys = Keys{URI: k.str("url"), Backend: k.sub("backendRef").ref(d.ref.Namespace)}
			}
			rule.Providers = append(rule.Providers, provider)
		}
		d.add(j, "jwtAuthentication", Rule{JWT: rule})
	}
	for _, c := range []struct {
		name string
		kind CredentialKind
	}{{"basicAuthentication", Basic}, {"apiKeyAuthentication", APIKey}} {
		if f := t.sub(c.name); f != nil {
			f.skip("realm", "users", "secretRef", "secretSelector", "configMapSelector", "location")
			d.add(f, c.name, Rule{Credentials: &Credentials{Kind: c.kind, Mode: modeOf(f, "mode", Strict, modes), Forwards: No}})
		}
	}
	if e := t.sub("extAuth"); e != nil {
		agentExtAuth(d, e)
	}
	if p := t.sub("extProc"); p != nil {
		p.skip(p.names()...)
		d.add(p, "extProc", Rule{})
		p.unsure("") // it may change all of a request
	}
	if l := t.sub("rateLimit"); l != nil {
		conditional(l)
		if len(l.items("local")) > 0 {
			d.add(l, "rateLimit", Rule{Field: l.at("local"), RateLimit: &RateLimit{}})
		}
		if g := l.sub("global"); g != nil {
			g.skip("backendRef", "url", "failureMode", "domain")
			limit := &RateLimit{Global: true}
			for _, set := range g.each("descriptors") {
				set.skip("unit", "cost", "limitOverride")
				for _, e := range set.each("entries") {
					e.skip("name")
					limit.By = append(limit.By, e.str("expression"))
				}
			}
			d.add(g, "rateLimit", Rule{RateLimit: limit})
		}
	}
	if c := t.sub("cors"); c != nil {
		d.add(c, "cors", corsFilter(c))
	}
	agentHeaders(d, t, early)
	if h := t.sub("hostRewrite"); h != nil {
		// Auto means the name of backends that are names, and nothing for Services.
		if mode := h.str("mode"); mode != "None" && mode != "Auto" {
			h.unsure("mode")
		}
	}
	if o := t.sub("timeouts"); o != nil {
		d.add(o, "timeouts", Rule{Timeout: &Timeout{Request: o.duration("request")}})
	}
	if o := t.sub("retry"); o != nil {
		o.skip("codes", "backoff", "precondition", "condition")
		n, _ := o.number("attempts")
		d.add(o, "retry", Rule{Retry: &Retry{Attempts: n}})
	}
	if a := t.sub("authorization"); a != nil {
		keep := d.how
		d.how.family = "" // all of them hold
		d.add(a, "", Rule{Access: celAccess(a)})
		d.how = keep
	}
}

// agentLocation is where a credential is.
func agentLocation(f *fields) []Location {
	l := f.sub("location")
	if l == nil {
		return bearer()
	}
	if l.has("expression") {
		l.unsure("expression")
		return nil
	}
	h := l.sub("header")
	return []Location{{
		Header: h.str("name"), Prefix: h.str("prefix"), Query: l.sub("queryParameter").str("name"), Cookie: l.sub("cookie").str("name"),
	}}
}

func agentExtAuth(d *doc, e *fields) {
	conditional(e)
	e.skip("forwardBody", "cache")
	auth := &ExtAuth{Backend: e.sub("backendRef").ref(d.ref.Namespace), Address: e.str("url"), FailOpen: No}
	switch e.str("failureMode") {
	case "", "FailClosed":
	case "FailOpen":
		auth.FailOpen = Yes
	default:
		auth.FailOpen = Unsure
		e.unsure("failureMode")
	}
	names := []string{"*"}
	e.sub("grpc").skip("contextExtensions", "requestMetadata")
	if h := e.sub("http"); h != nil {
		h.skip("path", "redirect", "body", "allowedRequestHeaders", "addRequestHeaders", "responseMetadata")
		names = h.strs("allowedResponseHeaders")
	}
	d.add(e, "extAuth", Rule{ExtAuth: auth})
	if len(names) > 0 {
		d.add(e, "extAuth", Rule{Headers: &Headers{Writes: fromExtAuth(names)}})
	}
}

func agentHeaders(d *doc, t *fields, early bool) {
	if h := t.sub("headerModifiers"); h != nil {
		h.skip("response")
		if req := h.sub("request"); req != nil {
			list := modifier(req)
			list.Early = early
			d.add(req, "headerModifiers", Rule{Headers: list})
		}
	}
	f := t.sub("transformation")
	conditional(f)
	transformation(d, f, early)
}

// agentBackend is how destinations are reached.
func agentBackend(d *doc, b *fields) {
	b.skip("tcp", "ai", "mcp")
	if h := b.sub("http"); h != nil {
		h.skip("version")
		if all := h.duration("requestTimeout"); all > 0 {
			d.add(h, "http", Rule{Timeout: &Timeout{Backend: all}})
		}
	}
	if b.has("tunnel") {
		b.unsure("tunnel")
	}
	if t := b.sub("tls"); t != nil {
		t.skip("certificateSource", "mtlsCertificateRef", "caCertificateRefs", "verifySubjectAltNames", "alpnProtocols", "keyExchangeGroups")
		verifies := Yes
		if t.str("insecureSkipVerify") != "" {
			verifies = No
		}
		d.add(t, "tls", Rule{TLS: &BackendTLS{Hostname: t.str("sni"), Verifies: verifies}})
	}
	if h := b.sub("health"); h != nil {
		h.skip("unhealthyCondition", "eviction")
		d.add(h, "health", Rule{Health: &Health{Passive: true}})
	}
	if e := b.sub("extAuth"); e != nil {
		agentExtAuth(d, e)
	}
	transformation(d, b.sub("transformation"), false)
	a := b.sub("auth")
	if a == nil {
		return
	}
	a.skip("key", "secretRef", "aws", "azure", "gcp", "oauthTokenExchange", "crossAppAccess", "jwtSign", "credentials")
	h := Header{Name: "Authorization", From: FromStatic, Overwrites: Yes}
	if a.has("passthrough") {
		h.From = FromToken
		a.skip("passthrough")
	}
	if l := a.sub("location"); l != nil {
		header := l.sub("header")
		header.skip("prefix")
		h.Name = header.str("name")
		l.skip("queryParameter", "cookie")
	}
	rule := Rule{}
	if h.Name != "" {
		rule.Headers = &Headers{Writes: []Header{h}}
	}
	d.add(a, "auth", rule)
}
