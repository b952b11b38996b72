package rules

import (
	"iter"
	"maps"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

func keys[K comparable, V any](m map[K]V) iter.Seq[K] { return maps.Keys(m) }

// parameters are what the Gateway, and then its class, refers to.
func (r *reader) parameters() []Ref {
	d := &doc{ref: r.gateway.Ref}
	spec := d.spec(r.gateway.Object)
	refs := []Ref{spec.sub("infrastructure").sub("parametersRef").ref(r.gateway.Namespace)}
	class := Ref{Group: groupGateway, Kind: "GatewayClass", Name: spec.str("gatewayClassName")}
	if class.Name != "" {
		refs = append(refs, d.spec(r.content(class)).sub("parametersRef").ref(""))
	}
	var list []Ref
	for _, ref := range refs {
		if ref.Name != "" && ref.Kind != "Service" {
			list = append(list, ref)
		}
	}
	return list
}

func envoyTraffic(_ *reader, d *doc, spec *fields) {
	d.mergeType(spec)
	spec.skip("bandwidthLimit", "faultInjection", "admissionControl", "useClientProtocol", "compression", "compressor", "responseOverride", "httpUpgrade",
		"requestBuffer", "telemetry", "routingType", "proxyProtocol", "tcpKeepalive", "circuitBreaker", "connection", "dns", "http2")
	if l := spec.sub("rateLimit"); l != nil {
		l.skip("type")
		for _, name := range []string{"global", "local"} {
			if set := l.sub(name); set != nil {
				d.add(set, "rateLimit", Rule{RateLimit: &RateLimit{Global: name == "global", By: envoyLimitedBy(set)}})
			}
		}
	}
	if b := spec.sub("loadBalancer"); b != nil {
		b.skip("slowStart", "zoneAware", "backendUtilization")
		h := b.sub("consistentHash")
		h.skip("header", "headers", "cookie", "queryParams", "tableSize")
		words := map[string]string{"SourceIP": "source", "Header": "header", "Headers": "header", "Cookie": "cookie", "QueryParams": "query"}
		switch kind := h.str("type"); {
		case h != nil && words[kind] != "":
			d.add(b, "loadBalancer", Rule{Affinity: &Affinity{By: words[kind]}})
		case h != nil:
			h.unsure("type")
		}
		b.skip("type")
		if o := b.sub("endpointOverride"); o != nil {
			o.skip("extractFrom")
			d.add(o, "loadBalancer", Rule{Affinity: &Affinity{By: "header"}})
		}
	}
	if t := spec.sub("retry"); t != nil {
		t.skip("numAttemptsPerPriority")
		n, _ := t.number("numRetries")
		on := t.sub("retryOn")
		on.skip("httpStatusCodes")
		d.add(t, "retry", Rule{Retry: &Retry{Attempts: n, On: on.strs("triggers")}})
		per := t.sub("perRetry")
		per.skip("backOff")
		if each := per.duration("timeout"); each > 0 {
			d.add(per, "retry", Rule{Timeout: &Timeout{Backend: each}})
		}
	}
	if h := spec.sub("healthCheck"); h != nil {
		d.add(h, "healthCheck", Rule{Health: &Health{Active: h.has("active"), Passive: h.has("passive")}})
		h.skip("active", "passive", "panicThreshold")
	}
	if t := spec.sub("timeout"); t != nil {
		t.skip("tcp")
		h := t.sub("http")
		h.skip("connectionIdleTimeout", "maxConnectionDuration", "maxStreamDuration", "streamIdleTimeout")
		if all := h.duration("requestTimeout"); all > 0 {
			d.add(h, "timeout", Rule{Timeout: &Timeout{Request: all}})
		}
	}
}

// envoyLimitedBy is what rules of a limit count apart.
func envoyLimitedBy(f *fields) []string {
	var by []string
	for _, rule := range f.each("rules") {
		rule.skip("limit", "cost", "shared", "shadowMode", "xRateLimitHeaders")
		for _, c := range rule.each("clientSelectors") {
			c.skip("methods", "path", "queryParams")
			for _, h := range c.each("headers") {
				h.skip("value", "invert")
				if name := h.str("name"); h.str("type") == "Distinct" {
					by = append(by, "header "+name)
				}
			}
			s := c.sub("sourceCIDR")
			s.skip("value", "invert")
			if s.str("type") == "Distinct" {
				by = append(by, "source")
			}
		}
	}
	return by
}

func envoyClient(_ *reader, d *doc, spec *fields) {
	spec.skip("tcpKeepalive", "enableProxyProtocol", "proxyProtocol", "path", "timeout", "connection", "http1", "http2", "http3", "grpc", "healthCheck", "scheme")
	w := envoyForwarded()
	said := false
	if c := spec.sub("clientIPDetection"); c != nil {
		said = true
		if x := c.sub("xForwardedFor"); x != nil {
			w.TrustedHops, _ = x.number("numTrustedHops")
			w.TrustedSources = x.strs("trustedCIDRs")
			if x.is("disableXForwardedForAppend", false) != No {
				w.For = Passes
			}
		}
		if c.has("customHeader") {
			c.unsure("customHeader") // the client's address is what the header says
			w.For = ""
		}
		c.skip("directSourceIP")
	}
	if h := spec.sub("headers"); h != nil {
		h.skip("enableEnvoyHeaders", "disableRateLimitHeaders", "withUnderscoresAction", "preserveXRequestID", "requestID", "lateResponseHeaders",
			"maxRequestHeaderLimit", "host")
		if x := h.sub("xForwardedClientCert"); x != nil {
			x.skip("certDetailsToAdd")
			said = true
			if x.has("mode") {
				if w.ClientCert = envoyClientCert(x.str("mode")); w.ClientCert == "" {
					x.unsure("mode")
				}
			}
		}
		if e := h.sub("earlyRequestHeaders"); e != nil {
			list := modifier(e)
			list.Early = true
			for _, add := range e.each("addIfAbsent") {
				list.Writes = append(list.Writes, Header{Name: add.str("name"), From: FromStatic, What: add.str("value"), Overwrites: No})
			}
			for _, m := range e.each("removeOnMatch") {
				if kind, value := m.str("type"), m.str("value"); kind == "Exact" || kind == "" {
					list.Strips = append(list.Strips, value)
				} else if kind == "Prefix" {
					list.Strips = append(list.Strips, value+"*")
				} else {
					m.unsure("type")
				}
			}
			d.add(e, "headers", Rule{Headers: list})
		}
	}
	if said {
		d.add(spec, "forwarded", Rule{Forwarded: w})
	}
	t := spec.sub("tls")
	t.skip("minVersion", "maxVersion", "ciphers", "ecdhCurves", "signatureAlgorithms", "alpnProtocols", "fingerprints", "session")
	if v := t.sub("clientValidation"); v != nil {
		mode := Strict
		if v.is("optional", false) != No {
			mode = Optional
		}
		if v.has("mode") {
			mode = modeOf(v, "mode", mode, map[string]Mode{
				"RequireAndVerify": Strict, "VerifyIfGiven": Optional, "RequireAny": Permissive, "Request": Permissive,
			})
		}
		v.skip(v.names()...)
		d.add(v, "tls", Rule{Credentials: &Credentials{Kind: ClientCert, Mode: mode, Forwards: No}})
	}
}

// gatewayKind is a kind of the Gateway API.
func gatewayKind(kind string) schema.GroupKind {
	return schema.GroupKind{Group: groupGateway, Kind: kind}
}
