package edge

// kgateway was seen running, 2.4.0 with a real Envoy: the label does nothing while the chart has waypoint.enabled off, which is the default
// of 2.2.0 and 2.4.0; the value must be "true" to the letter; that of a namespace cannot be taken back by a Service; whether the pod is captured
// is read once, when its xDS stream opens. Infrastructure labels reach its pods and roll them. Read at head of 2026: delegation of routes, which takes
// no ReferenceGrant and reports on each route that takes something of its parent's.
func kgateway() Vendor {
	return Vendor{
		Name: "kgateway", Controllers: []string{"kgateway.dev/kgateway"},
		Proxies:    Proxies{Labels: map[string]string{LabelGatewayName: "{name}"}, Account: "{name}"},
		Controller: Match{Labels: map[string]string{"kgateway": "kgateway"}, Images: []string{"kgateway-dev/kgateway"}},
		Ports:      []Port{{8082, "readiness"}, {9091, "metrics"}, {19000, "admin, on localhost"}},

		Infrastructure: true, OncePerStream: true,
		Switches: []Switch{serviceLabel(LabelIngressUseWaypoint)},
		Needs: []Setting{
			{
				Env: "KGW_ENABLE_WAYPOINT", Want: "true", Default: "false",
				Why: "the label istio.io/ingress-use-waypoint does nothing: kgateway sends to pods, past every waypoint",
				Fix: "helm upgrade kgateway with waypoint.enabled=true",
			},
			{
				Env: "KGW_INGRESS_USE_WAYPOINTS", Want: "true", Default: "true",
				Why: "the label istio.io/ingress-use-waypoint is switched off: kgateway sends to pods, past every waypoint",
				Fix: "take KGW_INGRESS_USE_WAYPOINTS=false from the controller",
			},
		},
		Delegation: &Delegation{
			Group: "delegation.kgateway.dev", Kind: "label", Label: "delegation.kgateway.dev/label", Anywhere: "all",
		},
		Headless: "kgateway makes a cluster without endpoints of it, and answers 503",
		Loses:    affinityOfServices(),
		Inspect:  "the controller's 127.0.0.1:9095/snapshots/xds, or Envoy's 127.0.0.1:19000/config_dump?include_eds: a STATIC cluster with the Service's address",
		Shows:    []Page{envoyDump(19000), {Controller: true, Port: 9095, Path: "/snapshots/xds"}}, Upstreams: "kube_{namespace}_{name}_{port}",
	}
}
