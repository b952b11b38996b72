package rules

import (
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const groupIstioNetworking = "networking.istio.io"

// istio is Istio's ingress gateway, read in 1.31: all policies that select its pods, or name its Gateway, hold together. RequestAuthentication lets
// requests without a token pass, and takes tokens away unless forwardOriginalToken.
func istio() vendor {
	security := func(kind string) schema.GroupKind { return schema.GroupKind{Group: "security.istio.io", Kind: kind} }
	networking := func(kind string) schema.GroupKind { return schema.GroupKind{Group: groupIstioNetworking, Kind: kind} }
	extensions := func(kind string) schema.GroupKind { return schema.GroupKind{Group: "extensions.istio.io", Kind: kind} }
	return vendor{
		name: "istio",
		kinds: []schema.GroupVersionKind{
			security("RequestAuthentication").WithVersion("v1"), security("AuthorizationPolicy").WithVersion("v1"),
			networking("VirtualService").WithVersion("v1"), networking("DestinationRule").WithVersion("v1"), networking("EnvoyFilter").WithVersion("v1alpha3"),
			extensions("WasmPlugin").WithVersion("v1alpha1"), extensions("TrafficExtension").WithVersion("v1alpha1"),
		},
		routes: map[schema.GroupKind]func(*reader, Route){networking("VirtualService"): virtualService},
		edge: func(r *reader) {
			r.usually(Rule{Forwarded: &Forwarded{For: Appends, ClientCert: Replaces}})
			r.istioSettings()
			r.istioTokens(security("RequestAuthentication"))
			for _, o := range r.selecting(security("AuthorizationPolicy"), "selector", "matchLabels") {
				r.istioAccess(o)
			}
			for _, o := range r.selecting(networking("EnvoyFilter"), "workloadSelector", "labels") {
				r.istioAnything(o)
			}
			for _, kind := range []string{"WasmPlugin", "TrafficExtension"} {
				for _, o := range r.selecting(extensions(kind), "selector", "matchLabels") {
					r.istioAnything(o)
				}
			}
			r.destinationRules(networking("DestinationRule"))
		},
	}
}

// istioSettings are those of the proxy alone, which may say otherwise how it treats what clients say about themselves.
func (r *reader) istioSettings() {
	d := r.doc(r.gateway.Ref, r.gateway.Object, r.whole())
	notes := d.spec(r.gateway.Object).sub("infrastructure").sub("annotations")
	if notes.has("proxy.istio.io/config") {
		d.add(notes, "", Rule{Field: notes.path, Forwarded: &Forwarded{}})
		notes.unsure("proxy.istio.io/config")
		rules := d.rules
		rules[0].Unknown = d.unknown
		r.rules, r.stands = append(r.rules, rules...), append(r.stands, d.stands...)
	}
}

// selecting are the policies of a kind that name the Gateway by targetRefs, or select its pods.
func (r *reader) selecting(kind schema.GroupKind, selector, labels string) []*unstructured.Unstructured {
	root := r.gateway.Root
	if root == "" {
		root = "istio-system"
	}
	pods := r.gateway.PodNamespace
	if pods == "" {
		pods = r.gateway.Namespace
	}
	namespaces := []string{root, pods, r.gateway.Namespace}
	slices.Sort(namespaces)
	var list []*unstructured.Unstructured
	for _, namespace := range slices.Compact(namespaces) {
		if namespace == "" {
			continue
		}
		for _, o := range r.list(kind, namespace) {
			d := &doc{}
			spec := d.spec(o.Object)
			refs := spec.each("targetRefs")
			if one := spec.sub("targetRef"); one != nil {
				refs = append(refs, one)
			}
			if len(refs) > 0 {
				if slices.ContainsFunc(refs, func(ref *fields) bool { return r.istioNames(ref, namespace, root) }) {
					list = append(list, o)
				}
				continue
			}
			if want := spec.sub(selector).sub(labels); (namespace == root || namespace == pods) && selects(want, r.gateway.PodLabels) {
				list = append(list, o)
			}
		}
	}
	slices.SortFunc(list, func(a, b *unstructured.Unstructured) int { return compareRefs(refOf(a), refOf(b)) })
	return list
}

func (r *reader) istioNames(ref *fields, namespace, root string) bool {
	to := ref.ref(namespace)
	if to.kind() == gatewayKind("GatewayClass") && namespace == root {
		spec, _ := r.gateway.Object["spec"].(map[string]any)
		return spec["gatewayClassName"] == to.Name
	}
	return to == r.gateway.Ref && to.Name != ""
}

func selects(want *fields, have map[string]string) bool {
	for _, key := range want.names() {
		if want.m[key] != have[key] {
			return false
		}
	}
	return true
}

func refOf(o *unstructured.Unstructured) Ref {
	kind := o.GroupVersionKind()
	return Ref{kind.Group, kind.Kind, o.GetNamespace(), o.GetName()}
}

// istioTokens reads all RequestAuthentications together: which header is written by which of them matters.
func (r *reader) istioTokens(kind schema.GroupKind) {
	type read struct {
		doc  *doc
		rule *fields
		jwt  *JWT
		at   [][]Header
	}
	var all []read
	var claims [][]Header
	for _, o := range r.selecting(kind, "selector", "matchLabels") {
		d := r.doc(refOf(o), o.Object, r.whole())
		spec := d.spec(o.Object)
		spec.skip("selector", "targetRef", "targetRefs")
		one := read{doc: d, rule: spec, jwt: &JWT{Mode: Optional}}
		for _, p := range spec.each("jwtRules") {
			p.skip("jwks", "timeout", "spaceDelimitedClaims")
			provider := Provider{Issuer: p.str("issuer"), Audiences: p.strs("audiences"), Forward: p.is("forwardOriginalToken", false)}
			provider.Keys.URI = p.str("jwksUri")
			for _, h := range p.each("fromHeaders") {
				provider.Locations = append(provider.Locations, Location{Header: h.str("name"), Prefix: h.str("prefix")})
			}
			for _, name := range p.strs("fromParams") {
				provider.Locations = append(provider.Locations, Location{Query: name})
			}
			for _, name := range p.strs("fromCookies") {
				provider.Locations = append(provider.Locations, Location{Cookie: name})
			}
			if len(provider.Locations) == 0 {
				provider.Locations = envoyLocations()
			}
			headers := claimHeaders(p, "outputClaimToHeaders", "claim", "header")
			if name := p.str("outputPayloadToHeader"); name != "" {
				headers = append(headers, Header{Name: name, From: FromClaim, Overwrites: Yes})
			}
			claims, one.at = append(claims, headers), append(one.at, headers)
			one.jwt.Providers = append(one.jwt.Providers, provider)
		}
		all = append(all, one)
	}
	for _, one := range all {
		if len(one.jwt.Providers) > 0 {
			one.doc.add(one.rule, "", Rule{Field: one.rule.at("jwtRules"), JWT: one.jwt})
			addClaimsOf(one.doc, one.rule, "", one.at, claims)
		}
		r.take(one.doc)
	}
}

// istioAccess reads an AuthorizationPolicy: what it does to addresses; what else it asks for is for package policy to evaluate.
func (r *reader) istioAccess(o *unstructured.Unstructured) {
	d := r.doc(refOf(o), o.Object, r.whole())
	spec := d.spec(o.Object)
	spec.skip("selector", "targetRef", "targetRefs")
	action := spec.str("action")
	switch meta, _ := o.Object["metadata"].(map[string]any); {
	case hasAnnotation(meta, "istio.io/dry-run", "true"), action == "AUDIT":
		spec.skip("rules")
		r.take(d)
		return
	case action == "CUSTOM":
		spec.skip("rules")
		p := spec.sub("provider")
		d.add(spec, "", Rule{Field: spec.at("provider"), ExtAuth: &ExtAuth{Address: p.str("name")}})
		d.add(spec, "", Rule{Field: spec.at("provider"), Headers: &Headers{Writes: fromExtAuth([]string{"*"})}})
		p.unsure("name") // the mesh config says what it is
		r.take(d)
		return
	case action != "" && action != "ALLOW" && action != "DENY":
		spec.unsure("action")
	}
	ips, access := &IPs{AllowOthers: action == "DENY"}, false
	for _, rule := range spec.each("rules") {
		access = access || rule.has("to") || rule.has("when") || !rule.has("from")
		rule.skip("to", "when")
		for _, from := range rule.each("from") {
			s := from.sub("source")
			remote := s.strs("remoteIpBlocks")
			found := slices.Concat(s.strs("ipBlocks"), remote)
			ips.FromHeader = ips.FromHeader || len(remote) > 0
			for _, name := range s.names() {
				access = access || name != "ipBlocks" && name != "remoteIpBlocks"
				s.skip(name)
			}
			if action == "DENY" {
				ips.Deny = append(ips.Deny, found...)
			} else {
				ips.Allow = append(ips.Allow, found...)
			}
		}
	}
	if len(ips.Allow)+len(ips.Deny) > 0 {
		ips.Else = access
		d.add(spec, "", Rule{Field: spec.at("rules"), IPs: ips})
	} else {
		d.add(spec, "", Rule{Field: spec.at("rules"), Access: &Access{Denies: action == "DENY"}})
	}
	r.take(d)
}

func hasAnnotation(meta map[string]any, key, value string) bool {
	notes, _ := meta["annotations"].(map[string]any)
	return notes[key] == value
}

// istioAnything is an extension, which may change all of a request.
func (r *reader) istioAnything(o *unstructured.Unstructured) {
	d := r.doc(refOf(o), o.Object, r.whole())
	spec := d.spec(o.Object)
	spec.skip(spec.names()...)
	d.add(spec, "", Rule{})
	spec.unsure("")
	r.take(d)
}
