package edge

// istio is Istio's own ingress gateway. Read in 1.31, seen running in the tests of this repository: pods <gateway>-<class> of an account of that
// name; a Service's label wins over its namespace's, also when it says false.
func istio() Vendor {
	return Vendor{
		Name: "istio", Controllers: []string{"istio.io/gateway-controller"},
		Proxies:    Proxies{Labels: map[string]string{LabelGatewayName: "{name}"}, Account: "{name}-{class}"},
		Controller: istiod(),
		Ports:      []Port{{15021, "readiness"}, {15090, "metrics"}, {15000, "admin, on localhost"}},
		Native:     NativeAlways, Infrastructure: true,
		Switches: []Switch{serviceLabel(LabelIngressUseWaypoint)},
		Needs:    []Setting{ingressWaypointRouting()},
		Headless: "a waypoint is chosen by a Service's address: without one, requests end with 503",
		Loses:    affinityOfServices(),
		Inspect:  "istioctl proxy-config endpoint POD: an HBONE tunnel by the waypoint's address",
		Shows:    []Page{envoyDump(15000)}, Upstreams: "outbound|{port}|*|{name}.{namespace}.svc.*",
	}
}

// istioAgentgateway is agentgateway as istiod runs it, behind PILOT_ENABLE_AGENTGATEWAY. Read in 1.31; its Deployment and account have the Gateway's
// name, without the class.
func istioAgentgateway() Vendor {
	return Vendor{
		Name: "istio-agentgateway", Controllers: []string{"istio.io/agentgateway-controller"},
		Proxies:    Proxies{Labels: map[string]string{LabelGatewayName: "{name}"}, Account: "{name}"},
		Controller: istiod(),
		Ports:      []Port{{15021, "readiness"}, {15020, "metrics"}},
		Native:     NativeAlways, Infrastructure: true,
		Switches: []Switch{serviceLabel(LabelIngressUseWaypoint)},
		Needs:    []Setting{ingressWaypointRouting()},
		Headless: "a waypoint is chosen by a Service's address: without one, requests go past it",
		Loses:    affinityOfServices(),
		Warnings: []string{agentgatewayFailsOpen},
		Inspect:  "its admin port on localhost, /config_dump",
	}
}

func istiod() Match {
	return Match{Labels: map[string]string{"app": "istiod"}, Images: []string{"istio/pilot"}}
}

// ingressWaypointRouting is on wherever ambient is.
func ingressWaypointRouting() Setting {
	return Setting{
		Env: "ENABLE_INGRESS_WAYPOINT_ROUTING", Want: "true", Default: "true",
		Why: "istiod has it off, so that Istio's gateways go past waypoints", Fix: "take ENABLE_INGRESS_WAYPOINT_ROUTING=false from istiod",
	}
}

// affinityOfServices are what every gateway loses that has one address in place of many pods.
func affinityOfServices() []Loss {
	return []Loss{
		{Kind: "Service", Path: []string{"spec", "sessionAffinity"}, Value: "ClientIP", What: "session affinity: all connections come from the waypoint"},
		{Kind: "HTTPRoute", Path: []string{"spec", "rules", "sessionPersistence"}, What: "session persistence: the gateway sees one endpoint"},
	}
}
