package rules

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// gatewayAPI is what the Gateway API has itself, 1.6: filters, timeouts, retries and sessions of routes, and BackendTLSPolicies.
func gatewayAPI() vendor {
	route := func(kind string) schema.GroupKind { return schema.GroupKind{Group: groupGateway, Kind: kind} }
	tls := route("BackendTLSPolicy")
	return vendor{
		kinds:    []schema.GroupVersionKind{tls.WithVersion("v1")},
		policies: []policy{{kind: tls, read: backendTLSPolicy}},
		edge:     clientCertificates,
		routes: map[schema.GroupKind]func(*reader, Route){
			route("HTTPRoute"): readRoute, route("GRPCRoute"): readRoute,
		},
	}
}

// clientCertificates reads which certificates a Gateway asks clients for.
func clientCertificates(r *reader) {
	d := r.doc(r.gateway.Ref, r.gateway.Object)
	front := d.spec(r.gateway.Object).sub("tls").sub("frontend")
	var special []string
	for _, p := range front.each("perPort") {
		port, _ := p.number("port")
		d.targets = nil
		for _, name := range r.listenersAt(port) {
			special = append(special, name)
			d.targets = append(d.targets, Target{Object: r.gateway.Ref, Section: name})
		}
		validation(d, p.sub("tls"))
	}
	d.targets = []Target{r.whole()}
	if len(special) > 0 {
		d.targets = nil
		for _, name := range r.listeners() {
			if !slices.Contains(special, name) {
				d.targets = append(d.targets, Target{Object: r.gateway.Ref, Section: name})
			}
		}
	}
	validation(d, front.sub("default"))
	r.rules, r.stands = append(r.rules, d.rules...), append(r.stands, d.stands...) // of the rest of the Gateway nothing is asked here
}

func validation(d *doc, f *fields) {
	v := f.sub("validation")
	if v == nil || len(d.targets) == 0 {
		return
	}
	mode, known := map[string]Mode{"": Strict, "AllowValidOnly": Strict, "AllowInsecureFallback": Permissive}[v.str("mode")]
	rule := Rule{Credentials: &Credentials{Kind: ClientCert, Mode: mode, Forwards: No}}
	if !known {
		rule.Unknown = []string{v.at("mode")}
	}
	d.add(v, "", rule)
}

func backendTLSPolicy(_ *reader, d *doc, spec *fields) {
	v := spec.sub("validation")
	v.skip("caCertificateRefs", "wellKnownCACertificates", "subjectAltNames")
	spec.skip("options")
	d.add(spec, "", Rule{TLS: &BackendTLS{Hostname: v.str("hostname"), Verifies: Yes}})
}

// readRoute reads the rules of an HTTPRoute or GRPCRoute.
func readRoute(r *reader, route Route) {
	d := r.doc(route.Ref, route.Object, Target{Object: route.Ref})
	spec := d.spec(route.Object)
	spec.skip("parentRefs", "hostnames", "useDefaultGateways")
	for _, rule := range spec.items("rules") {
		r.routeRule(route, rule)
	}
	r.takeIfAny(d)
}

func (r *reader) routeRule(route Route, it item) {
	d := r.doc(route.Ref, route.Object, Target{Object: route.Ref, Section: sectionOf(it.path)})
	rule := d.open(it.path, it.m)
	rule.skip("name", "matches")
	r.filters(d, rule)
	if t := rule.sub("timeouts"); t != nil {
		d.add(t, "", Rule{Timeout: &Timeout{Request: t.duration("request"), Backend: t.duration("backendRequest")}})
	}
	if t := rule.sub("retry"); t != nil {
		t.skip("backoff", "codes")
		n, _ := t.number("attempts")
		d.add(t, "", Rule{Retry: &Retry{Attempts: n}})
	}
	if s := rule.sub("sessionPersistence"); s != nil {
		s.skip("sessionName", "absoluteTimeout", "idleTimeout", "cookieConfig")
		by := strings.ToLower(s.str("type"))
		if by == "" {
			by = "cookie"
		}
		d.add(s, "", Rule{Affinity: &Affinity{By: by}})
	}
	for _, b := range rule.items("backendRefs") {
		to := r.doc(route.Ref, route.Object, Target{Object: route.Ref, Section: sectionOf(b.path)})
		backend := to.open(b.path, b.m)
		backend.skip("group", "kind", "namespace", "name", "port", "weight")
		r.filters(to, backend)
		r.takeIfAny(to)
	}
	r.takeIfAny(d)
}

// takeIfAny takes what was read of a route, or of a part of it, if it says anything.
func (r *reader) takeIfAny(d *doc) {
	rules, stands := d.finish()
	for i := range rules {
		if rules[i].about() != "" || rules[i].Field != bareField || len(rules[i].Unknown) > 0 {
			r.rules, r.stands = append(r.rules, rules[i]), append(r.stands, stands[i])
		}
	}
}

// filters reads those of a rule, or of a backend.
func (r *reader) filters(d *doc, f *fields) {
	for _, filter := range f.each("filters") {
		filter.skip("type", "responseHeaderModifier", "requestMirror", "requestRedirect")
		if m := filter.sub("requestHeaderModifier"); m != nil {
			d.add(m, "", Rule{Headers: modifier(m)})
		}
		if u := filter.sub("urlRewrite"); u != nil {
			d.add(u, "", Rule{Rewrite: urlRewrite(u)})
		}
		if c := filter.sub("cors"); c != nil {
			c.skip("allowCredentials", "allowMethods", "allowHeaders", "exposeHeaders", "maxAge")
			d.add(c, "", Rule{CORS: &CORS{Origins: c.strs("allowOrigins")}})
		}
		if e := filter.sub("externalAuth"); e != nil {
			externalAuth(d, e)
		}
		if x := filter.sub("extensionRef"); x != nil {
			r.extension(d, x)
		}
	}
}

// modifier reads a HeaderModifier of the Gateway API.
func modifier(f *fields) *Headers {
	h := &Headers{Strips: f.strs("remove")}
	for _, set := range f.each("set") {
		h.Writes = append(h.Writes, Header{Name: set.str("name"), From: FromStatic, What: set.str("value"), Overwrites: Yes})
	}
	for _, add := range f.each("add") {
		h.Writes = append(h.Writes, Header{Name: add.str("name"), From: FromStatic, What: add.str("value"), Overwrites: No, Appends: true})
	}
	return h
}

func urlRewrite(f *fields) *Rewrite {
	w := &Rewrite{Host: f.str("hostname")}
	if p := f.sub("path"); p != nil {
		full, prefix := p.has("replaceFullPath"), p.has("replacePrefixMatch")
		a, b := p.str("replaceFullPath"), p.str("replacePrefixMatch")
		switch p.str("type") {
		case "ReplaceFullPath":
			if full {
				w.Path = &a
			}
		case "ReplacePrefixMatch":
			if prefix {
				w.Prefix = &b
			}
		default:
			p.unsure("type")
			w.Pattern = true
		}
	}
	return w
}

// externalAuth reads the ExternalAuth filter. The Gateway API has it fail closed.
func externalAuth(d *doc, f *fields) {
	f.skip("protocol", "forwardBody")
	f.sub("grpc").skip("allowedHeaders")
	http := f.sub("http")
	http.skip("path", "allowedHeaders")
	d.add(f, "", Rule{ExtAuth: &ExtAuth{Backend: f.sub("backendRef").ref(d.ref.Namespace), FailOpen: No}})
	names := http.strs("allowedResponseHeaders")
	if len(names) == 0 {
		names = []string{"*"}
	}
	d.add(f, "", Rule{Headers: &Headers{Writes: fromExtAuth(names)}})
}

// fromExtAuth are headers taken from the answer of an external authorizer: where that has none, what a client sent stays.
func fromExtAuth(names []string) []Header {
	var list []Header
	for _, name := range names {
		list = append(list, Header{Name: name, From: FromExtAuth, Overwrites: No})
	}
	return list
}

// extension reads what an ExtensionRef names.
func (r *reader) extension(d *doc, ref *fields) {
	to := Ref{normalGroup(ref.str("group")), ref.str("kind"), d.ref.Namespace, ref.str("name")}
	for i := range r.vendors {
		read := r.vendors[i].filters[to.kind()]
		if read == nil {
			continue
		}
		other, spec, there := r.also(d, to)
		if !there {
			break
		}
		other.by, other.how.owner = Ref{}, to // a filter is attached by the route itself
		for _, p := range r.vendors[i].policies {
			if p.kind == to.kind() && !p.all {
				other.how.family, other.how.merges = to.Kind, p.merges
			}
		}
		read(r, other, spec)
		r.take(other)
		return
	}
	ref.unsure("")
}
