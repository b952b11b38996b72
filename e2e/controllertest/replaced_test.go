package controllertest

import (
	"errors"
	"testing"

	"github.com/isthmus-mesh/isthmus/controller/apply"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

func TestWhatWasReplacedSinceThePlanIsLeftAlone(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "replaced")
	const orders = `{apiVersion: v1, kind: Service, metadata: {name: orders, namespace: SHOP}, spec: {selector: {app: orders}, ports: [{port: 80}]}}`
	const gateway = `{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: waypoint, namespace: SHOP}, spec: {gatewayClassName: istio, listeners: [{name: http, port: 80, protocol: HTTP}]}}`
	s.apply(gateway)
	service, waypoint := s.service("orders"), s.wayPoint()
	if !s.exists(waypoint) {
		t.Fatal("there is no Gateway")
	}
	key := waypoint.Name
	label := &plan.Write{APIVersion: "v1", Kind: "Service", UID: service.UID, Fields: map[string]any{"metadata": map[string]any{"labels": map[string]any{edge.LabelIngressUseWaypoint: "true"}}}}
	label.Key.Namespace, label.Key.Name = s.shop, "orders"
	remove := &plan.Write{APIVersion: "gateway.networking.k8s.io/v1", Kind: "Gateway", UID: waypoint.UID, Delete: true}
	remove.Key.Namespace, remove.Key.Name = s.shop, key

	s.delete(service)
	s.delete(waypoint)
	gone := s.state(true)
	if _, err := apply.Do(t.Context(), s.c, s.theEdge("public"), label); err == nil {
		t.Error("a Service that is gone was labelled")
	}
	if _, err := apply.Do(t.Context(), s.c, s.theEdge("public"), remove); err != nil {
		t.Errorf("deleting what is gone: %v", err)
	}
	s.same(gone, true)

	s.apply(orders)
	s.apply(gateway)
	before := s.state(true)
	for _, w := range []*plan.Write{label, remove} {
		if _, err := apply.Do(t.Context(), s.c, s.theEdge("public"), w); err == nil {
			t.Errorf("%s is another one, and was written to", w)
		} else if _, refused := errors.AsType[*apply.RefusedError](err); refused {
			t.Errorf("a new plan would do, and this asks for somebody's hands: %v", err)
		}
	}
	s.same(before, true)
}
