package edge

// ingressNGINX is ingress-nginx of Kubernetes. Read in 1.15.1, its last release. Its pods are controller, proxy and admission webhook in one.
func ingressNGINX() Vendor {
	const key = "nginx.ingress.kubernetes.io/"
	return Vendor{
		Name: "ingress-nginx", IngressControllers: []string{"k8s.io/ingress-nginx"},
		Workload: Match{
			Labels: map[string]string{"app.kubernetes.io/name": "ingress-nginx", "app.kubernetes.io/component": "controller"},
			Images: []string{"ingress-nginx/controller"},
		},
		Ports:    []Port{{8443, "admission webhook: the API server calls it"}, {10254, "health, metrics"}},
		Switches: []Switch{ingressAnnotation(key + "service-upstream")},
		Headless: "ingress-nginx has no upstream for it, and answers 503",
		Loses: []Loss{
			{Kind: "Ingress", Path: []string{"metadata", "annotations", key + "affinity"}, What: "sticky sessions"},
			{Kind: "Ingress", Path: []string{"metadata", "annotations", key + "upstream-hash-by"}, What: "consistent hashing"},
			{Kind: "Ingress", Path: []string{"metadata", "annotations", key + "proxy-next-upstream"}, What: "proxy_next_upstream: there is one upstream"},
		},
		Warnings: []string{"ingress-nginx is retired: no release, and no fix of anything, since March 2026. Plan to move to another gateway"},
		Inspect:  "kubectl ingress-nginx backends: one endpoint, the Service's address",
	}
}
