package edge

// nginxFabric is NGINX Gateway Fabric. Read at head of August 2026; useClusterIP was merged in July 2026, after 2.6.7, and no release has it. Where the API
// server does not know the field it refuses it, in a dry run already. Never for layer 4.
func nginxFabric() Vendor {
	layer4 := []string{"TCPRoute", "TLSRoute"}
	return Vendor{
		Name: "nginx-gateway-fabric", Controllers: []string{"gateway.nginx.org/nginx-gateway-controller"},
		Proxies: Proxies{Labels: map[string]string{LabelGatewayName: "{name}"}, Account: "{name}-{class}"},
		Controller: Match{
			Labels: map[string]string{"app.kubernetes.io/name": "nginx-gateway-fabric"},
			Images: []string{"nginx-gateway-fabric"},
		},
		Ports: []Port{{8081, "readiness"}, {9113, "metrics"}},

		Infrastructure: true,
		Switches: []Switch{
			{
				On: OnParameters, Kind: Kind{"gateway.nginx.org", "v1alpha2", "NginxProxy", "nginxproxies"}, Path: []string{"spec", "useClusterIP"}, Value: true,
				For: ForRoutes, Since: "2.7.0", Unreleased: true, NotFor: layer4,
			},
			{
				On: OnServiceByRef, Kind: Kind{"gateway.nginx.org", "v1alpha1", "UpstreamSettingsPolicy", "upstreamsettingspolicies"},
				Path: []string{"spec", "useClusterIP"}, Value: true, For: ForRoutes, Since: "2.7.0", Unreleased: true, Target: [2]string{"core", "Service"},
				NotFor: layer4,
			},
		},
		Headless: "NGINX Gateway Fabric stays with pods, without a word, and goes past the waypoint",
		Loses: append(affinityOfServices(),
			Loss{Kind: "UpstreamSettingsPolicy", Path: []string{"spec", "loadBalancingMethod"}, What: "the load balancing method: there is one upstream"}),
		Inspect: "nginx -T in the pod: the upstream has the Service's address",
	}
}
