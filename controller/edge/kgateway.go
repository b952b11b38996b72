package edge

// kgateway reads ingress-use-waypoint where its chart has waypoint.enabled, and only in pods that were captured when they opened
// their xDS stream; labels of spec.infrastructure bring the rollout that this takes.
func kgateway() Vendor {
	return Vendor{
		Name: "kgateway", Controllers: []string{"kgateway.dev/kgateway"}, Pods: byGatewayName,
		Infrastructure: true, ServiceLabels: ingressUseWaypoint(),
	}
}
