package edge

import (
	"slices"
)

// Labels that Istio and the Gateway API define.
const (
	LabelGatewayName        = "gateway.networking.k8s.io/gateway-name"
	LabelIngressUseWaypoint = "istio.io/ingress-use-waypoint"
)

// Vendor describes a kind of gateway.
type Vendor struct {
	// Name is what people call it.
	Name string
	// Controllers are the controllerNames of its GatewayClasses.
	Controllers []string
	// Pods gives labels of the pods that serve a Gateway, in the Gateway's namespace. Nil: the vendor has no Gateways, a
	// workload is named.
	Pods func(gateway string) map[string]string
	// Native: it speaks HBONE itself, and must not be captured.
	Native bool
	// Infrastructure: labels of Gateway.spec.infrastructure reach its pods.
	Infrastructure bool
	// ServiceLabels are its switch: with them on a Service it sends to the Service's address, and so through its waypoint.
	// Nil: it does so anyway, or nobody knows.
	ServiceLabels map[string]string
}

// Vendors is the table.
func Vendors() []Vendor { return []Vendor{istio(), kgateway()} }

// ByController is the vendor of a GatewayClass's controllerName, or Custom.
func ByController(name string) Vendor {
	for _, v := range Vendors() {
		if slices.Contains(v.Controllers, name) {
			return v
		}
	}
	return Custom()
}

// Custom is a gateway that is not in the table. It is captured, and is taken to send to Service addresses.
func Custom() Vendor {
	return Vendor{Name: "custom", Pods: byGatewayName}
}

func byGatewayName(gateway string) map[string]string {
	return map[string]string{LabelGatewayName: gateway}
}

func ingressUseWaypoint() map[string]string {
	return map[string]string{LabelIngressUseWaypoint: "true"}
}
