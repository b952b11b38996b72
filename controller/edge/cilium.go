package edge

// cilium is Cilium's Gateway API and Ingress. Read and inferred: its proxy is one a node, in the node's network, for all Gateways, so that nothing of a
// Gateway can be labelled.
func cilium() Vendor {
	return Vendor{
		Name: "cilium", Controllers: []string{"io.cilium/gateway-controller"}, IngressControllers: []string{"cilium.io/ingress-controller"},
		Proxies:  Proxies{Shared: true},
		Workload: Match{Labels: map[string]string{"k8s-app": "cilium-envoy"}, Images: []string{"cilium/cilium-envoy"}},
		Never:    "its proxies are one a node, in the node's network, and serve all Gateways",
		NoSwitch: "Cilium's proxies send to pods from the node's network, where nothing is captured: put a gateway that can be captured before these Services",
		Inspect:  "cilium-dbg envoy admin in the agent's pod",
	}
}
