package edge

// kong is Kong with the Kubernetes Ingress Controller. Read at head of August 2026: one set of proxies serves all Gateways and Ingresses, and the target
// becomes the Service's DNS name, which Kong resolves. Older charts run controller, its webhook and proxy in one pod.
func kong() Vendor {
	return Vendor{
		Name: "kong", Controllers: []string{"konghq.com/kic-gateway-controller"}, IngressControllers: []string{"ingress-controllers.konghq.com/kong"},
		Proxies:    Proxies{Shared: true},
		Workload:   Match{Images: []string{"kong", "kong-gateway"}},
		Controller: Match{Images: []string{"kong/kubernetes-ingress-controller"}},
		Ports:      []Port{{8100, "status, metrics"}, {8444, "admin: its controller calls it"}, {8080, "admission webhook of the controller"}},
		Switches:   []Switch{serviceAnnotation("ingress.kubernetes.io/service-upstream")},
		Headless:   kongHeadless,
		Loses:      kongLoses(),
		Inspect:    "the admin API's /upstreams and /services: host is the Service's name",
	}
}

const kongHeadless = "the name resolves to pods, and Kong goes past the waypoint"

// kongLoses are what upstreams have, of which there is none any more.
func kongLoses() []Loss {
	return append(affinityOfServices(),
		Loss{Kind: "Service", Path: []string{"metadata", "annotations", "konghq.com/upstream-policy"}, What: "the KongUpstreamPolicy: hashing and health checks need more than one target"})
}
