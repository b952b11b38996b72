package rules

import (
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

func ingressKind() schema.GroupKind {
	return schema.GroupKind{Group: "networking.k8s.io", Kind: "Ingress"}
}

// ingressNGINX is ingress-nginx of Kubernetes, read in 1.15.1, its last release. What its ConfigMap says, as use-forwarded-headers, global-auth-url and
// proxy-set-headers, is not seen.
func ingressNGINX() vendor {
	return vendor{
		name:   "ingress-nginx",
		kinds:  []schema.GroupVersionKind{ingressKind().WithVersion("v1")},
		routes: map[schema.GroupKind]func(*reader, Route){ingressKind(): nginxIngressRules},
		edge:   func(r *reader) { r.usually(Rule{Forwarded: &Forwarded{For: Replaces, ClientCert: Passes}}) },
	}
}

func nginxIngressRules(r *reader, route Route) {
	d := r.doc(route.Ref, route.Object, Target{Object: route.Ref})
	n := d.notes(route.Object, "nginx.ingress.kubernetes.io/")
	n.leave("app-root", "client-body-buffer-size", "connection-proxy-header", "custom-headers", "custom-http-errors", "default-backend",
		"disable-proxy-intercept-errors", "enable-access-log", "enable-modsecurity", "enable-opentelemetry", "enable-owasp-core-rules", "enable-rewrite-log",
		"fastcgi-index", "fastcgi-params-configmap", "force-ssl-redirect", "from-to-www-redirect", "http2-push-preload", "modsecurity-snippet",
		"modsecurity-transaction-id", "opentelemetry-operation-name", "opentelemetry-trust-incoming-span", "permanent-redirect", "permanent-redirect-code",
		"preserve-trailing-slash", "proxy-body-size", "proxy-buffer-size", "proxy-buffering", "proxy-buffers-number", "proxy-busy-buffers-size",
		"proxy-connect-timeout", "proxy-cookie-domain", "proxy-cookie-path", "proxy-http-version", "proxy-max-temp-file-size", "proxy-read-timeout",
		"proxy-redirect-from", "proxy-redirect-to", "proxy-request-buffering", "proxy-send-timeout", "relative-redirects", "server-alias", "service-upstream",
		"ssl-ciphers", "ssl-prefer-server-ciphers", "ssl-redirect", "temporal-redirect", "temporal-redirect-code", "use-port-in-redirects", "use-regex",
		"canary", "canary-by-cookie", "canary-by-header", "canary-by-header-pattern", "canary-by-header-value", "canary-weight", "canary-weight-total",
		"mirror-host", "mirror-request-body", "mirror-target", "satisfy", "session-cookie-name", "session-cookie-path", "session-cookie-domain",
		"session-cookie-expires", "session-cookie-max-age", "session-cookie-samesite", "session-cookie-secure", "session-cookie-change-on-failure",
		"session-cookie-conditional-samesite-none", "affinity-mode", "affinity-canary-behavior", "load-balance", "upstream-hash-by-subset",
		"upstream-hash-by-subset-size", "limit-burst-multiplier", "limit-allowlist", "limit-whitelist", "limit-rate", "limit-rate-after", "cors-allow-credentials",
		"cors-allow-headers", "cors-allow-methods", "cors-expose-headers", "cors-max-age", "proxy-next-upstream-timeout", "enable-global-auth")
	for _, name := range []string{"configuration-snippet", "server-snippet", "stream-snippet", "auth-snippet", "ssl-passthrough"} {
		if n.there(name) && n.get(name) != "false" {
			n.doubt(name) // it may change all of a request
		}
	}
	nginxAuth(d, n)
	nginxAccess(d, n)
	nginxRewrite(d, n)
	nginxBackend(d, n)
	r.takeIfAny(d)
}

func nginxAuth(d *doc, n notes) {
	n.leave("auth-method", "auth-signin", "auth-signin-redirect-param", "auth-cache-key", "auth-cache-duration", "auth-keepalive", "auth-keepalive-requests",
		"auth-keepalive-share-vars", "auth-keepalive-timeout", "auth-proxy-set-headers", "auth-request-redirect", "auth-always-set-cookie", "auth-realm",
		"auth-secret", "auth-secret-type", "auth-tls-error-page", "auth-tls-verify-depth", "auth-tls-match-cn")
	if url := n.get("auth-url"); url != "" {
		d.addAt("", Rule{Field: n.field("auth-url"), ExtAuth: &ExtAuth{Backend: serviceOfURL(url), Address: url, FailOpen: No}})
	}
	h := &Headers{}
	for _, name := range n.words("auth-response-headers") {
		// What the answer lacks becomes an empty value, which nginx does not send.
		h.Writes = append(h.Writes, Header{Name: name, From: FromExtAuth, Overwrites: Yes})
	}
	if len(h.Writes) > 0 {
		d.addAt("", Rule{Field: n.field("auth-response-headers"), Headers: h})
	}
	switch kind := n.get("auth-type"); kind {
	case "":
	case "basic", "digest":
		d.addAt("", Rule{Field: n.field("auth-type"), Credentials: &Credentials{Kind: Basic, Mode: Strict, Forwards: Yes}})
	default:
		n.doubt("auth-type")
	}
	if n.get("auth-tls-secret") == "" {
		n.leave("auth-tls-verify-client", "auth-tls-pass-certificate-to-upstream")
		return
	}
	mode, known := map[string]Mode{"": Strict, "on": Strict, "optional": Optional, "optional_no_ca": Permissive}[n.get("auth-tls-verify-client")]
	if !known { // also off, which is of another annotation's mind
		n.doubt("auth-tls-verify-client")
	}
	rule := Rule{Field: n.field("auth-tls-secret"), Credentials: &Credentials{Kind: ClientCert, Mode: mode, Forwards: No}}
	if n.yes("auth-tls-pass-certificate-to-upstream") {
		rule.Credentials.Forwards = Yes
	}
	d.addAt("", rule)
}

func nginxAccess(d *doc, n notes) {
	ips := &IPs{}
	field := ""
	for _, name := range []string{"whitelist-source-range", "allowlist-source-range"} {
		if list := n.words(name); len(list) > 0 {
			ips.Allow, field = append(ips.Allow, list...), name
		}
	}
	if list := n.words("denylist-source-range"); len(list) > 0 {
		ips.Deny = list
		if field == "" {
			ips.AllowOthers, field = true, "denylist-source-range"
		}
	}
	if field != "" {
		ips.Else = n.there("satisfy")
		d.addAt("", Rule{Field: n.field(field), IPs: ips})
	}
	for _, name := range []string{"limit-rps", "limit-rpm", "limit-connections"} {
		if n.get(name) != "" {
			d.addAt("", Rule{Field: n.field(name), RateLimit: &RateLimit{By: []string{"source"}}})
		}
	}
	on := n.yes("enable-cors")
	origins := n.words("cors-allow-origin")
	if len(origins) == 0 {
		origins = []string{"*"}
	}
	if on {
		d.addAt("", Rule{Field: n.field("enable-cors"), CORS: &CORS{Origins: origins}})
	}
}

func nginxRewrite(d *doc, n notes) {
	if host := n.get("upstream-vhost"); host != "" {
		w := &Rewrite{Host: host}
		if strings.Contains(host, "$") {
			n.doubt("upstream-vhost")
		}
		d.addAt("", Rule{Field: n.field("upstream-vhost"), Rewrite: w})
	}
	if to := n.get("rewrite-target"); to != "" {
		w := &Rewrite{Path: &to}
		if strings.Contains(to, "$") {
			w = &Rewrite{Pattern: true}
		}
		d.addAt("", Rule{Field: n.field("rewrite-target"), Rewrite: w})
	}
	if prefix := n.get("x-forwarded-prefix"); prefix != "" {
		h := []Header{{Name: "X-Forwarded-Prefix", From: FromStatic, What: prefix, Overwrites: Yes}}
		d.addAt("", Rule{Field: n.field("x-forwarded-prefix"), Headers: &Headers{Writes: h}})
	}
}

func nginxBackend(d *doc, n notes) {
	n.leave("proxy-ssl-ciphers", "proxy-ssl-protocols", "proxy-ssl-secret", "proxy-ssl-server-name", "proxy-ssl-verify-depth")
	name, verify := n.get("proxy-ssl-name"), n.yes("proxy-ssl-verify")
	switch strings.ToUpper(n.get("backend-protocol")) {
	case "HTTPS", "GRPCS":
		d.addAt("", Rule{Field: n.field("backend-protocol"), TLS: &BackendTLS{Hostname: name, Verifies: answer(verify)}})
	case "", "HTTP", "GRPC", "FCGI", "AUTO_HTTP":
	default:
		n.doubt("backend-protocol")
	}
	switch n.get("affinity") {
	case "":
	case "cookie":
		d.addAt("", Rule{Field: n.field("affinity"), Affinity: &Affinity{By: "cookie"}})
	default:
		n.doubt("affinity")
	}
	if n.get("upstream-hash-by") != "" {
		d.addAt("", Rule{Field: n.field("upstream-hash-by"), Affinity: &Affinity{By: "hash"}})
	}
	on, tries := strings.Fields(n.get("proxy-next-upstream")), n.get("proxy-next-upstream-tries")
	if len(on) > 0 && on[0] != "off" {
		rule := Rule{Field: n.field("proxy-next-upstream"), Retry: &Retry{On: on}}
		rule.Retry.Attempts = max(0, number(tries)-1)
		d.addAt("", rule)
	}
}

// number is one in an annotation. Zero: it is none.
func number(s string) int {
	n := 0
	for _, r := range strings.TrimSpace(s) {
		if r < '0' || r > '9' || n > 1<<20 {
			return 0
		}
		n = n*10 + int(r-'0')
	}
	return n
}
