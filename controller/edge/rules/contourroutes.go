package rules

import "strings"

func contourRoute(d *doc, f *fields, providers map[string]Provider) {
	contourHeaders(d, f.sub("requestHeadersPolicy"))
	if a := f.sub("authPolicy"); a != nil {
		a.skip("context")
		if a.is("disabled", false) == Yes {
			d.add(a, "auth", Rule{})
		}
	}
	if j := f.sub("jwtVerificationPolicy"); j != nil {
		if name := j.str("require"); name != "" {
			p, known := providers[name]
			if !known {
				j.unsure("require")
				p = Provider{Name: name, Issuer: ""}
			}
			d.add(j, "jwt", Rule{JWT: &JWT{Mode: Strict, Providers: []Provider{p}}})
		}
		if j.is("disabled", false) == Yes {
			d.add(j, "jwt", Rule{})
		}
	}
	contourLimits(d, f.sub("rateLimitPolicy"), "route")
	contourIPs(d, f)
	if t := f.sub("timeoutPolicy"); t != nil {
		t.skip("idle", "idleConnection")
		if strings.HasPrefix(t.str("response"), "infini") {
			t.skip("response")
		} else {
			d.add(t, "", Rule{Timeout: &Timeout{Request: t.duration("response")}})
		}
	}
	if t := f.sub("retryPolicy"); t != nil {
		t.skip("retriableStatusCodes")
		n, there := t.number("count")
		if !there {
			n = 1
		}
		d.add(t, "", Rule{Retry: &Retry{Attempts: n, On: t.strs("retryOn")}})
		if strings.HasPrefix(t.str("perTryTimeout"), "infini") {
			t.skip("perTryTimeout")
		} else if per := t.duration("perTryTimeout"); per > 0 {
			d.add(t, "", Rule{Timeout: &Timeout{Backend: per}})
		}
	}
	if h := f.sub("healthCheckPolicy"); h != nil {
		h.skip(h.names()...)
		d.add(h, "", Rule{Health: &Health{Active: true}})
	}
	if l := f.sub("loadBalancerPolicy"); l != nil {
		l.skip("requestHashPolicies")
		switch l.str("strategy") {
		case "Cookie":
			d.add(l, "", Rule{Affinity: &Affinity{By: "cookie"}})
		case "RequestHash":
			d.add(l, "", Rule{Affinity: &Affinity{By: "hash"}})
		case "", "Random", "RoundRobin", "WeightedLeastRequest":
		default:
			l.unsure("strategy")
		}
	}
	if p := f.sub("pathRewritePolicy"); p != nil {
		w := &Rewrite{}
		list := p.each("replacePrefix")
		for _, one := range list {
			prefix := one.str("replacement")
			if w.Prefix = &prefix; one.str("prefix") != "" || len(list) > 1 { // it depends on what matched
				w.Prefix, w.Pattern = nil, true
			}
		}
		d.add(p, "", Rule{Rewrite: w})
	}
}

// contourIngress reads the annotations of an Ingress.
func contourIngress(r *reader, route Route) {
	d := r.doc(route.Ref, route.Object, Target{Object: route.Ref})
	n := d.notes(route.Object, "projectcontour.io/")
	n.leave("ingress.class", "per-try-timeout", "tls-minimum-protocol-version", "tls-maximum-protocol-version", "tls-cert-namespace", "websocket-routes")
	if n.there("num-retries") || n.there("retry-on") {
		d.addAt("", Rule{Field: n.field("retry-on"), Retry: &Retry{Attempts: number(n.get("num-retries")), On: n.words("retry-on")}})
	}
	if s := n.get("response-timeout"); s != "" && !strings.HasPrefix(s, "infini") {
		d.addAt("", Rule{Field: n.field("response-timeout"), Timeout: &Timeout{Request: n.duration(n.prefix + "response-timeout")}})
	}
	r.takeIfAny(d)
}

// contourService reads the annotations of a Service: which of its ports speak TLS.
func (r *reader) contourService(ref Ref) {
	d := r.doc(ref, r.known[ref])
	n := d.notes(r.known[ref], "projectcontour.io/")
	n.leave("max-connections", "max-pending-requests", "max-requests", "max-retries", "per-host-max-connections", "upstream-protocol.h2c")
	for _, name := range []string{"upstream-protocol.tls", "upstream-protocol.h2"} {
		d.targets = nil
		for _, port := range n.words(name) {
			d.targets = append(d.targets, Target{Object: ref, Section: port})
		}
		if len(d.targets) > 0 {
			d.addAt("", Rule{Field: n.field(name), TLS: &BackendTLS{Verifies: No}})
		}
	}
	d.targets = []Target{{Object: ref}}
	r.takeIfAny(d)
}
