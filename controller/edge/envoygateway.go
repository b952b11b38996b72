package edge

// envoyGateway was seen running, 1.9.1 with a real Envoy: pods in the controller's namespace unless it runs in GatewayNamespaceMode; both switches change
// the one endpoint to the Service's address within seconds. Read: of policies, the more specific one that says a routing type wins, and one that says
// none is passed over; a second policy on a Gateway is Conflicted; with mergeGateways in the EnvoyProxy of the class one Deployment serves all its
// Gateways, whose own EnvoyProxies and labels count for nothing then.
func envoyGateway() Vendor {
	return Vendor{
		Name: "envoy-gateway", Controllers: []string{"gateway.envoyproxy.io/gatewayclass-controller"},
		Proxies: Proxies{
			Labels:   map[string]string{"gateway.envoyproxy.io/owning-gateway-name": "{name}", "gateway.envoyproxy.io/owning-gateway-namespace": "{namespace}"},
			Anywhere: true, Account: "envoy-{namespace}-{name}-HASH",
			Merge: Merge{
				Kind: envoyProxy(), Path: []string{"spec", "mergeGateways"}, Labels: map[string]string{"gateway.envoyproxy.io/owning-gatewayclass": "{class}"},
				Enrol: []string{"spec", "provider", "kubernetes", "envoyDeployment", "pod", "labels"},
			},
		},
		Controller: Match{Labels: map[string]string{"control-plane": "envoy-gateway"}, Images: []string{"envoyproxy/gateway"}},
		Ports:      []Port{{19001, "metrics"}, {19002, "shutdown manager"}, {19003, "readiness"}},

		Infrastructure: true,
		Switches: []Switch{
			{
				On: OnParameters, Kind: envoyProxy(),
				Path: []string{"spec", "routingType"}, Value: "Service", For: ForRoutes, Since: "1.1.0",
			},
			{
				On: OnGateway, Kind: backendTrafficPolicy(), Path: []string{"spec", "routingType"}, Value: "Service", For: ForRoutes, Since: "1.8.0",
				Target: [2]string{"gateway.networking.k8s.io", "Gateway"},
				Skips:  "backends of ext-auth, ext-proc, rate limits and JWKS: only an EnvoyProxy's routingType reaches those",
			},
		},
		Headless: "Envoy Gateway stays with pods, without a word, and goes past the waypoint",
		Loses: append(affinityOfServices(),
			Loss{Kind: "BackendTrafficPolicy", Path: []string{"spec", "loadBalancer", "type"}, Value: "ConsistentHash", What: "consistent hashing: the gateway sees one endpoint"},
			Loss{Kind: "BackendTrafficPolicy", Path: []string{"spec", "loadBalancer", "slowStart"}, What: "slow start: the gateway sees one endpoint"},
			Loss{Kind: "BackendTrafficPolicy", Path: []string{"spec", "healthCheck"}, What: "health checks by pod: one bad answer judges the whole Service"},
		),
		Inspect: "egctl config envoy-proxy endpoint, or Envoy's 127.0.0.1:19000/config_dump?include_eds: one endpoint, the Service's address",
		Shows:   []Page{envoyDump(19000)},
	}
}

func envoyProxy() Kind {
	return Kind{"gateway.envoyproxy.io", "v1alpha1", "EnvoyProxy", "envoyproxies"}
}

func backendTrafficPolicy() Kind {
	return Kind{"gateway.envoyproxy.io", "v1alpha1", "BackendTrafficPolicy", "backendtrafficpolicies"}
}
