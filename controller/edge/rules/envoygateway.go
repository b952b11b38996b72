package rules

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

const groupEnvoyGateway = "gateway.envoyproxy.io"

// envoyGateway was read at head of August 2026, after 1.9.1: a policy with a narrower target replaces others as a whole, unless it has a mergeType; of
// two with the same target the older holds. Tokens are forwarded; access tokens of OIDC are not, unless that is asked for.
func envoyGateway() vendor {
	kind := func(name string) schema.GroupKind { return schema.GroupKind{Group: groupEnvoyGateway, Kind: name} }
	anything := func(_ *reader, d *doc, spec *fields) {
		spec.skip(spec.names()...)
		d.add(spec, "", Rule{})
		spec.unsure("") // it may change all of a request
	}
	v := vendor{
		name: "envoy-gateway",
		policies: []policy{
			{kind: kind("SecurityPolicy"), far: true, read: envoySecurity},
			{kind: kind("BackendTrafficPolicy"), far: true, read: envoyTraffic},
			{kind: kind("ClientTrafficPolicy"), far: true, read: envoyClient},
			{kind: kind("EnvoyExtensionPolicy"), far: true, read: anything},
			{kind: kind("EnvoyPatchPolicy"), all: true, read: anything},
		},
		filters: map[schema.GroupKind]func(*reader, *doc, *fields){kind("HTTPRouteFilter"): envoyFilter},
		edge:    envoyEdge,
	}
	for _, p := range v.policies {
		v.kinds = append(v.kinds, p.kind.WithVersion("v1alpha1"))
	}
	v.kinds = append(v.kinds, schema.GroupVersionKind{Group: groupGateway, Version: "v1", Kind: "GatewayClass"})
	for _, name := range []string{"HTTPRouteFilter", "EnvoyProxy", "Backend"} {
		v.kinds = append(v.kinds, kind(name).WithVersion("v1alpha1"))
	}
	return v
}

// mergeType has a policy replace only the fields that it has. How deep fields are merged is not told here.
func (d *doc) mergeType(spec *fields) {
	if spec.has("mergeType") && spec.str("mergeType") != "Replace" {
		d.how.merges = true
		spec.unsure("mergeType")
	}
}

func envoySecurity(_ *reader, d *doc, spec *fields) {
	d.mergeType(spec)
	spec.skip("csrf")
	ns := d.ref.Namespace
	if k := spec.sub("apiKeyAuth"); k != nil {
		k.skip("credentialRefs", "extractFrom")
		forwards := Yes
		if k.is("sanitize", false) == Yes {
			forwards = No
		}
		d.add(k, "apiKeyAuth", Rule{Credentials: &Credentials{Kind: APIKey, Mode: Strict, Forwards: forwards}})
		fromLogin(d, k, "apiKeyAuth", k.str("forwardClientIDHeader"))
	}
	if b := spec.sub("basicAuth"); b != nil {
		b.skip("users")
		d.add(b, "basicAuth", Rule{Credentials: &Credentials{Kind: Basic, Mode: Strict, Forwards: Yes}})
		fromLogin(d, b, "basicAuth", b.str("forwardUsernameHeader"))
	}
	if c := spec.sub("cors"); c != nil {
		d.add(c, "cors", corsFilter(c))
	}
	if j := spec.sub("jwt"); j != nil {
		envoyJWT(d, j)
	}
	if o := spec.sub("oidc"); o != nil {
		envoyOIDC(d, o)
	}
	if e := spec.sub("extAuth"); e != nil {
		e.skip("headersToExtAuth", "bodyToExtAuth", "timeout", "recomputeRoute", "includeRouteMetadata", "contextExtensions", "statusOnError")
		auth, names := &ExtAuth{FailOpen: e.is("failOpen", false)}, []string{"*"}
		if g := e.sub("grpc"); g != nil {
			auth.Backend = envoyBackend(g, ns)
		}
		if h := e.sub("http"); h != nil {
			h.skip("path", "pathOverride")
			auth.Backend, names = envoyBackend(h, ns), h.strs("headersToBackend")
		}
		d.add(e, "extAuth", Rule{ExtAuth: auth})
		if len(names) > 0 {
			d.add(e, "extAuth", Rule{Headers: &Headers{Writes: fromExtAuth(names)}})
		}
	}
	if a := spec.sub("authorization"); a != nil {
		envoyAuthorization(d, a)
	}
}

// fromLogin is a header with who it is that credentials are of.
func fromLogin(d *doc, f *fields, part, name string) {
	if name != "" {
		d.add(f, part, Rule{Headers: &Headers{Writes: []Header{{Name: name, From: FromLogin, Overwrites: Yes}}}})
	}
}

// envoyBackend is the first of what a service is reached by.
func envoyBackend(f *fields, namespace string) Ref {
	f.skip("backendSettings")
	to := f.sub("backendRef").ref(namespace)
	for _, b := range f.each("backendRefs") {
		b.skip("fallback")
		if ref := b.ref(namespace); to.Name == "" {
			to = ref
		}
	}
	return to
}

func envoyJWT(d *doc, f *fields) {
	j := &JWT{Mode: Strict}
	if f.is("optional", false) != No {
		j.Mode = Optional
	}
	if f.is("failOpen", false) != No {
		j.Mode = Permissive
	}
	var claims [][]Header
	for _, p := range f.each("providers") {
		p.skip("recomputeRoute", "localJWKS")
		provider := Provider{Name: p.str("name"), Issuer: p.str("issuer"), Audiences: p.strs("audiences"), Forward: Yes, Locations: envoyLocations()}
		if x := p.sub("extractFrom"); x != nil {
			provider.Locations = nil
			for _, h := range x.each("headers") {
				provider.Locations = append(provider.Locations, Location{Header: h.str("name"), Prefix: h.str("valuePrefix")})
			}
			for _, name := range x.strs("cookies") {
				provider.Locations = append(provider.Locations, Location{Cookie: name})
			}
			for _, name := range x.strs("params") {
				provider.Locations = append(provider.Locations, Location{Query: name})
			}
		}
		if k := p.sub("remoteJWKS"); k != nil {
			k.skip("cacheDuration", "failedRefetchDuration")
			provider.Keys = Keys{URI: k.str("uri"), Backend: envoyBackend(k, d.ref.Namespace)}
		}
		claims = append(claims, claimHeaders(p, "claimToHeaders", "claim", "header"))
		j.Providers = append(j.Providers, provider)
	}
	d.add(f, "jwt", Rule{JWT: j})
	addClaims(d, f, "jwt", claims)
}

func envoyOIDC(d *doc, f *fields) {
	p := f.sub("provider")
	p.skip("backendRef", "backendRefs", "backendSettings", "authorizationEndpoint", "tokenEndpoint", "endSessionEndpoint")
	f.skip("clientID", "clientIDRef", "clientSecret", "cookieNames", "cookieConfig", "cookieDomain", "scopes", "resources", "redirectURL", "denyRedirect",
		"logoutPath", "defaultTokenTTL", "refreshToken", "defaultRefreshTokenTTL", "csrfTokenTTL", "disableTokenEncryption")
	l := &Login{Issuer: p.str("issuer"), Forwards: f.is("forwardAccessToken", false), TakesTokens: f.is("passThroughAuthHeader", false), ForwardsIDToken: No}
	id := f.sub("forwardIDToken")
	header := id.str("header")
	if header != "" {
		l.ForwardsIDToken = Yes
	}
	d.add(f, "oidc", Rule{Login: l})
	if header != "" {
		// Whether a client's own stays where there is no session was not seen.
		d.add(id, "oidc", Rule{Headers: &Headers{Writes: []Header{{Name: header, From: FromLogin, Overwrites: Unsure}}}})
	}
}

// envoyAuthorization: rules are looked at in order, the first that fits decides. With one action alone the order does not matter.
func envoyAuthorization(d *doc, f *fields) {
	ips := &IPs{AllowOthers: f.str("defaultAction") == "Allow"}
	access := &Access{Denies: ips.AllowOthers}
	addresses, others := false, false
	for _, rule := range f.each("rules") {
		rule.skip("name")
		action, p := rule.str("action"), rule.sub("principal")
		cidrs := p.strs("clientCIDRs")
		more := rule.has("operation") || rule.has("cel") || p.has("jwt") || p.has("headers") || p.has("clientIPGeoLocations")
		rule.skip("operation")
		p.skip("jwt", "headers", "clientIPGeoLocations")
		if cel := rule.str("cel"); cel != "" {
			access.Expressions = append(access.Expressions, cel)
		}
		others = others || more
		addresses = addresses || len(cidrs) > 0
		ips.Else = ips.Else || more
		switch action {
		case "Allow":
			ips.Allow = append(ips.Allow, cidrs...)
		case "Deny":
			ips.Deny = append(ips.Deny, cidrs...)
		default:
			rule.unsure("action")
		}
	}
	if len(ips.Allow) > 0 && len(ips.Deny) > 0 {
		ips.Else = true
	}
	if addresses {
		d.add(f, "authorization", Rule{IPs: ips})
	}
	if others || !addresses {
		d.add(f, "authorization", Rule{Access: access})
	}
}

func envoyFilter(_ *reader, d *doc, spec *fields) {
	spec.skip("directResponse", "matches")
	if u := spec.sub("urlRewrite"); u != nil {
		u.skip("appendXForwardedHost")
		w := &Rewrite{}
		if h := u.sub("hostname"); h != nil {
			switch h.str("type") {
			case "Backend":
				w.BackendHost = true
			default: // of a header, or of the path: nobody can tell what it will be
				h.unsure("type")
			}
			h.skip("header", "pathRegex")
		}
		if p := u.sub("path"); p != nil {
			p.skip("type", "replaceRegexMatch")
			w.Pattern = true
		}
		d.add(u, "", Rule{Rewrite: w})
	}
	if c := spec.sub("credentialInjection"); c != nil {
		c.skip("credential")
		name := c.str("header")
		if name == "" {
			name = "Authorization"
		}
		d.add(c, "", Rule{Headers: &Headers{Writes: []Header{{Name: name, From: FromStatic, Overwrites: c.is("overwrite", false)}}}})
	}
}

// envoyEdge reads the EnvoyProxy of the Gateway or of its class, and the Backends that have TLS.
func envoyEdge(r *reader) {
	r.usually(Rule{Forwarded: envoyForwarded()})
	for _, to := range r.parameters() {
		if to.kind() != (schema.GroupKind{Group: groupEnvoyGateway, Kind: "EnvoyProxy"}) {
			continue
		}
		d := r.doc(to, r.content(to), r.whole())
		spec := d.spec(r.content(to))
		if r.content(to) == nil {
			d.unknown = append(d.unknown, "spec")
		}
		spec.skip("provider", "logging", "telemetry", "concurrency", "routingType", "extraArgs", "mergeGateways", "mergeBackends", "shutdown", "backendTLS",
			"ipFamily", "preserveRouteOrder", "luaValidation", "lua", "dynamicModules", "geoIP", "mergeType")
		r.takeIfAny(d) // what remains, as bootstrap and filterOrder, may change much
	}
	for _, ref := range slices.SortedFunc(keys(r.backends), compareRefs) {
		if ref.kind() != (schema.GroupKind{Group: groupEnvoyGateway, Kind: "Backend"}) {
			continue
		}
		d := r.doc(ref, r.known[ref], Target{Object: ref})
		if t := d.spec(r.known[ref]).sub("tls"); t != nil {
			t.skip(t.names()...)
			verifies := Yes
			if t.is("insecureSkipVerify", false) != No {
				verifies = No
			}
			d.add(t, "", Rule{TLS: &BackendTLS{Hostname: strings.TrimSpace(t.str("sni")), Verifies: verifies}})
			r.rules, r.stands = append(r.rules, d.rules...), append(r.stands, d.stands...)
		}
	}
}
