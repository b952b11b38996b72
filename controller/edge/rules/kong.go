package rules

import (
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

const groupKong = "configuration.konghq.com"

// kong is Kong with its Ingress Controller, or with the Kong operator. Read at head of August 2026: plugins are named by an annotation of routes and
// Services, or are KongClusterPlugins with the label global; of one plugin the narrowest configuration holds. Which issuers a jwt plugin takes stands
// in credentials of consumers, and which of Kong's own defaults hold in its configuration: both are not seen.
func kong(name string) vendor {
	kind := func(name string) schema.GroupKind { return schema.GroupKind{Group: groupKong, Kind: name} }
	return vendor{
		name: name,
		kinds: []schema.GroupVersionKind{
			kind("KongPlugin").WithVersion("v1"), kind("KongClusterPlugin").WithVersion("v1"), kind("KongUpstreamPolicy").WithVersion("v1beta1"),
			ingressKind().WithVersion("v1"),
		},
		filters: map[schema.GroupKind]func(*reader, *doc, *fields){
			// An ExtensionRef names a KongPlugin, which has no spec: it is read as the annotation's are.
			kind("KongPlugin"): func(r *reader, d *doc, _ *fields) { d.plugin(r.content(d.ref)) },
		},
		routes: map[schema.GroupKind]func(*reader, Route){gatewayKind("HTTPRoute"): kongRoute, gatewayKind("GRPCRoute"): kongRoute, ingressKind(): kongRoute},
		edge: func(r *reader) {
			r.usually(Rule{Forwarded: &Forwarded{For: Appends, ClientCert: Passes}})
			for _, o := range r.list(kind("KongClusterPlugin"), "") {
				if o.GetLabels()["global"] == "true" {
					d := r.kongDoc(refOf(o), r.whole())
					d.plugin(o.Object)
					r.take(d)
				}
			}
			for _, ref := range slices.SortedFunc(maps.Keys(r.backends), compareRefs) {
				if ref.kind() == (schema.GroupKind{Kind: "Service"}) {
					r.kongService(ref)
				}
			}
		},
	}
}

func (r *reader) kongDoc(ref Ref, target Target) *doc {
	d := r.doc(ref, nil, target)
	d.how.family, d.how.merges = "KongPlugin", true
	return d
}

// kongPlugins reads those that an annotation names.
func (r *reader) kongPlugins(n notes, target Target) {
	for _, name := range n.words("plugins") {
		to := Ref{groupKong, "KongPlugin", target.Object.Namespace, name}
		if ns, rest, far := strings.Cut(name, ":"); far {
			to.Namespace, to.Name = ns, rest
		}
		object := r.content(to)
		if object == nil {
			to = Ref{groupKong, "KongClusterPlugin", "", name}
			object = r.content(to)
		}
		if object == nil {
			n.doubt("plugins")
			continue
		}
		d := r.kongDoc(to, target)
		d.by = target.Object
		d.plugin(object)
		r.take(d)
	}
}

func kongRoute(r *reader, route Route) {
	d := r.doc(route.Ref, route.Object, Target{Object: route.Ref})
	n := d.notes(route.Object, "konghq.com/")
	n.leave("https-redirect-status-code", "methods", "protocols", "regex-prefix", "regex-priority", "request-buffering", "response-buffering", "snis", "tags",
		"host-aliases", "headers-separator")
	for _, name := range n.names() {
		if strings.HasPrefix(name, n.prefix+"headers.") {
			n.skip(name)
		}
	}
	r.kongPlugins(n, Target{Object: route.Ref})
	if n.there("preserve-host") && !n.yes("preserve-host") {
		d.addAt("", Rule{Field: n.field("preserve-host"), Rewrite: &Rewrite{BackendHost: true}})
	}
	if n.yes("strip-path") {
		root := "/"
		d.addAt("", Rule{Field: n.field("strip-path"), Rewrite: &Rewrite{Prefix: &root}})
	}
	if n.get("rewrite") != "" {
		d.addAt("", Rule{Field: n.field("rewrite"), Rewrite: &Rewrite{Pattern: true}})
	}
	r.takeIfAny(d)
}

func (r *reader) kongService(ref Ref) {
	d := r.doc(ref, r.known[ref], Target{Object: ref})
	n := d.notes(r.known[ref], "konghq.com/")
	n.leave("ca-certificates-configmaps", "ca-certificates-secrets", "client-cert", "connect-timeout", "read-timeout", "write-timeout", "tags", "tls-verify-depth")
	r.kongPlugins(n, Target{Object: ref})
	verify := Unsure
	if n.there("tls-verify") {
		verify = answer(n.yes("tls-verify"))
	}
	switch n.get("protocol") {
	case "https", "grpcs", "tls", "wss":
		d.addAt("", Rule{Field: n.field("protocol"), TLS: &BackendTLS{Verifies: verify}})
	case "", "http", "grpc", "tcp", "udp", "ws":
	default:
		n.doubt("protocol")
	}
	if host := n.get("host-header"); host != "" {
		d.addAt("", Rule{Field: n.field("host-header"), Rewrite: &Rewrite{Host: host}})
	}
	if path := n.get("path"); path != "" {
		d.addAt("", Rule{Field: n.field("path"), Rewrite: &Rewrite{AddPrefix: path}})
	}
	if n.there("retries") {
		d.addAt("", Rule{Field: n.field("retries"), Retry: &Retry{Attempts: number(n.get("retries"))}})
	}
	if name := n.get("upstream-policy"); name != "" {
		other, spec, there := r.also(d, Ref{groupKong, "KongUpstreamPolicy", ref.Namespace, name})
		if !there {
			n.doubt("upstream-policy")
		} else {
			kongUpstream(other, spec)
			r.take(other)
		}
	}
	r.takeIfAny(d)
}

func kongUpstream(d *doc, spec *fields) {
	spec.skip("slots", "hashOnFallback", "stickySessions")
	on := spec.sub("hashOn")
	on.skip("cookiePath", "header", "cookie", "queryArg", "uriCapture", "input")
	switch algorithm := spec.str("algorithm"); algorithm {
	case "consistent-hashing", "sticky-sessions":
		by := "hash"
		for _, word := range []string{"header", "cookie"} {
			if on.has(word) {
				by = word
			}
		}
		if algorithm == "sticky-sessions" {
			by = "cookie"
		}
		d.add(spec, "", Rule{Field: spec.at("algorithm"), Affinity: &Affinity{By: by}})
	case "", "round-robin", "least-connections", "latency":
	default:
		spec.unsure("algorithm")
	}
	if h := spec.sub("healthchecks"); h != nil {
		d.add(h, "", Rule{Health: &Health{Active: h.has("active"), Passive: h.has("passive")}})
		h.skip("active", "passive", "threshold")
	}
}
