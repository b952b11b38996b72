package edge

// traefik was seen running, 3.6.12: of its two annotations each works for its own kind of routes alone, and IngressRoutes follow neither, but their own
// nativeLB. One Deployment serves all Gateways.
func traefik() Vendor {
	routes, ingresses := serviceAnnotation("traefik.io/service.nativelb"), serviceAnnotation("traefik.ingress.kubernetes.io/service.nativelb")
	routes.For, ingresses.For, routes.Since = ForRoutes, ForIngress, "3.2.0"
	return Vendor{
		Name: "traefik", Controllers: []string{"traefik.io/gateway-controller"}, IngressControllers: []string{"traefik.io/ingress-controller"},
		Proxies:  Proxies{Shared: true},
		Workload: Match{Labels: map[string]string{"app.kubernetes.io/name": "traefik"}, Images: []string{"traefik"}},
		Ports:    []Port{{8080, "health, metrics, /api/rawdata"}, {9100, "metrics"}},
		Switches: []Switch{
			routes, ingresses,
			{
				On: OnList, Kind: Kind{"traefik.io", "v1alpha1", "IngressRoute", "ingressroutes"}, For: ForIngress, Value: true,
				List: []string{"spec", "routes", "services"}, Name: "name", Path: []string{"nativeLB"},
			},
		},
		Headless: "Traefik says ResolvedRefs=False, no clusterIP found, and answers 500",
		Loses: append(affinityOfServices(),
			Loss{Kind: "Service", Path: []string{"metadata", "annotations", "traefik.ingress.kubernetes.io/service.sticky.cookie"}, What: "sticky sessions"}),
		Inspect: "/api/rawdata on its dashboard's router: one server, the Service's address",
		Shows:   []Page{{Port: 8080, Path: "/api/rawdata", Outside: true, Needs: "api.insecure=true"}},
	}
}
