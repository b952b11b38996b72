package edge

const agentgatewayFailsOpen = "agentgateway goes straight to the pod when it cannot resolve a Service's waypoint, and only logs a warning: " +
	"a policy at the pods that lets in nobody but the waypoint closes that"

// agentgateway is the gateway of agentgateway.dev. Read in 1.4.1 and at head: with AgentgatewayParameters.spec.istio, or AGW_ISTIO_AUTO_ENABLED, it
// speaks HBONE and its controller labels its pods dataplane-mode=none; else it balances to pods, and the label does nothing. Read at head of 2026: routes
// without parentRefs that others delegate to get no status.
func agentgateway() Vendor {
	return Vendor{
		Name: "agentgateway", Controllers: []string{"agentgateway.dev/agentgateway"},
		Proxies:    Proxies{Labels: map[string]string{LabelGatewayName: "{name}"}, Account: "{name}"},
		Controller: Match{Images: []string{"cr.agentgateway.dev/controller", "agentgateway/controller"}},
		Ports:      []Port{{15021, "readiness"}, {15020, "metrics"}, {15008, "HBONE, where spec.istio is set"}},
		Native:     NativeByMode, Infrastructure: true,
		Switches: []Switch{serviceLabel(LabelIngressUseWaypoint)},
		NotNative: &Setting{
			Why: "agentgateway sends to pods, past every waypoint, while it does not speak HBONE: the label istio.io/ingress-use-waypoint does nothing",
			Fix: "set spec.istio: {} in the AgentgatewayParameters that the Gateway or its class refers to",
		},
		Delegation: &Delegation{NameIsLabel: true, Silent: true},
		Headless:   "a waypoint is chosen by a Service's address: without one, requests go past it",
		Loses:      affinityOfServices(),
		Warnings:   []string{agentgatewayFailsOpen},
		Inspect:    "its admin port on localhost, /config_dump",
	}
}
