package edge

// caddy is Caddy's gateway controller. Read at head of February 2026: it dials Service.spec.clusterIP, so that there is nothing to switch. Who installs it brings
// the pods; a Service with the label of the Gateway selects them, the pods themselves do not have it.
func caddy() Vendor {
	return Vendor{
		Name: "caddy", Controllers: []string{"caddyserver.com/gateway-controller"},
		Proxies:    Proxies{Service: map[string]string{"gateway.caddyserver.com/owning-gateway": "{name}"}},
		Controller: Match{Labels: map[string]string{"app.kubernetes.io/name": "caddy-gateway"}},
		Ports:      []Port{{2021, "admin: its controller calls it"}, {2019, "readiness, metrics"}},
		Headless:   "Caddy would dial the word None: requests end with 502 (read, not seen)",
		Inspect:    "the admin API's /config/: the upstream is the Service's address",
	}
}
