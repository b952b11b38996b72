package rules

import "strings"

// ingressRoute reads the routes of an IngressRoute, and how they send to Services.
func ingressRoute(r *reader, route Route) {
	d := r.doc(route.Ref, route.Object, Target{Object: route.Ref})
	spec := d.spec(route.Object)
	spec.skip("ingressClassName", "entryPoints", "tls", "parentRefs")
	for _, it := range spec.items("routes") {
		one := r.doc(route.Ref, route.Object, Target{Object: route.Ref, Section: sectionOf(it.path)})
		f := one.open(it.path, it.m)
		f.skip("match", "kind", "priority", "syntax", "observability")
		refs := middlewareRefs(f, route.Namespace)
		for _, to := range f.items("services") {
			part := r.doc(route.Ref, route.Object, Target{Object: route.Ref, Section: sectionOf(to.path)})
			s := part.open(to.path, to.m)
			own := middlewareRefs(s, route.Namespace)
			r.traefikService(part, s, route.Namespace)
			r.middlewares(part, own)
			r.takeIfAny(part)
		}
		r.middlewares(one, refs)
		r.takeIfAny(one)
	}
	r.takeIfAny(d)
}

func (r *reader) traefikService(d *doc, s *fields, namespace string) {
	s.skip("name", "namespace", "weight", "strategy", "responseForwarding", "nativeLB", "nodePortLB")
	if kind := s.str("kind"); kind != "" && kind != "Service" {
		s.unsure("kind") // where that sends to is not followed
	}
	port, _ := s.m["port"].(string)
	n, isNumber := 0, false
	if port == "" {
		n, isNumber = s.number("port")
	}
	s.skip("port")
	verifies := Yes
	if name := s.str("serversTransport"); name != "" {
		to := Ref{groupTraefik, "ServersTransport", namespace, name}
		spec, _ := r.content(to)["spec"].(map[string]any)
		if spec == nil {
			s.unsure("serversTransport")
		}
		if skip, _ := spec["insecureSkipVerify"].(bool); skip {
			verifies = No
		}
	}
	switch scheme := s.str("scheme"); {
	case scheme == "https", scheme == "" && (isNumber && n == 443 || strings.HasPrefix(port, "https")):
		field := "scheme"
		if scheme == "" {
			field = "port"
		}
		d.add(s, "", Rule{Field: s.at(field), TLS: &BackendTLS{Verifies: verifies}})
	case scheme != "" && scheme != "http" && scheme != "h2c":
		s.unsure("scheme")
	}
	if s.is("passHostHeader", true) == No {
		d.add(s, "", Rule{Field: s.at("passHostHeader"), Rewrite: &Rewrite{BackendHost: true}})
	}
	if sticky := s.sub("sticky"); sticky != nil {
		sticky.skip("cookie")
		d.add(sticky, "", Rule{Affinity: &Affinity{By: "cookie"}})
	}
	for name, h := range map[string]Health{"healthCheck": {Active: true}, "passiveHealthCheck": {Passive: true}} {
		if f := s.sub(name); f != nil {
			f.skip(f.names()...)
			d.add(f, "", Rule{Health: &h})
		}
	}
}

// traefikIngress reads the annotations of an Ingress, and those of the Services that it sends to.
func traefikIngress(r *reader, route Route) {
	d := r.doc(route.Ref, route.Object, Target{Object: route.Ref})
	n := d.notes(route.Object, "traefik.ingress.kubernetes.io/")
	n.leave("router.entrypoints", "router.priority", "router.pathmatcher", "router.rulesyntax", "router.tls", "router.tls.certresolver", "router.tls.options")
	for _, name := range n.names() {
		if strings.HasPrefix(name, n.prefix+"router.tls.") || strings.HasPrefix(name, n.prefix+"router.observability.") {
			n.skip(name)
		}
	}
	var refs []chained
	for _, word := range n.words("router.middlewares") {
		name, provider, _ := strings.Cut(word, "@")
		if to := r.named(name); provider == "kubernetescrd" && to.Name != "" {
			refs = append(refs, chained{to, n.field("router.middlewares")})
		} else {
			n.doubt("router.middlewares")
		}
	}
	r.middlewares(d, refs)
	r.takeIfAny(d)
	for _, ref := range backendsOf(route) {
		r.serviceNotes(ref)
	}
}

// named is the Middleware whose namespace and name, with a dash between, are this. The dash may be at several places: the one that exists is meant.
func (r *reader) named(joined string) Ref {
	for i, c := range joined {
		if c != '-' {
			continue
		}
		if to := (Ref{groupTraefik, "Middleware", joined[:i], joined[i+1:]}); r.content(to) != nil {
			return to
		}
	}
	return Ref{}
}

// serviceNotes are those of a Service, which count where an Ingress sends to it.
func (r *reader) serviceNotes(ref Ref) {
	if r.noted[ref] {
		return
	}
	r.noted[ref] = true
	d := r.doc(ref, r.known[ref], Target{Object: ref})
	n := d.notes(r.known[ref], "traefik.ingress.kubernetes.io/service.")
	n.leave("serverstransport", "nativelb", "nodeportlb")
	switch n.get("serversscheme") {
	case "":
	case "https":
		d.addAt("", Rule{Field: n.field("serversscheme"), TLS: &BackendTLS{Verifies: Unsure}})
	case "http", "h2c":
	default:
		n.doubt("serversscheme")
	}
	if n.there("passhostheader") && !n.yes("passhostheader") {
		d.addAt("", Rule{Field: n.field("passhostheader"), Rewrite: &Rewrite{BackendHost: true}})
	}
	if n.yes("sticky.cookie") {
		d.addAt("", Rule{Field: n.field("sticky.cookie"), Affinity: &Affinity{By: "cookie"}})
	}
	for _, name := range n.names() {
		if strings.HasPrefix(name, n.prefix+"sticky.cookie.") {
			n.skip(name)
		}
	}
	r.takeIfAny(d)
}
