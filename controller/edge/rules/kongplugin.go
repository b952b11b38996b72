package rules

import "strings"

// plugin reads a KongPlugin or a KongClusterPlugin.
func (d *doc) plugin(object map[string]any) {
	d.bare = "plugin"
	f := d.open("", object)
	f.skip("apiVersion", "kind", "metadata", "status", "consumerRef", "instance_name", "ordering", "run_on", "protocols")
	name := f.str("plugin")
	if f.is("disabled", false) == Yes {
		f.skip("config", "configFrom", "configPatches")
		return
	}
	for _, secret := range []string{"configFrom", "configPatches"} {
		if f.has(secret) {
			f.unsure(secret)
		}
	}
	c := f.sub("config")
	if c == nil {
		c = d.open("config", nil)
	}
	c.skip("anonymous", "realm", "run_on_preflight")
	switch name {
	case "jwt":
		kongJWT(d, c)
	case "openid-connect":
		d.add(c, name, Rule{Login: &Login{Issuer: c.str("issuer"), Forwards: Unsure, ForwardsIDToken: Unsure, TakesTokens: Unsure}})
	case "basic-auth", "key-auth", "hmac-auth", "ldap-auth", "oauth2", "mtls-auth", "key-auth-enc", "ldap-auth-advanced":
		kongCredentials(d, c, name)
	case "ip-restriction":
		c.skip("status", "message")
		ips := &IPs{Allow: c.strs("allow"), Deny: c.strs("deny")}
		ips.AllowOthers = len(ips.Allow) == 0
		d.add(c, name, Rule{IPs: ips})
	case "acl":
		c.skip("allow", "deny", "hide_groups_header", "include_consumer_groups", "always_use_authenticated_groups")
		d.add(c, name, Rule{Access: &Access{}})
	case "rate-limiting", "rate-limiting-advanced", "response-ratelimiting":
		kongLimit(d, c, name)
	case "cors":
		c.skip("methods", "headers", "exposed_headers", "credentials", "max_age", "preflight_continue", "private_network", "allow_origin_absent")
		d.add(c, name, Rule{CORS: &CORS{Origins: c.strs("origins")}})
	case "request-transformer":
		kongTransformer(d, c, name)
	case "response-transformer", "prometheus", "zipkin", "opentelemetry", "file-log", "http-log", "tcp-log", "udp-log", "syslog", "loggly", "datadog", "statsd",
		"request-size-limiting", "bot-detection", "request-termination", "proxy-cache", "redirect":
		c.skip(c.names()...)
	default:
		c.skip(c.names()...)
		d.add(c, name, Rule{})
		c.unsure("") // it may change all of a request
	}
}

// modeOfKong: with an anonymous consumer whoever brings nothing passes as that one, with a bad token too.
func modeOfKong(c *fields) Mode {
	if s, _ := c.m["anonymous"].(string); s != "" {
		return Permissive
	}
	return Strict
}

func kongJWT(d *doc, c *fields) {
	c.skip("claims_to_verify", "maximum_expiration", "secret_is_base64", "key_claim_name")
	p := Provider{Forward: Yes}
	headers := c.strs("header_names")
	if !c.has("header_names") {
		headers = []string{"Authorization"}
	}
	for _, name := range headers {
		p.Locations = append(p.Locations, Location{Header: name, Prefix: "Bearer "})
	}
	params := c.strs("uri_param_names")
	if !c.has("uri_param_names") {
		params = []string{"jwt"}
	}
	for _, name := range params {
		p.Locations = append(p.Locations, Location{Query: name})
	}
	for _, name := range c.strs("cookie_names") {
		p.Locations = append(p.Locations, Location{Cookie: name})
	}
	d.add(c, "jwt", Rule{JWT: &JWT{Mode: modeOfKong(c), Providers: []Provider{p}}})
	kongConsumer(d, c, "jwt")
	d.unknown = append(d.unknown, "config.credentials") // issuers are those of consumers' credentials
}

// kongConsumer are the headers that tell a backend who somebody is. Which of them are cleared where there is nobody was not seen.
func kongConsumer(d *doc, c *fields, part string) {
	h := &Headers{}
	for _, name := range []string{"X-Consumer-ID", "X-Consumer-Custom-ID", "X-Consumer-Username", "X-Credential-Identifier", "X-Anonymous-Consumer"} {
		h.Writes = append(h.Writes, Header{Name: name, From: FromLogin, Overwrites: Unsure})
	}
	d.add(c, part, Rule{Headers: h})
}

func kongCredentials(d *doc, c *fields, name string) {
	kind := map[string]CredentialKind{"basic-auth": Basic, "key-auth": APIKey, "key-auth-enc": APIKey, "mtls-auth": ClientCert}[name]
	if kind == "" {
		kind = Other
	}
	forwards := Yes
	switch {
	case kind == ClientCert:
		forwards = No
	case c.is("hide_credentials", false) == Yes:
		forwards = No
	}
	mode := modeOfKong(c)
	c.skip(c.names()...)
	d.add(c, name, Rule{Credentials: &Credentials{Kind: kind, Mode: mode, Forwards: forwards}})
	kongConsumer(d, c, name)
}

func kongLimit(d *doc, c *fields, name string) {
	limit := &RateLimit{}
	switch by := c.str("limit_by"); by {
	case "ip":
		limit.By = []string{"source"}
	case "header":
		limit.By = []string{"header " + c.str("header_name")}
	case "":
		limit.By = []string{"consumer"} // or the address, where there is none
	default:
		limit.By = []string{by}
	}
	policy, _ := c.m["policy"].(string)
	limit.Global = policy == "redis" || policy == "cluster"
	c.skip(c.names()...)
	d.add(c, name, Rule{RateLimit: limit})
}

func kongTransformer(d *doc, c *fields, name string) {
	c.skip("http_method")
	h := &Headers{}
	for _, verb := range []string{"remove", "rename", "replace", "add", "append"} {
		f := c.sub(verb)
		f.skip("querystring", "body")
		if uri := f.str("uri"); uri != "" {
			d.add(f, name, Rule{Field: f.at("uri"), Rewrite: &Rewrite{Pattern: true}})
		}
		for _, one := range f.strs("headers") {
			key, value, _ := strings.Cut(one, ":")
			switch verb {
			case "remove":
				h.Strips = append(h.Strips, key)
			case "rename":
				h.Strips = append(h.Strips, key)
				h.Writes = append(h.Writes, Header{Name: value, From: FromRequest, What: key, Overwrites: No})
			case "replace": // only where there is one: it never lets a client's own pass
				h.Writes = append(h.Writes, Header{Name: key, From: FromStatic, What: value, Overwrites: Yes})
			case "add": // only where there is none
				h.Writes = append(h.Writes, Header{Name: key, From: FromStatic, What: value, Overwrites: No})
			case "append":
				h.Writes = append(h.Writes, Header{Name: key, From: FromStatic, What: value, Overwrites: No, Appends: true})
			}
		}
	}
	if len(h.Writes)+len(h.Strips) > 0 {
		d.add(c, name, Rule{Headers: h})
	}
}
