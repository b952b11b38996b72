package rules

import "strings"

// f5Policies reads the Policies that a VirtualServer or a route of it names.
func (r *reader) f5Policies(d *doc, f *fields, namespace string) {
	for _, ref := range f.each("policies") {
		to := ref.ref(namespace)
		if to.Name == "" {
			continue
		}
		to.Group, to.Kind = groupF5, "Policy"
		other, spec, there := r.also(d, to)
		if !there {
			ref.unsure("name")
			continue
		}
		f5Policy(other, spec)
		r.take(other)
	}
}

func f5Policy(d *doc, spec *fields) {
	spec.skip("ingressClassName", "waf", "cache", "hsts")
	if a := spec.sub("accessControl"); a != nil {
		ips := &IPs{Allow: a.strs("allow"), Deny: a.strs("deny")}
		ips.AllowOthers = len(ips.Allow) == 0
		d.add(a, "accessControl", Rule{IPs: ips})
	}
	if l := spec.sub("rateLimit"); l != nil {
		l.skip("rate", "delay", "noDelay", "burst", "zoneSize", "dryRun", "logLevel", "rejectCode", "scale")
		if l.has("condition") {
			l.unsure("condition")
		}
		d.add(l, "rateLimit", Rule{RateLimit: &RateLimit{By: []string{nginxKey(l.str("key"))}}})
	}
	if j := spec.sub("jwt"); j != nil {
		j.skip("realm", "secret", "keyCache", "sniEnabled", "sniName", "sslVerify", "trustedCertSecret", "sslVerifyDepth")
		p := Provider{Forward: Yes, Locations: nginxToken(j.str("token")), Keys: Keys{URI: j.str("jwksURI")}}
		d.add(j, "jwt", Rule{JWT: &JWT{Mode: Strict, Providers: []Provider{p}}})
		if p.Locations == nil {
			j.unsure("token")
		}
	}
	if b := spec.sub("basicAuth"); b != nil {
		b.skip("realm", "secret")
		d.add(b, "basicAuth", Rule{Credentials: &Credentials{Kind: Basic, Mode: Strict, Forwards: Yes}})
	}
	if k := spec.sub("apiKey"); k != nil {
		k.skip("suppliedIn", "clientSecret")
		d.add(k, "apiKey", Rule{Credentials: &Credentials{Kind: APIKey, Mode: Strict, Forwards: Yes}})
	}
	if m := spec.sub("ingressMTLS"); m != nil {
		m.skip("clientCertSecret", "crlFileName", "verifyDepth")
		mode := modeOf(m, "verifyClient", Strict, map[string]Mode{"": Strict, "on": Strict, "optional": Optional, "optional_no_ca": Permissive, "off": Permissive})
		d.add(m, "ingressMTLS", Rule{Credentials: &Credentials{Kind: ClientCert, Mode: mode, Forwards: No}})
	}
	if m := spec.sub("egressMTLS"); m != nil {
		m.skip("tlsSecret", "verifyDepth", "protocols", "sessionReuse", "ciphers", "trustedCertSecret", "serverName")
		d.add(m, "egressMTLS", Rule{TLS: &BackendTLS{Hostname: m.str("sslName"), Verifies: m.is("verifyServer", false)}})
	}
	if o := spec.sub("oidc"); o != nil {
		o.skip("tokenEndpoint", "jwksURI", "clientID", "clientSecret", "scope", "redirectURI", "endSessionEndpoint", "postLogoutRedirectURI", "zoneSyncLeeway",
			"authExtraArgs", "pkceEnable", "sslVerify", "trustedCertSecret", "sslVerifyDepth", "authEndpoint")
		d.add(o, "oidc", Rule{Login: &Login{Forwards: o.is("accessTokenEnable", false), ForwardsIDToken: No, TakesTokens: No}})
		d.add(o, "oidc", Rule{Headers: &Headers{Writes: []Header{{Name: "username", From: FromLogin, What: "sub", Overwrites: Yes}}}})
	}
	if c := spec.sub("cors"); c != nil {
		c.skip("allowMethods", "allowHeaders", "allowCredentials", "exposeHeaders", "maxAge")
		d.add(c, "cors", Rule{CORS: &CORS{Origins: c.strs("allowOrigin")}})
	}
	if e := spec.sub("externalAuth"); e != nil {
		e.skip("authURI", "authServicePorts", "authSigninURI", "authSigninRedirectBasePath", "sslEnabled", "sslVerify", "sslVerifyDepth", "trustedCertSecret",
			"sniName")
		namespace, name, far := strings.Cut(e.str("authServiceName"), "/")
		if !far {
			namespace, name = d.ref.Namespace, namespace
		}
		to := Ref{}
		if name != "" {
			to = Ref{Kind: "Service", Namespace: namespace, Name: name}
		}
		d.add(e, "externalAuth", Rule{ExtAuth: &ExtAuth{Backend: to, FailOpen: No}})
		if e.str("authSnippets") != "" {
			e.unsure("authSnippets")
		}
	}
}
