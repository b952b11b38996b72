package rules

import (
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

const groupF5 = "k8s.nginx.org"

// nginxIngress is F5's NGINX Ingress Controller, read at head of August 2026: it appends to X-Forwarded-For, keeps the client's host, and leaves tokens where
// they are. Policies of a route replace those of their kind of the whole VirtualServer. Its JWT policy knows no issuers and audiences. What its ConfigMap
// says is not seen.
func nginxIngress() vendor {
	kind := func(name string) schema.GroupKind { return schema.GroupKind{Group: groupF5, Kind: name} }
	return vendor{
		name: "nginx-ingress",
		kinds: []schema.GroupVersionKind{
			kind("Policy").WithVersion("v1"), kind("VirtualServer").WithVersion("v1"), kind("VirtualServerRoute").WithVersion("v1"), ingressKind().WithVersion("v1"),
		},
		routes: map[schema.GroupKind]func(*reader, Route){
			kind("VirtualServer"): virtualServer, kind("VirtualServerRoute"): virtualServer, ingressKind(): f5Ingress,
		},
		edge: func(r *reader) { r.usually(Rule{Forwarded: &Forwarded{For: Appends, ClientCert: Passes}}) },
	}
}

func virtualServer(r *reader, route Route) {
	d := r.doc(route.Ref, route.Object, Target{Object: route.Ref})
	d.how.family, d.how.merges = "Policy", true
	spec := d.spec(route.Object)
	spec.skip("ingressClassName", "host", "listener", "tls", "gunzip", "add-header-inherit", "dos", "externalDNS")
	for _, name := range []string{"http-snippets", "server-snippets"} {
		if spec.str(name) != "" {
			spec.unsure(name)
		}
	}
	for _, it := range spec.items("upstreams") {
		r.f5Upstream(route, it)
	}
	routes := spec.items("routes")
	all := []Target{{Object: route.Ref}}
	for _, it := range routes {
		if ref := f5Route(it.m, route.Namespace); ref.Name != "" {
			all = append(all, Target{Object: ref})
		}
	}
	d.targets = all
	r.f5Policies(d, spec, route.Namespace)
	routes = append(routes, spec.items("subroutes")...)
	r.takeIfAny(d)
	for _, it := range routes {
		one, f := r.part(route, it, "Policy")
		f.skip("path", "route", "errorPages", "add-header-inherit", "dos")
		if f.has("routeSelector") {
			f.unsure("routeSelector")
		}
		if ref := f5Route(it.m, route.Namespace); ref.Name != "" {
			one.targets = append(one.targets, Target{Object: ref})
		}
		if f.str("location-snippets") != "" {
			f.unsure("location-snippets")
		}
		r.f5Policies(one, f, route.Namespace)
		f5Actions(one, f, strings.HasPrefix(f.str("path"), "~"))
		for _, m := range f.each("matches") {
			m.skip("conditions")
			f5Actions(one, m, strings.HasPrefix(f.str("path"), "~"))
		}
		r.takeIfAny(one)
	}
}

// f5Route is the VirtualServerRoute that a route of a VirtualServer leaves requests to.
func f5Route(m map[string]any, namespace string) Ref {
	name, _ := m["route"].(string)
	if name == "" {
		return Ref{}
	}
	if ns, rest, far := strings.Cut(name, "/"); far {
		namespace, name = ns, rest
	}
	return Ref{groupF5, "VirtualServerRoute", namespace, name}
}

// f5Actions reads the action of a route or of a match, and those of splits.
func f5Actions(d *doc, f *fields, pattern bool) {
	actions := []*fields{f.sub("action")}
	for _, s := range f.each("splits") {
		s.skip("weight")
		actions = append(actions, s.sub("action"))
	}
	for _, a := range actions {
		a.skip("pass", "redirect", "return")
		p := a.sub("proxy")
		p.skip("upstream", "responseHeaders")
		section := d.targets
		if len(actions) > 1 || strings.Contains(a.where(), "matches") {
			d.targets = []Target{{Object: d.ref, Section: sectionOf(a.where())}}
		}
		if path := p.str("rewritePath"); path != "" {
			w := &Rewrite{Prefix: &path}
			if pattern || strings.Contains(path, "$") {
				w = &Rewrite{Pattern: true}
			}
			d.add(p, "", Rule{Field: p.at("rewritePath"), Rewrite: w})
		}
		if h := p.sub("requestHeaders"); h != nil {
			f5Headers(d, h)
		}
		d.targets = section
	}
}

func f5Headers(d *doc, f *fields) {
	h := &Headers{}
	if f.is("pass", true) != Yes {
		h.Strips = []string{"*"}
	}
	for _, set := range f.each("set") {
		one := Header{Name: set.str("name"), From: FromStatic, What: set.str("value"), Overwrites: Yes}
		if strings.Contains(one.What, "$") {
			one.From = FromRequest
		}
		if strings.EqualFold(one.Name, "Host") {
			if one.From == FromRequest {
				set.unsure("value")
			}
			d.add(f, "", Rule{Rewrite: &Rewrite{Host: one.What}})
		}
		h.Writes = append(h.Writes, one)
	}
	d.add(f, "", Rule{Headers: h})
}

// f5Upstream is how a Service is reached.
func (r *reader) f5Upstream(route Route, it item) {
	d := r.doc(route.Ref, route.Object)
	u := d.open(it.path, it.m)
	ns, name := route.Namespace, u.str("service")
	if other, rest, far := strings.Cut(name, "/"); far {
		ns, name = other, rest
	}
	port, _ := u.number("port")
	d.targets = []Target{{Object: Ref{Kind: "Service", Namespace: ns, Name: name}, Section: itoa(port)}}
	u.skip("name", "subselector", "fail-timeout", "max-fails", "max-conns", "keepalive", "connect-timeout", "read-timeout", "send-timeout",
		"next-upstream-timeout", "buffering", "buffers", "buffer-size", "busy-buffers-size", "client-max-body-size", "client-body-buffer-size", "slow-start", "queue",
		"use-cluster-ip", "ntlm",
		"type", "backup", "backupPort")
	if by := nginxBalancing(u.str("lb-method")); by != "" {
		d.add(u, "", Rule{Field: u.at("lb-method"), Affinity: &Affinity{By: by}})
	}
	if on := strings.Fields(u.str("next-upstream")); len(on) > 0 && on[0] != "off" {
		n, _ := u.number("next-upstream-tries")
		d.add(u, "", Rule{Field: u.at("next-upstream"), Retry: &Retry{Attempts: max(0, n-1), On: on}})
	}
	u.skip("next-upstream-tries")
	if t := u.sub("tls"); t.is("enable", false) != No {
		d.add(t, "", Rule{TLS: &BackendTLS{Verifies: No}}) // an egressMTLS policy may say otherwise
	}
	if h := u.sub("healthCheck"); h != nil {
		on := h.is("enable", false)
		h.skip(h.names()...)
		if on != No {
			d.add(h, "", Rule{Health: &Health{Active: true}})
		}
	}
	if c := u.sub("sessionCookie"); c != nil {
		on := c.is("enable", false)
		c.skip(c.names()...)
		if on != No {
			d.add(c, "", Rule{Affinity: &Affinity{By: "cookie"}})
		}
	}
	r.takeIfAny(d)
}

func f5Ingress(r *reader, route Route) {
	d := r.doc(route.Ref, route.Object, Target{Object: route.Ref})
	n := d.notes(route.Object, "nginx.org/", "nginx.com/")
	n.leave("add-header", "add-header-inherit", "app-root", "basic-auth-realm", "client-body-buffer-size", "client-max-body-size", "custom-http-errors",
		"fail-timeout", "grpc-services", "hsts", "hsts-behind-proxy", "hsts-include-subdomains", "hsts-max-age", "http-redirect-code", "keepalive", "limit-req-burst",
		"limit-req-delay",
		"limit-req-dry-run", "limit-req-log-level", "limit-req-no-delay", "limit-req-reject-code", "limit-req-scale", "limit-req-zone-size", "listen-ports",
		"listen-ports-ssl", "max-conns", "max-fails", "mergeable-ingress-type", "path-regex", "proxy-buffer-size", "proxy-buffering", "proxy-buffers",
		"proxy-busy-buffers-size", "proxy-connect-timeout", "proxy-hide-headers", "proxy-max-temp-file-size", "proxy-next-upstream-timeout", "proxy-pass-headers",
		"proxy-read-timeout", "proxy-redirect-from", "proxy-redirect-to", "proxy-send-timeout", "redirect-to-https", "server-tokens", "ssl-ciphers",
		"ssl-prefer-server-ciphers", "ssl-redirect", "upstream-zone-size", "use-cluster-ip", "websocket-services")
	n.skip("nginx.com/health-checks-mandatory", "nginx.com/health-checks-mandatory-queue", "nginx.com/jwt-realm", "nginx.com/jwt-login-url",
		"nginx.com/slow-start")
	for _, name := range []string{"location-snippets", "server-snippets", "policies", "rewrites"} {
		if n.there(name) {
			n.doubt(name)
		}
	}
	if n.has("nginx.com/policies") {
		n.unsure("nginx.com/policies")
	}
	note := func(name string, rule Rule) {
		if n.str(name) != "" {
			rule.Field = n.at(name)
			d.addAt("", rule)
		}
	}
	note("nginx.org/basic-auth-secret", Rule{Credentials: &Credentials{Kind: Basic, Mode: Strict, Forwards: Yes}})
	p := Provider{Forward: Yes, Locations: nginxToken(n.str("nginx.com/jwt-token"))}
	note("nginx.com/jwt-key", Rule{JWT: &JWT{Mode: Strict, Providers: []Provider{p}}})
	note("nginx.org/ssl-services", Rule{TLS: &BackendTLS{Verifies: No}})
	note("nginx.com/sticky-cookie-services", Rule{Affinity: &Affinity{By: "cookie"}})
	note("nginx.org/sticky-cookie-services", Rule{Affinity: &Affinity{By: "cookie"}})
	note("nginx.org/limit-req-rate", Rule{RateLimit: &RateLimit{By: []string{nginxKey(n.get("limit-req-key"))}}})
	if by := nginxBalancing(n.get("lb-method")); by != "" {
		note("nginx.org/lb-method", Rule{Affinity: &Affinity{By: by}})
	}
	if n.has("nginx.com/health-checks") && n.str("nginx.com/health-checks") == "true" {
		note("nginx.com/health-checks", Rule{Health: &Health{Active: true}})
	}
	if on := strings.Fields(n.get("proxy-next-upstream")); len(on) > 0 && on[0] != "off" {
		note("nginx.org/proxy-next-upstream", Rule{Retry: &Retry{Attempts: max(0, number(n.get("proxy-next-upstream-tries"))-1), On: on}})
	}
	if to := n.get("rewrite-target"); to != "" {
		w := &Rewrite{Path: &to}
		if strings.Contains(to, "$") {
			w = &Rewrite{Pattern: true}
		}
		note("nginx.org/rewrite-target", Rule{Rewrite: w})
	}
	h := &Headers{}
	for _, name := range []string{"nginx.org/proxy-set-headers", "nginx.org/proxy-set-header"} {
		for _, one := range commas(n.str(name)) {
			key, value, _ := strings.Cut(one, ":")
			h.Writes = append(h.Writes, Header{Name: strings.TrimSpace(key), From: FromStatic, What: strings.TrimSpace(value), Overwrites: Yes})
		}
	}
	if len(h.Writes) > 0 {
		d.addAt("", Rule{Field: n.at("nginx.org/proxy-set-headers"), Headers: h})
	}
	r.takeIfAny(d)
}

// nginxToken is where a variable of nginx has a token.
func nginxToken(variable string) []Location {
	switch {
	case variable == "":
		return bearer()
	case strings.HasPrefix(variable, "$http_"):
		return []Location{{Header: strings.ReplaceAll(strings.TrimPrefix(variable, "$http_"), "_", "-")}}
	case strings.HasPrefix(variable, "$arg_"):
		return []Location{{Query: strings.TrimPrefix(variable, "$arg_")}}
	case strings.HasPrefix(variable, "$cookie_"):
		return []Location{{Cookie: strings.TrimPrefix(variable, "$cookie_")}}
	}
	return nil
}
