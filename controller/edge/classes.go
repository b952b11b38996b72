package edge

// ClassController is the controllerName of a GatewayClass that a controller, or its chart, makes under this name as a rule; empty: no name that is known. It is
// for manifests without the class: what a cluster has counts there.
func ClassController(class string) string {
	switch class {
	case "istio":
		return "istio.io/gateway-controller"
	case "istio-agentgateway":
		return "istio.io/agentgateway-controller"
	case "kgateway":
		return "kgateway.dev/kgateway"
	case "agentgateway":
		return "agentgateway.dev/agentgateway"
	case "cilium":
		return "io.cilium/gateway-controller"
	case "nginx":
		return "gateway.nginx.org/nginx-gateway-controller"
	case "traefik":
		return "traefik.io/gateway-controller"
	case "contour":
		return "projectcontour.io/gateway-controller"
	}
	return ""
}
