package edge

// istio is Istio's own ingress gateway. Since 1.25 it obeys ingress-use-waypoint where istiod has
// ENABLE_INGRESS_WAYPOINT_ROUTING, which is its default.
func istio() Vendor {
	return Vendor{
		Name: "istio", Controllers: []string{"istio.io/gateway-controller"}, Pods: byGatewayName,
		Native: true, Infrastructure: true, ServiceLabels: ingressUseWaypoint(),
	}
}
