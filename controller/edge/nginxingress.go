package edge

// nginxIngress is F5's NGINX Ingress Controller. Read at head of August 2026. Upstreams of VirtualServers are a list, which has one owner.
func nginxIngress() Vendor {
	upstreams := func(kind, resource string) Switch {
		return Switch{
			On: OnList, Kind: Kind{"k8s.nginx.org", "v1", kind, resource}, For: ForIngress, Value: true,
			List: []string{"spec", "upstreams"}, Name: "service", Path: []string{"use-cluster-ip"},
		}
	}
	return Vendor{
		Name: "nginx-ingress", IngressControllers: []string{"nginx.org/ingress-controller"},
		Workload: Match{
			Labels: map[string]string{"app.kubernetes.io/name": "nginx-ingress"},
			Images: []string{"nginx/nginx-ingress", "nginx-ic/nginx-plus-ingress"},
		},
		Ports: []Port{{8081, "readiness"}, {9113, "metrics"}},
		Switches: []Switch{
			ingressAnnotation("nginx.org/use-cluster-ip"), upstreams("VirtualServer", "virtualservers"), upstreams("VirtualServerRoute", "virtualserverroutes"),
		},
		Headless: "its upstream would be the word None: requests end with 502 (read, not seen)",
		Loses: []Loss{
			{Kind: "Ingress", Path: []string{"metadata", "annotations", "nginx.com/sticky-cookie-services"}, What: "sticky sessions"},
			{Kind: "Ingress", Path: []string{"metadata", "annotations", "nginx.org/lb-method"}, What: "the load balancing method: there is one upstream"},
			{Kind: "Ingress", Path: []string{"metadata", "annotations", "nginx.org/max-fails"}, What: "max_fails: NGINX ignores it where there is one upstream"},
		},
		Inspect: "nginx -T in the pod: the upstream has the Service's address",
	}
}
