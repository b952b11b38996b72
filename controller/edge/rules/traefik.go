package rules

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

const groupTraefik = "traefik.io"

// maxChained middlewares are followed from one place.
const maxChained = 64

// traefik was read at head of July 2026, after 3.7: what is said of entry points, as middlewares there and whom to trust with X-Forwarded headers, stands in
// its own configuration and is not seen.
func traefik() vendor {
	kind := func(name string) schema.GroupKind { return schema.GroupKind{Group: groupTraefik, Kind: name} }
	return vendor{
		name: "traefik",
		kinds: []schema.GroupVersionKind{
			kind("Middleware").WithVersion("v1alpha1"), kind("IngressRoute").WithVersion("v1alpha1"), kind("TraefikService").WithVersion("v1alpha1"),
			kind("ServersTransport").WithVersion("v1alpha1"), ingressKind().WithVersion("v1"),
		},
		filters: map[schema.GroupKind]func(*reader, *doc, *fields){kind("Middleware"): middleware},
		routes:  map[schema.GroupKind]func(*reader, Route){kind("IngressRoute"): ingressRoute, ingressKind(): traefikIngress},
		edge:    func(r *reader) { r.usually(Rule{Forwarded: &Forwarded{For: Replaces, ClientCert: Passes}}) },
	}
}

// chained is a Middleware that is referred to, and where.
type chained struct {
	to   Ref
	path string
}

// middlewares reads those that a route refers to, in their order, chains among them.
func (r *reader) middlewares(d *doc, list []chained) {
	seen := map[Ref]bool{}
	for len(list) > 0 {
		next := list[0]
		list = list[1:]
		if seen[next.to] {
			continue
		}
		seen[next.to] = true
		other, spec, there := r.also(d, next.to)
		if !there || len(seen) > maxChained {
			d.unknown = append(d.unknown, next.path)
			continue
		}
		other.how.owner = next.to
		if chain := spec.sub("chain"); chain != nil {
			more := middlewareRefs(chain, next.to.Namespace)
			for i := range more {
				more[i].path = next.path // where the route refers to the chain
			}
			list = append(more, list...)
		}
		middleware(r, other, spec)
		r.take(other)
	}
}

// middlewareRefs are the Middlewares that a list names.
func middlewareRefs(f *fields, namespace string) []chained {
	var list []chained
	for _, m := range f.each("middlewares") {
		to := m.ref(namespace)
		to.Group, to.Kind = groupTraefik, "Middleware"
		if strings.Contains(to.Name, "@") { // of another provider
			m.unsure("name")
		} else if to.Name != "" {
			list = append(list, chained{to, m.path})
		}
	}
	return list
}

func middleware(r *reader, d *doc, f *fields) {
	f.skip("errors", "redirectRegex", "redirectScheme", "inFlightReq", "buffering", "circuitBreaker", "compress", "contentType", "grpcWeb", "encodedCharacters")
	if f.has("chain") && !f.wasRead("chain") { // where chains are not followed
		r.middlewares(d, middlewareRefs(f.sub("chain"), d.ref.Namespace))
	}
	pathMiddleware(d, f)
	for _, name := range []string{"ipAllowList", "ipWhiteList"} {
		if l := f.sub(name); l != nil {
			l.skip("rejectStatusCode")
			ips := &IPs{Allow: l.strs("sourceRange")}
			s := l.sub("ipStrategy")
			s.skip("ipv6Subnet")
			depth, _ := s.number("depth")
			ips.FromHeader = depth > 0 || len(s.strs("excludedIPs")) > 0
			d.add(l, "", Rule{IPs: ips})
		}
	}
	if l := f.sub("rateLimit"); l != nil {
		l.skip("average", "period", "burst")
		limit := &RateLimit{Global: l.has("redis"), By: []string{"source"}}
		l.skip("redis")
		if c := l.sub("sourceCriterion"); c != nil {
			c.skip("ipStrategy")
			if name := c.str("requestHeaderName"); name != "" {
				limit.By = []string{"header " + name}
			}
			if c.is("requestHost", false) == Yes {
				limit.By = []string{"host"}
			}
		}
		d.add(l, "", Rule{RateLimit: limit})
	}
	for _, c := range []struct {
		name string
		kind CredentialKind
	}{{"basicAuth", Basic}, {"digestAuth", Other}} {
		if b := f.sub(c.name); b != nil {
			b.skip("secret", "realm")
			forwards := Yes
			if b.is("removeHeader", false) == Yes {
				forwards = No
			}
			d.add(b, "", Rule{Credentials: &Credentials{Kind: c.kind, Mode: Strict, Forwards: forwards}})
			fromLogin(d, b, "", b.str("headerField"))
		}
	}
	if a := f.sub("forwardAuth"); a != nil {
		forwardAuth(d, a)
	}
	if h := f.sub("headers"); h != nil {
		traefikHeaders(d, h)
	}
	if c := f.sub("passTLSClientCert"); c != nil {
		list := []Header{
			{Name: "X-Forwarded-Tls-Client-Cert", From: FromRequest, Overwrites: Unsure},
			{Name: "X-Forwarded-Tls-Client-Cert-Info", From: FromRequest, Overwrites: Unsure},
		}
		c.skip("pem", "info")
		d.add(c, "", Rule{Headers: &Headers{Writes: list}})
	}
	if t := f.sub("retry"); t != nil {
		t.skip("timeout", "initialInterval", "maxRequestBodyBytes", "status", "disableRetryOnNetworkError", "retryNonIdempotentMethod")
		n, _ := t.number("attempts")
		d.add(t, "", Rule{Retry: &Retry{Attempts: max(0, n-1)}}) // it counts the first one
	}
}

func pathMiddleware(d *doc, f *fields) {
	if p := f.sub("addPrefix"); p != nil {
		d.add(p, "", Rule{Rewrite: &Rewrite{AddPrefix: p.str("prefix")}})
	}
	if p := f.sub("stripPrefix"); p != nil {
		p.skip("forceSlash")
		d.add(p, "", Rule{Rewrite: &Rewrite{StripPrefixes: p.strs("prefixes")}})
	}
	if p := f.sub("replacePath"); p != nil {
		path := p.str("path")
		d.add(p, "", Rule{Rewrite: &Rewrite{Path: &path}})
	}
	for _, name := range []string{"stripPrefixRegex", "replacePathRegex"} {
		if p := f.sub(name); p != nil {
			p.skip("regex", "replacement")
			d.add(p, "", Rule{Rewrite: &Rewrite{Pattern: true}})
		}
	}
}

// forwardAuth: what the answer lacks is taken from the request.
func forwardAuth(d *doc, a *fields) {
	a.skip("trustForwardHeader", "authRequestHeaders", "tls", "maxResponseBodySize", "addAuthCookiesToResponse", "forwardBody", "maxBodySize",
		"preserveLocationHeader", "preserveRequestMethod", "authSigninURL", "headerField")
	url := a.str("address")
	d.add(a, "", Rule{ExtAuth: &ExtAuth{Backend: serviceOfURL(url), Address: url, FailOpen: No}})
	h := &Headers{}
	for _, name := range a.strs("authResponseHeaders") {
		h.Writes = append(h.Writes, Header{Name: name, From: FromExtAuth, Overwrites: Yes})
	}
	if a.str("authResponseHeadersRegex") != "" {
		a.unsure("authResponseHeadersRegex")
		h.Writes = append(h.Writes, Header{Name: "*", From: FromExtAuth})
	}
	if len(h.Writes) > 0 {
		d.add(a, "", Rule{Headers: h})
	}
}

func traefikHeaders(d *doc, h *fields) {
	origins := slices.Concat(h.strs("accessControlAllowOriginList"), h.strs("accessControlAllowOriginListRegex"))
	list := &Headers{}
	custom := h.sub("customRequestHeaders")
	for _, name := range custom.names() {
		if value := custom.str(name); value == "" {
			list.Strips = append(list.Strips, name)
		} else {
			list.Writes = append(list.Writes, Header{Name: name, From: FromStatic, What: value, Overwrites: Yes})
		}
	}
	h.skip("customResponseHeaders", "accessControlAllowCredentials", "accessControlAllowHeaders", "accessControlAllowMethods", "accessControlExposeHeaders",
		"accessControlMaxAge", "addVaryHeader", "allowedHosts", "hostsProxyHeaders", "sslProxyHeaders", "stsSeconds", "stsIncludeSubdomains", "stsPreload",
		"forceSTSHeader", "frameDeny", "customFrameOptionsValue", "contentTypeNosniff", "browserXssFilter", "customBrowserXSSValue", "contentSecurityPolicy",
		"contentSecurityPolicyReportOnly", "publicKey", "referrerPolicy", "permissionsPolicy", "isDevelopment", "featurePolicy", "sslRedirect",
		"sslTemporaryRedirect", "sslHost", "sslForceHost")
	if len(list.Writes)+len(list.Strips) > 0 {
		for i := range list.Writes {
			if strings.EqualFold(list.Writes[i].Name, "Host") {
				d.add(h, "", Rule{Rewrite: &Rewrite{Host: list.Writes[i].What}})
			}
		}
		d.add(h, "", Rule{Headers: list})
	}
	if len(origins) > 0 {
		d.add(h, "", Rule{CORS: &CORS{Origins: origins}})
	}
}
