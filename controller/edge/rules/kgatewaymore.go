package rules

import "slices"

// kgatewayListener reads a ListenerPolicy: what is said of a port replaces the default there.
func kgatewayListener(r *reader, d *doc, spec *fields) {
	ports := spec.each("perPort")
	whole := d.targets
	var special []string // listeners with a port of their own
	for _, p := range ports {
		port, _ := p.number("port")
		names := r.listenersAt(port)
		special = append(special, names...)
		var at []Target
		for _, t := range whole {
			for _, name := range names {
				if t.Object == r.gateway.Ref && covers(t.Section, name) {
					at = append(at, Target{Object: t.Object, Section: name})
				}
			}
		}
		if len(at) == 0 {
			at = whole
			p.unsure("port") // nobody can tell which listeners that is
		}
		d.targets = at
		kgatewayListenerConfig(d, p.sub("listener"))
	}
	d.targets = nil
	for _, t := range whole {
		if len(special) == 0 || t.Object != r.gateway.Ref || t.Section != "" {
			if t.Section == "" || !slices.Contains(special, t.Section) {
				d.targets = append(d.targets, t)
			}
			continue
		}
		for _, name := range r.listeners() {
			if !slices.Contains(special, name) {
				d.targets = append(d.targets, Target{Object: t.Object, Section: name})
			}
		}
	}
	if f := spec.sub("default"); f != nil && len(d.targets) > 0 {
		if c := f.sub("clientCertificateValidation"); c != nil {
			c.skip("caCertificateRefs")
			mode := modeOf(c, "mode", "", map[string]Mode{"Require": Strict, "Optional": Optional})
			d.add(c, "clientCertificateValidation", Rule{Credentials: &Credentials{Kind: ClientCert, Mode: mode, Forwards: No}})
		}
		kgatewayListenerConfig(d, f)
	}
	d.targets = whole
}

func kgatewayListenerConfig(d *doc, f *fields) {
	f.skip("tcpKeepalive", "perConnectionBufferLimitBytes", "transportSocketConnectTimeout", "proxyProtocol")
	if h := f.sub("httpSettings"); h != nil {
		kgatewayHTTP(d, h)
	}
}

// kgatewayHTTP reads the settings of a listener, of a ListenerPolicy or an HTTPListenerPolicy.
func kgatewayHTTP(d *doc, f *fields) {
	f.skip("accessLog", "tracing", "localReplies", "upgradeConfig", "preserveExternalRequestId", "generateRequestId", "serverHeaderTransformation", "serverName",
		"streamIdleTimeout", "idleTimeout", "maxRequestsPerConnection", "maxHeadersCount", "http2ProtocolOptions", "healthCheck", "preserveHttp1HeaderCase",
		"acceptHttp10", "defaultHostForHttp10", "maxRequestHeadersKb", "uuidRequestIdConfig", "stripHostPortMode")
	if e := f.sub("earlyRequestHeaderModifier"); e != nil {
		h := modifier(e)
		h.Early = true
		d.add(e, "earlyRequestHeaderModifier", Rule{Headers: h})
	}
	if !f.has("useRemoteAddress") && !f.has("xffNumTrustedHops") && !f.has("xffTrustedCIDRs") && !f.has("skipXFFAppend") && !f.has("forwardClientCertDetails") {
		return
	}
	w := envoyForwarded()
	remote := f.is("useRemoteAddress", true)
	if f.is("skipXFFAppend", remote == No) == Yes {
		w.For = Passes
	}
	w.TrustedHops, _ = f.number("xffNumTrustedHops")
	w.TrustedSources = f.strs("xffTrustedCIDRs")
	c := f.sub("forwardClientCertDetails")
	c.skip("details")
	if c.has("mode") {
		w.ClientCert = envoyClientCert(c.str("mode"))
		if w.ClientCert == "" {
			c.unsure("mode")
		}
	}
	d.add(f, "forwarded", Rule{Forwarded: w})
}

// envoyClientCert is Envoy's forward_client_cert_details.
func envoyClientCert(mode string) Treatment {
	return map[string]Treatment{
		"Sanitize": Removes, "ForwardOnly": Passes, "AppendForward": Appends, "SanitizeSet": Replaces, "AlwaysForwardOnly": Passes,
	}[mode]
}

func kgatewayBackend(_ *reader, d *doc, spec *fields) {
	spec.skip("connectTimeout", "dns", "perConnectionBufferLimitBytes", "tcpKeepalive", "commonHttpProtocolOptions", "http1ProtocolOptions",
		"http2ProtocolOptions", "circuitBreakers", "upstreamProxyProtocol")
	if t := spec.sub("tls"); t != nil {
		t.skip("secretRef", "files", "wellKnownCACertificates", "verifySubjectAltNames", "parameters", "alpnProtocols", "allowRenegotiation", "simpleTLS")
		verifies := Yes
		if skip := t.is("insecureSkipVerify", false); skip != No {
			verifies = No
		}
		d.add(t, "tls", Rule{TLS: &BackendTLS{Hostname: t.str("sni"), Verifies: verifies}})
	}
	health := &Health{}
	if h := spec.sub("healthCheck"); h != nil {
		h.skip(h.names()...)
		health.Active = true
	}
	if o := spec.sub("outlierDetection"); o != nil {
		o.skip(o.names()...)
		health.Passive = true
	}
	if health.Active || health.Passive {
		field := "healthCheck"
		if !health.Active {
			field = "outlierDetection"
		}
		d.add(spec, "healthCheck", Rule{Field: spec.at(field), Health: health})
	}
	l := spec.sub("loadBalancer")
	if l == nil {
		return
	}
	l.skip("healthyPanicThreshold", "updateMergeWindow", "leastRequest", "roundRobin", "random", "localityType", "zoneAware", "closeConnectionsOnHostSetChange")
	for _, name := range []string{"ringHash", "maglev"} {
		h := l.sub(name)
		if h == nil {
			continue
		}
		h.skip("minimumRingSize", "maximumRingSize", "useHostnameForHashing")
		by := "hash"
		for _, p := range h.each("hashPolicies") {
			p.skip("terminal")
			for key, word := range map[string]string{"header": "header", "cookie": "cookie", "sourceIP": "source"} {
				if p.has(key) {
					by = word
				}
				p.skip(key)
			}
		}
		d.add(h, "loadBalancer", Rule{Affinity: &Affinity{By: by}})
	}
}

// listeners are the names of those of the Gateway.
func (r *reader) listeners() []string { return r.listenersAt(0) }

// listenersAt are those at a port. Zero: all.
func (r *reader) listenersAt(port int) []string {
	d := &doc{}
	var names []string
	for _, l := range d.spec(r.gateway.Object).each("listeners") {
		if n, _ := l.number("port"); port == 0 || n == port {
			names = append(names, l.str("name"))
		}
	}
	return names
}
