package rules

import (
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

const groupContour = "projectcontour.io"

// maxIncluded HTTPProxies are followed from one.
const maxIncluded = 1024

// contour was read at head of August 2026, after 1.33.8: what an HTTPProxy says of its host holds for all that it includes, and a route may say otherwise.
// What its own configuration says, as a global authorizer, trusted hops and default limits, is not seen.
func contour() vendor {
	proxy := schema.GroupKind{Group: groupContour, Kind: "HTTPProxy"}
	return vendor{
		name: "contour", kinds: []schema.GroupVersionKind{proxy.WithVersion("v1"), ingressKind().WithVersion("v1")},
		routes: map[schema.GroupKind]func(*reader, Route){proxy: httpProxy, ingressKind(): contourIngress},
		edge: func(r *reader) {
			r.usually(Rule{Forwarded: envoyForwarded()})
			for _, ref := range slices.SortedFunc(maps.Keys(r.backends), compareRefs) {
				if ref.Kind == "Service" {
					r.contourService(ref)
				}
			}
		},
	}
}

// part begins to read a part of an object, whose rules replace those of the whole.
func (r *reader) part(route Route, it item, family string) (*doc, *fields) {
	section := sectionOf(it.path)
	d := r.doc(route.Ref, route.Object, Target{Object: route.Ref, Section: section})
	d.how.family, d.how.merges = family, true
	d.how.owner.Name += " " + section
	return d, d.open(it.path, it.m)
}

func httpProxy(r *reader, route Route) {
	d := r.doc(route.Ref, route.Object)
	d.how.family, d.how.merges = "HTTPProxy", true
	d.targets = r.included(route.Ref)
	spec := d.spec(route.Object)
	spec.skip("includes", "tcpproxy", "ingressClassName")
	providers := r.contourProviders(route)
	if host := spec.sub("virtualhost"); host != nil {
		contourHost(d, host, providers)
	}
	for _, it := range spec.items("routes") {
		one, f := r.part(route, it, "HTTPProxy")
		f.skip("conditions", "enableWebsockets", "permitInsecure", "responseHeadersPolicy", "cookieRewritePolicies", "requestRedirectPolicy", "directResponsePolicy",
			"internalRedirectPolicy")
		contourRoute(one, f, providers)
		for _, to := range f.items("services") {
			part, s := r.part(route, to, "HTTPProxy")
			s.skip("name", "port", "healthPort", "weight", "mirror", "responseHeadersPolicy", "cookieRewritePolicies", "slowStartPolicy")
			contourHeaders(part, s.sub("requestHeadersPolicy"))
			v := s.sub("validation")
			v.skip("caSecret", "subjectNames")
			name, verifies := v.str("subjectName"), answer(v != nil)
			switch protocol := s.str("protocol"); protocol {
			case "tls", "h2":
				part.add(s, "", Rule{Field: s.at("protocol"), TLS: &BackendTLS{Hostname: name, Verifies: verifies}})
			case "", "h2c":
			default:
				s.unsure("protocol")
			}
			r.takeIfAny(part)
		}
		r.takeIfAny(one)
	}
	r.takeIfAny(d)
}

// included are an HTTPProxy and all that it includes, as targets.
func (r *reader) included(root Ref) []Target {
	seen, queue := map[Ref]bool{}, []Ref{root}
	var list []Target
	for len(queue) > 0 && len(list) < maxIncluded {
		ref := queue[0]
		queue = queue[1:]
		if seen[ref] {
			continue
		}
		seen[ref] = true
		list = append(list, Target{Object: ref})
		object, there := r.known[ref]
		if !there {
			object = r.content(ref)
		}
		d := &doc{}
		for _, i := range d.spec(object).each("includes") {
			to := i.ref(ref.Namespace)
			to.Group, to.Kind = groupContour, "HTTPProxy"
			queue = append(queue, to)
		}
	}
	return list
}

// contourProviders are the JWT providers of the host that an HTTPProxy is of: its own, or those of one that includes it.
func (r *reader) contourProviders(route Route) map[string]Provider {
	if r.providers == nil {
		r.providers = map[Ref]map[string]Provider{}
		for _, root := range r.routes {
			r.provide(root)
		}
	}
	return r.providers[route.Ref]
}

// provide notes the JWT providers of a root for all that it includes.
func (r *reader) provide(root Route) {
	d := &doc{ref: root.Ref}
	list := d.spec(root.Object).sub("virtualhost").each("jwtProviders")
	if root.Kind != "HTTPProxy" || len(list) == 0 {
		return
	}
	for _, t := range r.included(root.Ref) {
		if r.providers[t.Object] == nil {
			r.providers[t.Object] = map[string]Provider{}
		}
		for _, p := range list {
			provider := contourProvider(p)
			r.providers[t.Object][provider.Name] = provider
		}
	}
}

func contourProvider(p *fields) Provider {
	p.skip("localJWKS", "default")
	keys := p.sub("remoteJWKS")
	keys.skip("validation", "timeout", "cacheDuration", "dnsLookupFamily")
	return Provider{
		Name: p.str("name"), Issuer: p.str("issuer"), Audiences: p.strs("audiences"), Forward: p.is("forwardJWT", false), Locations: envoyLocations(),
		Keys: Keys{URI: keys.str("uri")},
	}
}

func contourHost(d *doc, host *fields, providers map[string]Provider) {
	host.skip("fqdn")
	t := host.sub("tls")
	t.skip("secretName", "minimumProtocolVersion", "maximumProtocolVersion", "enableFallbackCertificate")
	if t.is("passthrough", false) != No {
		t.unsure("passthrough") // it sees nothing of requests
	}
	if v := t.sub("clientValidation"); v != nil {
		v.skip("caSecret", "crlSecret", "crlOnlyVerifyLeafCert")
		c := &Credentials{Kind: ClientCert, Mode: Strict, Forwards: No}
		if v.is("optionalClientCertificate", false) != No {
			c.Mode = Optional
		}
		if v.is("skipClientCertValidation", false) != No {
			c.Mode = Permissive
		}
		d.add(v, "clientValidation", Rule{Credentials: c})
		if v.has("forwardClientCertificate") {
			v.skip("forwardClientCertificate")
			d.add(v, "forwarded", Rule{Field: v.at("forwardClientCertificate"), Forwarded: &Forwarded{For: Appends, ClientCert: Replaces}})
		}
	}
	if a := host.sub("authorization"); a != nil {
		contourAuth(d, a)
	}
	if c := host.sub("corsPolicy"); c != nil {
		c.skip("allowCredentials", "allowMethods", "allowHeaders", "exposeHeaders", "maxAge", "allowPrivateNetwork")
		d.add(c, "cors", Rule{CORS: &CORS{Origins: c.strs("allowOrigin")}})
	}
	contourLimits(d, host.sub("rateLimitPolicy"), "host")
	contourIPs(d, host)
	for _, p := range host.each("jwtProviders") {
		if p.is("default", false) == Yes {
			d.add(p, "jwt", Rule{JWT: &JWT{Mode: Strict, Providers: []Provider{contourProvider(p)}}})
		} else {
			contourProvider(p)
		}
	}
}

func contourAuth(d *doc, a *fields) {
	a.skip("serviceType", "authPolicy", "responseTimeout", "withRequestBody")
	ref := a.sub("extensionRef")
	ref.skip("apiVersion")
	to := ref.ref(d.ref.Namespace)
	if to.Name != "" {
		to.Group, to.Kind = groupContour, "ExtensionService"
	}
	d.add(a, "auth", Rule{ExtAuth: &ExtAuth{Backend: to, FailOpen: a.is("failOpen", false)}})
	names := []string{"*"}
	if h := a.sub("httpSettings"); h != nil {
		h.skip("pathPrefix", "allowedAuthorizationHeaders")
		names = nil
		for _, one := range h.each("allowedUpstreamHeaders") {
			one.skip("ignoreCase")
			name := one.str("exact")
			if prefix := one.str("prefix"); prefix != "" {
				name = prefix + "*"
			}
			if name == "" {
				one.skip("suffix", "contains")
				name = "*"
			}
			names = append(names, name)
		}
	}
	if len(names) > 0 {
		d.add(a, "auth", Rule{Headers: &Headers{Writes: fromExtAuth(names)}})
	}
}

func contourLimits(d *doc, f *fields, where string) {
	if l := f.sub("local"); l != nil {
		l.skip(l.names()...)
		d.add(l, where+" local", Rule{RateLimit: &RateLimit{}})
	}
	g := f.sub("global")
	if g == nil {
		return
	}
	off, limit := g.is("disabled", false), &RateLimit{Global: true}
	for _, set := range g.each("descriptors") {
		for _, e := range set.each("entries") {
			e.skip("genericKey", "requestHeaderValueMatch")
			if e.has("remoteAddress") {
				limit.By = append(limit.By, "source")
			}
			e.skip("remoteAddress")
			h := e.sub("requestHeader")
			h.skip("descriptorKey")
			if name := h.str("headerName"); name != "" {
				limit.By = append(limit.By, "header "+name)
			}
		}
	}
	rule := Rule{RateLimit: limit}
	if off == Yes {
		rule = Rule{}
	}
	d.add(g, where+" global", rule)
}

func contourIPs(d *doc, f *fields) {
	ips, field := &IPs{}, ""
	for _, name := range []string{"ipAllowPolicy", "ipDenyPolicy"} {
		for _, one := range f.each(name) {
			field = name
			ips.FromHeader = ips.FromHeader || one.str("source") == "Remote"
			if cidr := one.str("cidr"); name == "ipAllowPolicy" {
				ips.Allow = append(ips.Allow, cidr)
			} else {
				ips.Deny, ips.AllowOthers = append(ips.Deny, cidr), true
			}
		}
	}
	if field != "" {
		d.add(f, "ips", Rule{Field: f.at(field), IPs: ips})
	}
}

func contourHeaders(d *doc, f *fields) {
	if f == nil {
		return
	}
	h := &Headers{Strips: f.strs("remove")}
	for _, set := range f.each("set") {
		one := Header{Name: set.str("name"), From: FromStatic, What: set.str("value"), Overwrites: Yes}
		if strings.Contains(one.What, "%") {
			one.From = FromRequest
		}
		if strings.EqualFold(one.Name, "Host") {
			if one.From == FromRequest {
				set.unsure("value")
			}
			d.add(f, "", Rule{Rewrite: &Rewrite{Host: one.What}})
			continue
		}
		h.Writes = append(h.Writes, one)
	}
	d.add(f, "", Rule{Headers: h})
}
