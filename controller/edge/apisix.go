package edge

// apisix is APISIX with its ingress controller. Read at head of August 2026: backends of ApisixRoutes have a setting, in a list which has one owner; Ingresses
// and routes of the Gateway API have none.
func apisix() Vendor {
	return Vendor{
		Name: "apisix", Controllers: []string{"apisix.apache.org/apisix-ingress-controller"}, IngressControllers: []string{"apisix.apache.org/apisix-ingress-controller"},
		Proxies:    Proxies{Shared: true},
		Workload:   Match{Labels: map[string]string{"app.kubernetes.io/name": "apisix"}, Images: []string{"apache/apisix"}},
		Controller: Match{Labels: map[string]string{"app.kubernetes.io/name": "apisix-ingress-controller"}, Images: []string{"apache/apisix-ingress-controller"}},
		Ports:      []Port{{9180, "admin: its controller calls it"}, {9091, "metrics"}},
		Switches: []Switch{{
			On: OnList, Kind: Kind{"apisix.apache.org", "v2", "ApisixRoute", "apisixroutes"}, For: ForIngress, Value: "service",
			List: []string{"spec", "http", "backends"}, Name: "serviceName", Path: []string{"resolveGranularity"},
		}},
		NoSwitch: "APISIX sends to pods for Ingresses and routes of the Gateway API, and has no setting for it: only backends of an ApisixRoute have resolveGranularity",
		Headless: "it has no address to send to (read, not seen)",
		Warnings: []string{"APISIX was reported to break when it is captured, on SNI (istio#53167): try one pod first"},
		Inspect:  "the admin API's /apisix/admin/upstreams: one node, the Service's address",
	}
}
