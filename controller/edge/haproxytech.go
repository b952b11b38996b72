package edge

// haproxyTech is HAProxy Technologies' ingress controller and its Unified Gateway. Read: kubernetes-ingress at head of July 2026, whose annotations have
// no such switch; that the controller of an IngressClass may have the class appended. Controller and proxy are one pod.
func haproxyTech() Vendor {
	return Vendor{
		Name: "haproxytech", Controllers: []string{"gate.haproxy.org/hug"}, IngressControllers: []string{"haproxy.org/ingress-controller"},
		Proxies: Proxies{Shared: true},
		Workload: Match{
			Labels: map[string]string{"app.kubernetes.io/name": "kubernetes-ingress"},
			Images: []string{"haproxytech/kubernetes-ingress", "haproxytech/haproxy-unified-gateway"},
		},
		Ports: []Port{{1042, "health"}, {1024, "stats, metrics"}, {6060, "controller's metrics"}},
		NoSwitch: "HAProxy Technologies' controllers send to pods and have no setting for it: an Ingress that sends to a Service of type ExternalName, " +
			"with the name SERVICE.NAMESPACE.svc.cluster.local, reaches the address by DNS",
		Inspect: "haproxy.cfg in the pod: servers of the backend",
	}
}
