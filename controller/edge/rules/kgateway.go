package rules

import "k8s.io/apimachinery/pkg/runtime/schema"

const groupKgateway = "gateway.kgateway.dev"

// kgateway was read in 2.4.0, and its JWT seen running: tokens are taken away unless forwardToken, claims overwrite what clients send, also where no token
// is asked for. Policies merge field by field, the narrower target wins, then the older object.
func kgateway() vendor {
	kind := func(name string) schema.GroupKind { return schema.GroupKind{Group: groupKgateway, Kind: name} }
	policies := []policy{
		{kind: kind("TrafficPolicy"), merges: true, read: kgatewayTraffic},
		{kind: kind("ListenerPolicy"), merges: true, read: kgatewayListener},
		{kind: kind("HTTPListenerPolicy"), merges: true, read: func(_ *reader, d *doc, spec *fields) { kgatewayHTTP(d, spec) }},
		{kind: kind("BackendConfigPolicy"), merges: true, read: kgatewayBackend},
	}
	v := vendor{
		name: "kgateway", policies: policies,
		filters: map[schema.GroupKind]func(*reader, *doc, *fields){
			kind("TrafficPolicy"):  kgatewayTraffic,
			kind("DirectResponse"): func(_ *reader, _ *doc, f *fields) { f.skip("status", "body", "bodyFormat") },
		},
		edge: func(r *reader) { r.usually(Rule{Forwarded: envoyForwarded()}) },
	}
	for _, p := range policies {
		v.kinds = append(v.kinds, p.kind.WithVersion("v1alpha1"))
	}
	v.kinds = append(v.kinds, kind("GatewayExtension").WithVersion("v1alpha1"), kind("DirectResponse").WithVersion("v1alpha1"))
	return v
}

// envoyForwarded is what Envoy does at an edge: use_remote_address, and no client's XFCC.
func envoyForwarded() *Forwarded { return &Forwarded{For: Appends, ClientCert: Removes} }

func kgatewayTraffic(r *reader, d *doc, spec *fields) {
	spec.skip("csrf", "buffer", "internalRedirect", "compression", "tracing", "faultInjection", "statPrefix")
	r.kgatewayExtension(d, spec, "jwtAuth", kgatewayJWT)
	r.kgatewayExtension(d, spec, "extAuth", kgatewayExtAuth)
	r.kgatewayExtension(d, spec, "oauth2", kgatewayOAuth2)
	if p := spec.sub("extProc"); p != nil {
		off := p.has("disable")
		p.skip("disable", "extensionRef", "processingMode")
		d.add(p, "extProc", Rule{})
		if !off {
			p.unsure("") // it may change all of a request
		}
	}
	kgatewayLimits(r, d, spec.sub("rateLimit"))
	if c := spec.sub("cors"); c != nil {
		d.add(c, "cors", corsFilter(c))
	}
	if h := spec.sub("headerModifiers"); h != nil {
		h.skip("response")
		if req := h.sub("request"); req != nil {
			d.add(req, "headerModifiers", Rule{Headers: modifier(req)})
		}
	}
	transformation(d, spec.sub("transformation"), false)
	if spec.has("autoHostRewrite") && spec.is("autoHostRewrite", false) != No {
		d.add(spec, "autoHostRewrite", Rule{Field: spec.at("autoHostRewrite"), Rewrite: &Rewrite{BackendHost: true}})
	}
	if u := spec.sub("urlRewrite"); u != nil {
		u.sub("pathRegex").skip("pattern", "substitution")
		d.add(u, "urlRewrite", Rule{Rewrite: &Rewrite{Pattern: true}})
	}
	if t := spec.sub("timeouts"); t != nil {
		t.skip("streamIdle")
		d.add(t, "timeouts", Rule{Timeout: &Timeout{Request: t.duration("request")}})
	}
	if t := spec.sub("retry"); t != nil {
		t.skip("statusCodes", "backoffBaseInterval")
		n, _ := t.number("attempts")
		d.add(t, "retry", Rule{Retry: &Retry{Attempts: n, On: t.strs("retryOn")}})
		if per := t.duration("perTryTimeout"); per > 0 {
			d.add(t, "retry", Rule{Field: t.at("perTryTimeout"), Timeout: &Timeout{Backend: per}})
		}
	}
	if a := spec.sub("rbac"); a != nil {
		d.add(a, "rbac", Rule{Access: celAccess(a)})
	}
	if a := spec.sub("acl"); a != nil {
		d.add(a, "acl", Rule{IPs: kgatewayACL(a)})
	}
	kgatewayCredentials(d, spec)
}

// celAccess is access by expressions of CEL.
func celAccess(f *fields) *Access {
	a := &Access{Expressions: f.sub("policy").strs("matchExpressions")}
	switch f.str("action") {
	case "", "Allow", "Require":
	case "Deny":
		a.Denies = true
	default:
		f.unsure("action")
	}
	return a
}

// corsFilter is CORS as the Gateway API's filter has it. Disabled: the rule does nothing, and replaces others.
func corsFilter(f *fields) Rule {
	f.skip("allowCredentials", "allowMethods", "allowHeaders", "exposeHeaders", "maxAge")
	if f.has("disable") {
		f.skip("disable", "allowOrigins")
		return Rule{}
	}
	return Rule{CORS: &CORS{Origins: f.strs("allowOrigins")}}
}

// kgatewayExtension reads what a field refers to, in a GatewayExtension.
func (r *reader) kgatewayExtension(d *doc, spec *fields, name string, read func(*reader, *doc, *fields, string)) {
	f := spec.sub(name)
	if f == nil {
		return
	}
	f.skip("withRequestBody", "contextExtensions")
	if f.has("disable") {
		f.skip("disable", "extensionRef")
		d.add(f, name, Rule{})
		return
	}
	ref := f.sub("extensionRef")
	to := ref.ref(d.ref.Namespace)
	to.Group, to.Kind = groupKgateway, "GatewayExtension"
	other, ext, there := r.also(d, to)
	if !there {
		d.add(f, name, Rule{})
		f.unsure("extensionRef")
		return
	}
	ext.skip("type")
	read(r, other, ext, name)
	r.take(other)
}

func kgatewayJWT(_ *reader, d *doc, ext *fields, part string) {
	f := ext.sub("jwt")
	j := &JWT{Mode: modeOf(f, "validationMode", Strict, map[string]Mode{"Strict": Strict, "AllowMissing": Optional})}
	var claims [][]Header
	for _, p := range f.each("providers") {
		provider := Provider{Name: p.str("name"), Issuer: p.str("issuer"), Audiences: p.strs("audiences"), Forward: p.is("forwardToken", false)}
		provider.Locations = envoyLocations()
		if s := p.sub("tokenSource"); s != nil {
			h := s.sub("header")
			provider.Locations = []Location{{Header: h.str("header"), Prefix: h.str("prefix"), Query: s.str("queryParameter")}}
		}
		keys := p.sub("jwks")
		keys.skip("local")
		if remote := keys.sub("remote"); remote != nil {
			remote.skip("cacheDuration", "asyncFetch", "retryPolicy")
			provider.Keys = Keys{URI: remote.str("url"), Backend: remote.sub("backendRef").ref(d.ref.Namespace)}
		}
		claims = append(claims, claimHeaders(p, "claimsToHeaders", "name", "header"))
		j.Providers = append(j.Providers, provider)
	}
	d.add(f, part, Rule{JWT: j})
	addClaims(d, f, part, claims)
}

func kgatewayExtAuth(_ *reader, d *doc, ext *fields, part string) {
	f := ext.sub("extAuth")
	f.skip("headersToForward", "clearRouteCache", "withRequestBody", "statusOnError", "statPrefix")
	e := &ExtAuth{FailOpen: f.is("failOpen", false)}
	names := []string{"*"}
	if g := f.sub("grpcService"); g != nil {
		g.skip("authority", "requestTimeout", "retry")
		e.Backend = g.sub("backendRef").ref(d.ref.Namespace)
	}
	if h := f.sub("httpService"); h != nil {
		h.skip("pathPrefix", "requestTimeout", "authorizationRequest", "retry")
		e.Backend = h.sub("backendRef").ref(d.ref.Namespace)
		response := h.sub("authorizationResponse")
		response.skip("headersToClient", "headersToClientOnSuccess")
		names = response.strs("headersToBackend")
	}
	d.add(f, part, Rule{ExtAuth: e})
	if len(names) > 0 {
		d.add(f, part, Rule{Headers: &Headers{Writes: fromExtAuth(names)}})
	}
}

func kgatewayOAuth2(_ *reader, d *doc, ext *fields, part string) {
	f := ext.sub("oauth2")
	f.skip("backendRef", "authorizationEndpoint", "tokenEndpoint", "redirectURI", "logoutPath", "scopes", "credentials", "endSessionEndpoint", "cookies",
		"denyRedirect")
	d.add(f, part, Rule{Login: &Login{Issuer: f.str("issuerURI"), Forwards: f.is("forwardAccessToken", false), ForwardsIDToken: No, TakesTokens: No}})
	j := f.sub("jwt")
	j.skip("jwksURI", "jwksBackendRef")
	var claims [][]Header
	for _, name := range []string{"accessToken", "idToken"} {
		if t := j.sub(name); t != nil {
			t.skip("audiences")
			claims = append(claims, claimHeaders(t, "claimsToHeaders", "name", "header"))
		}
	}
	addClaims(d, f, part, claims)
}

// kgatewayLimits are merged apart.
func kgatewayLimits(_ *reader, d *doc, f *fields) {
	if l := f.sub("local"); l != nil {
		rule := Rule{}
		if l.has("tokenBucket") && !l.zero("percentEnabled") && !l.zero("percentEnforced") {
			rule.RateLimit = &RateLimit{}
		}
		l.skip("percentEnabled", "percentEnforced")
		l.skip("tokenBucket")
		d.add(l, "rateLimit.local", rule)
	}
	g := f.sub("global")
	if g == nil {
		return
	}
	g.skip("extensionRef")
	limit := &RateLimit{Global: true}
	for _, set := range g.each("descriptors") {
		for _, e := range set.each("entries") {
			e.skip("generic")
			switch kind, header := e.str("type"), e.str("header"); kind {
			case "Header":
				limit.By = append(limit.By, "header "+header)
			case "RemoteAddress":
				limit.By = append(limit.By, "source")
			case "Path":
				limit.By = append(limit.By, "path")
			case "Generic":
			default:
				e.unsure("type")
			}
		}
	}
	d.add(g, "rateLimit.global", Rule{RateLimit: limit})
}

// zero says whether a number is there and is 0.
func (f *fields) zero(name string) bool {
	n, is := f.number(name)
	return is && n == 0
}

// transformation writes headers by templates or expressions.
func transformation(d *doc, f *fields, early bool) {
	f.skip("response")
	req := f.sub("request")
	if req == nil {
		return
	}
	req.skip("body", "dynamicMetadata", "metadata")
	h := &Headers{Strips: req.strs("remove"), Early: early}
	for _, set := range req.each("set") {
		h.Writes = append(h.Writes, Header{Name: set.str("name"), From: FromRequest, What: set.str("value"), Overwrites: Yes})
	}
	for _, add := range req.each("add") {
		h.Writes = append(h.Writes, Header{Name: add.str("name"), From: FromRequest, What: add.str("value"), Overwrites: No, Appends: true})
	}
	d.add(req, "transformation", Rule{Headers: h})
}

// kgatewayACL: the longest prefix wins, whatever the order.
func kgatewayACL(f *fields) *IPs {
	f.skip("denyResponse")
	ips := &IPs{AllowOthers: f.str("defaultAction") == "allow"}
	for _, rule := range f.each("rules") {
		rule.skip("name")
		cidrs := rule.strs("cidrs")
		switch rule.str("action") {
		case "allow":
			ips.Allow = append(ips.Allow, cidrs...)
		case "deny":
			ips.Deny = append(ips.Deny, cidrs...)
		default:
			rule.unsure("action")
		}
	}
	return ips
}

func kgatewayCredentials(d *doc, spec *fields) {
	if b := spec.sub("basicAuth"); b != nil {
		rule := Rule{Credentials: &Credentials{Kind: Basic, Mode: Strict, Forwards: Yes}}
		if b.has("disable") {
			rule = Rule{}
		}
		b.skip("users", "secretRef", "disable")
		d.add(b, "basicAuth", rule)
	}
	k := spec.sub("apiKeyAuth")
	if k == nil {
		return
	}
	off := k.has("disable")
	k.skip("keySources", "secretRef", "secretSelector", "disable")
	forwards, client := k.is("forwardCredential", false), k.str("clientIdHeader")
	if off {
		d.add(k, "apiKeyAuth", Rule{})
		return
	}
	d.add(k, "apiKeyAuth", Rule{Credentials: &Credentials{Kind: APIKey, Mode: Strict, Forwards: forwards}})
	if client != "" {
		d.add(k, "apiKeyAuth", Rule{Headers: &Headers{Writes: []Header{{Name: client, From: FromLogin, Overwrites: Yes}}}})
	}
}
