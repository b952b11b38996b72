package plan

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/edge"
)

// Sender tells of any Service what View.Backends tells of those that a gateway sends to: how it would send there if a route of its led there, where none
// does. The snapshot must not change as long as it is asked.
func Sender(s *Snapshot, v *View) func(types.NamespacedName) ViewBackend {
	look := *s.indexed()
	look.Hearsay, look.Edge = true, v.Edge
	m := &maker{Snapshot: &look}
	m.findGateways()
	i := slices.IndexFunc(m.gateways, func(g *gateway) bool { return g.kind == v.Kind && g.key == v.Key })
	return func(key types.NamespacedName) ViewBackend {
		if i < 0 {
			return ViewBackend{Key: key, Service: look.service(key), Why: "its GatewayClass is not there, so that nobody can tell what kind of gateway it is"}
		}
		return m.viewBackend(m.gateways[i], key)
	}
}

// Admits says whether a waypoint takes what leads to it from a namespace, by its allowedRoutes. It takes its own where nothing is said.
func Admits(s *Snapshot, waypoint *gatewayv1.Gateway, namespace string) bool {
	return (&maker{Snapshot: s}).admits(waypoint, namespace)
}

// Late says whether a pod of a gateway was captured after it had connected to its controller, which has not noticed and has it send past waypoints.
func Late(v *View, p *Pod) bool { return (&gateway{vendor: v.Vendor}).late(p) }

// Selected are the pods of a Service, without those that have ended. A Service without a selector has none here.
func Selected(s *Snapshot, service *corev1.Service) []*Pod {
	return s.podsWith(service.Namespace, service.Spec.Selector)
}

// ControllerPods are those of a vendor's controller, wherever they run.
func ControllerPods(s *Snapshot, v *edge.Vendor) []*Pod {
	m := &maker{Snapshot: s}
	var list []*Pod
	for _, w := range m.controllers(v) {
		list = append(list, m.podsWith(w.key.Namespace, w.selector)...)
	}
	return list
}
