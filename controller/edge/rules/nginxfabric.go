package rules

import "k8s.io/apimachinery/pkg/runtime/schema"

const groupFabric = "gateway.nginx.org"

// nginxFabric is NGINX Gateway Fabric, read at head of August 2026, after 2.6.7: it appends to X-Forwarded-For, and leaves tokens where they are. Claims are
// written with proxy_set_header, so that what clients send under those names is gone.
func nginxFabric() vendor {
	kind := func(name string) schema.GroupKind { return schema.GroupKind{Group: groupFabric, Kind: name} }
	anything := func(_ *reader, d *doc, spec *fields) {
		spec.skip(spec.names()...)
		d.add(spec, "", Rule{})
		spec.unsure("") // it may change all of a request
	}
	v := vendor{
		name: "nginx-gateway-fabric",
		policies: []policy{
			{kind: kind("RateLimitPolicy"), all: true, read: fabricLimit},
			{kind: kind("UpstreamSettingsPolicy"), merges: true, read: fabricUpstream},
			{kind: kind("SnippetsPolicy"), all: true, read: anything},
			{kind: kind("PayloadProcessor"), all: true, read: anything},
		},
		filters: map[schema.GroupKind]func(*reader, *doc, *fields){kind("AuthenticationFilter"): fabricAuth, kind("SnippetsFilter"): anything},
		edge:    fabricEdge,
	}
	for _, p := range v.policies {
		v.kinds = append(v.kinds, p.kind.WithVersion("v1alpha1"))
	}
	v.kinds = append(v.kinds, kind("AuthenticationFilter").WithVersion("v1alpha1"), kind("SnippetsFilter").WithVersion("v1alpha1"),
		kind("NginxProxy").WithVersion("v1alpha2"), gatewayKind("GatewayClass").WithVersion("v1"))
	return v
}

func fabricEdge(r *reader) {
	r.usually(Rule{Forwarded: &Forwarded{For: Appends, ClientCert: Passes}})
	for _, to := range r.parameters() {
		if to.kind() != (schema.GroupKind{Group: groupFabric, Kind: "NginxProxy"}) {
			continue
		}
		d := r.doc(to, r.content(to), r.whole())
		d.how.family, d.how.merges = "NginxProxy", true
		spec := d.spec(r.content(to))
		if r.content(to) == nil {
			d.unknown = append(d.unknown, "spec")
		}
		spec.skip("ipFamily", "telemetry", "metrics", "logging", "nginxPlus", "disableHTTP2", "useClusterIP", "disableSNIHostValidation", "kubernetes",
			"workerConnections", "workerProcesses", "workerRlimitNofile", "dnsResolver")
		if c := spec.sub("rewriteClientIP"); c != nil {
			c.skip("setIPRecursively")
			w := &Forwarded{For: Appends, ClientCert: Passes}
			for _, a := range c.each("trustedAddresses") {
				a.skip("type")
				w.TrustedSources = append(w.TrustedSources, a.str("value"))
			}
			switch c.str("mode") {
			case "XForwardedFor":
			case "ProxyProtocol", "":
				w.TrustedSources = nil
			default:
				c.unsure("mode")
			}
			d.add(c, "rewriteClientIP", Rule{Forwarded: w})
		}
		r.takeIfAny(d)
	}
}

func fabricLimit(_ *reader, d *doc, spec *fields) {
	l := spec.sub("rateLimit")
	l.skip("dryRun", "logLevel", "rejectCode")
	limit := &RateLimit{}
	for _, rule := range l.sub("local").each("rules") {
		rule.skip("zoneSize", "delay", "noDelay", "burst", "rate")
		limit.By = append(limit.By, nginxKey(rule.str("key")))
	}
	if l != nil {
		d.add(l, "", Rule{RateLimit: limit})
	}
}

// nginxKey is what a variable of nginx counts apart.
func nginxKey(key string) string {
	switch key {
	case "$binary_remote_addr", "$remote_addr", "${binary_remote_addr}", "${remote_addr}":
		return "source"
	}
	return key
}

func fabricUpstream(_ *reader, d *doc, spec *fields) {
	spec.skip("zoneSize", "keepAlive", "useClusterIP", "hashMethodKey")
	if by := nginxBalancing(spec.str("loadBalancingMethod")); by != "" {
		d.add(spec, "loadBalancingMethod", Rule{Field: spec.at("loadBalancingMethod"), Affinity: &Affinity{By: by}})
	}
}

// nginxBalancing is what a load balancing method of nginx keeps together.
func nginxBalancing(method string) string {
	switch {
	case method == "ip_hash":
		return "source"
	case len(method) > 4 && method[:4] == "hash":
		return "hash"
	case method == "hash":
		return "hash"
	}
	return ""
}

func fabricAuth(_ *reader, d *doc, spec *fields) {
	spec.skip("type")
	if b := spec.sub("basic"); b != nil {
		b.skip("secretRef", "realm")
		d.add(b, "", Rule{Credentials: &Credentials{Kind: Basic, Mode: Strict, Forwards: Yes}})
	}
	if j := spec.sub("jwt"); j != nil {
		j.skip("file", "keyCache", "leeway", "realm", "source")
		remote := j.sub("remote")
		remote.skip("caCertificateRefs")
		// It has no field for issuers and audiences: claims are conditions of authorization.
		p := Provider{Forward: Yes, Locations: bearer(), Keys: Keys{URI: remote.str("uri")}}
		d.add(j, "", Rule{JWT: &JWT{Mode: Strict, Providers: []Provider{p}}})
		fabricClaims(d, j.sub("authorization"))
	}
	if o := spec.sub("oidc"); o != nil {
		o.skip("extraAuthArgs", "crlSecretRef", "configURL", "pkce", "session", "logout", "redirectURI", "clientSecretRef", "clientID", "caCertificateRefs")
		d.add(o, "", Rule{Login: &Login{Issuer: o.str("issuer"), Forwards: Unsure, ForwardsIDToken: Unsure, TakesTokens: No}})
		fabricClaims(d, o.sub("authorization"))
	}
}

func fabricClaims(d *doc, a *fields) {
	if a == nil {
		return
	}
	a.skip("require")
	h := &Headers{}
	for _, rule := range a.each("rules") {
		rule.skip("require")
		for _, c := range rule.each("claims") {
			c.skip("match", "values")
			claim := c.str("name")
			if name := c.str("proxySetHeader"); name != "" {
				h.Writes = append(h.Writes, Header{Name: name, From: FromClaim, What: claim, Overwrites: Yes})
			}
		}
	}
	d.add(a, "", Rule{Access: &Access{}})
	if len(h.Writes) > 0 {
		d.add(a, "", Rule{Headers: h})
	}
}
