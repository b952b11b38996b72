package controllertest

import (
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// secondWorld is another gateway that sends to the same Service, and a waypoint of nobody's.
const secondWorld = `
{apiVersion: v1, kind: Namespace, metadata: {name: SHOP, labels: {istio.io/dataplane-mode: ambient}, annotations: {isthmus.dev/edges: "EDGE/public, EDGE/second"}}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: waypoint, namespace: SHOP}, spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: second, namespace: EDGE}, spec: {gatewayClassName: kgateway, listeners: [{name: http, port: 80, protocol: HTTP}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: second, namespace: EDGE, labels: {gateway.networking.k8s.io/gateway-name: second}}, spec: {containers: [{name: c, image: nothing}]}}
`

func TestALabelStaysUntilTheLastEdgeIsGone(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "two")
	s.apply(secondWorld)
	s.settled("orders")
	s.wait("the waypoint is programmed", func() string {
		if g := s.wayPoint(); s.exists(g) && plan.Programmed(g) {
			return ""
		}
		return "it is not"
	})
	before := s.state(false)
	s.apply(edgeOfKgateway)
	s.ready("public", v1alpha1.ReasonDone)
	s.apply(strings.NewReplacer("name: public", "name: second", "{name: http}", "{name: second}").Replace(edgeOfKgateway) +
		"  backends: {services: [{namespace: SHOP, name: orders}]}\n")
	s.ready("second", v1alpha1.ReasonDone)
	s.delete(s.theEdge("public"))
	s.gone(s.theEdge("public"))
	if labels := s.service("orders").Labels; labels[plan.LabelUseWaypoint] != "waypoint" {
		t.Errorf("the second edge is there, and labels are %v", labels)
	}
	s.ready("second", v1alpha1.ReasonDone)
	s.delete(s.theEdge("second"))
	s.gone(s.theEdge("second"))
	s.same(before, false)
}
