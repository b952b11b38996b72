package edge

// contour was seen running, 1.33.8, controller alone: it sends to pods; an HTTPProxy to a Service of type ExternalName makes a cluster that resolves the name.
// Read: what its provisioner makes for a Gateway, a Deployment or DaemonSet envoy-<gateway>.
func contour() Vendor {
	return Vendor{
		Name: "contour", Controllers: []string{"projectcontour.io/gateway-controller"}, IngressControllers: []string{"projectcontour.io/ingress-controller"},
		Proxies: Proxies{
			Labels: map[string]string{LabelGatewayName: "{name}", "projectcontour.io/owning-gateway-name": "{name}", "app": "envoy-{name}"}, Account: "envoy-{name}",
		},
		Workload:   Match{Labels: map[string]string{"app.kubernetes.io/name": "contour", "app.kubernetes.io/component": "envoy"}},
		Controller: Match{Labels: map[string]string{"app.kubernetes.io/name": "contour", "app.kubernetes.io/component": "contour"}},
		Ports:      []Port{{8002, "readiness, metrics"}, {8090, "shutdown manager"}},

		Infrastructure: true,
		NoSwitch: "Contour sends to pods and has no setting for it: with enableExternalNameService, an HTTPProxy that sends to a Service of type ExternalName, " +
			"with the name SERVICE.NAMESPACE.svc.cluster.local, reaches the address by DNS",
		Inspect: "contour cli cds and eds, with --contour=127.0.0.1:8001",
	}
}
