package edge

// haproxyIngress is haproxy-ingress of jcmoraisjr. Read at head of August 2026: the key works on Services, Ingresses and in the global ConfigMap; of these
// we set a Service's, which Gateways follow too. Controller and proxy are one pod.
func haproxyIngress() Vendor {
	const key = "haproxy-ingress.github.io/"
	return Vendor{
		Name: "haproxy-ingress", Controllers: []string{"haproxy-ingress.github.io/controller"}, IngressControllers: []string{"haproxy-ingress.github.io/controller"},
		Proxies:  Proxies{Shared: true},
		Workload: Match{Labels: map[string]string{"app.kubernetes.io/name": "haproxy-ingress"}, Images: []string{"jcmoraisjr/haproxy-ingress"}},
		Ports:    []Port{{10253, "health"}, {10254, "metrics"}, {1936, "stats"}},
		Switches: []Switch{serviceAnnotation(key + "service-upstream")},
		Headless: "it has no address to send to: requests end with 503 (read, not seen)",
		Loses: append(affinityOfServices(),
			Loss{Kind: "Ingress", Path: []string{"metadata", "annotations", key + "affinity"}, What: "sticky sessions"},
			Loss{Kind: "Service", Path: []string{"metadata", "annotations", key + "affinity"}, What: "sticky sessions"},
			Loss{Kind: "Service", Path: []string{"metadata", "annotations", key + "slots-min-free"}, What: "free slots: there is one server"},
		),
		Inspect: "haproxy.cfg in the pod: one server, the Service's address",
	}
}
