package rules

import (
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// virtualService reads the HTTP routes of one that a gateway serves.
func virtualService(r *reader, route Route) {
	d := r.doc(route.Ref, route.Object, Target{Object: route.Ref})
	spec := d.spec(route.Object)
	spec.skip("hosts", "gateways", "tls", "tcp", "exportTo")
	for _, it := range spec.items("http") {
		one := r.doc(route.Ref, route.Object, Target{Object: route.Ref, Section: sectionOf(it.path)})
		f := one.open(it.path, it.m)
		f.skip("name", "match", "redirect", "directResponse", "fault", "mirror", "mirrors", "mirrorPercent", "mirrorPercentage")
		if f.has("delegate") {
			f.unsure("delegate")
		}
		istioRequest(one, f)
		for _, to := range f.items("route") {
			part := r.doc(route.Ref, route.Object, Target{Object: route.Ref, Section: sectionOf(to.path)})
			b := part.open(to.path, to.m)
			b.skip("destination", "weight")
			istioHeaders(part, b.sub("headers"))
			r.takeIfAny(part)
		}
		r.takeIfAny(one)
	}
	r.takeIfAny(d)
}

func istioRequest(d *doc, f *fields) {
	istioHeaders(d, f.sub("headers"))
	if w := f.sub("rewrite"); w != nil {
		out := &Rewrite{Host: w.str("authority"), Pattern: w.has("uriRegexRewrite")}
		w.skip("uriRegexRewrite")
		if uri := w.str("uri"); uri != "" {
			out.Prefix = &uri // of a prefix match; of an exact one it is the whole path
		}
		d.add(w, "", Rule{Rewrite: out})
	}
	if f.has("timeout") {
		d.add(f, "", Rule{Field: f.at("timeout"), Timeout: &Timeout{Request: f.duration("timeout")}})
	}
	if t := f.sub("retries"); t != nil {
		t.skip("retryRemoteLocalities", "retryIgnorePreviousHosts", "backoff")
		n, _ := t.number("attempts")
		var on []string
		if words := t.str("retryOn"); words != "" {
			on = strings.Split(words, ",")
		}
		d.add(t, "", Rule{Retry: &Retry{Attempts: n, On: on}})
		if per := t.duration("perTryTimeout"); per > 0 {
			d.add(t, "", Rule{Timeout: &Timeout{Backend: per}})
		}
	}
	if c := f.sub("corsPolicy"); c != nil {
		c.skip("allowMethods", "allowHeaders", "exposeHeaders", "maxAge", "allowCredentials", "unmatchedPreflights")
		origins := c.strs("allowOrigin")
		for _, o := range c.each("allowOrigins") {
			for _, kind := range []string{"exact", "prefix", "regex"} {
				if s := o.str(kind); s != "" {
					origins = append(origins, s)
				}
			}
		}
		d.add(c, "", Rule{CORS: &CORS{Origins: origins}})
	}
}

func istioHeaders(d *doc, f *fields) {
	f.skip("response")
	req := f.sub("request")
	if req == nil {
		return
	}
	h := &Headers{Strips: req.strs("remove")}
	for _, kind := range []string{"set", "add"} {
		values := req.sub(kind)
		for _, name := range values.names() {
			h.Writes = append(h.Writes, Header{
				Name: name, From: FromStatic, What: values.str(name), Overwrites: answer(kind == "set"), Appends: kind == "add",
			})
		}
	}
	d.add(req, "", Rule{Headers: h})
}

// destinationRules are those of the Services that routes send to. Which of several for one Service holds depends on namespaces: all are told.
func (r *reader) destinationRules(kind schema.GroupKind) {
	root := r.gateway.Root
	if root == "" {
		root = "istio-system"
	}
	namespaces := append(r.namespaces(), root)
	slices.Sort(namespaces)
	for _, namespace := range slices.Compact(namespaces) {
		for _, o := range r.list(kind, namespace) {
			d := r.doc(refOf(o), o.Object)
			spec := d.spec(o.Object)
			host := spec.str("host")
			for _, ref := range r.servicesOf(host, namespace) {
				d.targets = append(d.targets, Target{Object: ref})
			}
			if len(d.targets) == 0 {
				continue
			}
			spec.skip("subsets", "exportTo", "workloadSelector")
			if p := spec.sub("trafficPolicy"); p != nil {
				whole := d.targets
				for _, port := range p.each("portLevelSettings") {
					n, _ := port.sub("port").number("number")
					d.targets = nil
					for _, t := range whole {
						d.targets = append(d.targets, Target{Object: t.Object, Section: itoa(n)})
					}
					destination(d, port)
				}
				d.targets = whole
				destination(d, p)
			}
			r.take(d)
		}
	}
}

// servicesOf are the Services of routes that a host of a DestinationRule means.
func (r *reader) servicesOf(host, namespace string) []Ref {
	rest, wild := strings.CutPrefix(host, "*")
	if !wild {
		if ref := serviceOf(host, namespace); r.backends[ref] {
			return []Ref{ref}
		}
		return nil
	}
	var list []Ref
	for _, ref := range slices.SortedFunc(maps.Keys(r.backends), compareRefs) {
		// Any domain of the cluster will do.
		within := strings.HasPrefix(rest, "."+ref.Namespace+".svc") || strings.HasPrefix(rest, ".svc.") || rest == ""
		if ref.kind() == (schema.GroupKind{Kind: "Service"}) && within {
			list = append(list, ref)
		}
	}
	return list
}

func destination(d *doc, p *fields) {
	p.skip("connectionPool", "tunnel", "proxyProtocol", "retryBudget", "port")
	if l := p.sub("loadBalancer"); l != nil {
		l.skip("simple", "localityLbSetting", "warmupDurationSecs", "warmup")
		if h := l.sub("consistentHash"); h != nil {
			by := "hash"
			for key, word := range map[string]string{"httpHeaderName": "header", "httpCookie": "cookie", "useSourceIp": "source", "httpQueryParameterName": "query"} {
				if h.has(key) {
					by = word
				}
				h.skip(key)
			}
			h.skip("ringHash", "maglev", "minimumRingSize")
			d.add(h, "", Rule{Affinity: &Affinity{By: by}})
		}
	}
	if o := p.sub("outlierDetection"); o != nil {
		o.skip(o.names()...)
		d.add(o, "", Rule{Health: &Health{Passive: true}})
	}
	if t := p.sub("tls"); t != nil {
		t.skip("clientCertificate", "privateKey", "caCertificates", "credentialName", "subjectAltNames", "caCrl")
		verifies := answer(t.is("insecureSkipVerify", false) == No)
		sni := t.str("sni")
		switch t.str("mode") {
		case "SIMPLE", "MUTUAL":
			d.add(t, "", Rule{TLS: &BackendTLS{Hostname: sni, Verifies: verifies}})
		case "", "DISABLE", "ISTIO_MUTUAL":
		default:
			t.unsure("mode")
		}
	}
}
