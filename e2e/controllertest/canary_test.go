package controllertest

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// canaryAlone sees that istiod tells no waypoint of a Service by a canary label alone, nor by one that names its first waypoint again. If it did, a waypoint could be told of
// a Service before anybody is led there, and no request would be lost on the way: where this fails, use it.
func canaryAlone(t *testing.T, s *site) {
	s.apply(shopWorld + shopServices)
	s.available(types.NamespacedName{Namespace: s.shop, Name: "shared"})
	s.wait("istiod has seen what came after the canary", func() string {
		for _, name := range []string{"same", "led"} {
			if c := meta.FindStatusCondition(s.service(name).Status.Conditions, plan.ConditionWaypointBound); c == nil || c.Status != "True" {
				return name + " is not bound"
			}
		}
		return ""
	})
	if c := meta.FindStatusCondition(s.service("alone").Status.Conditions, plan.ConditionWaypointBound); c != nil {
		t.Errorf("by a canary alone istiod says %+v", c)
	}
	if c := meta.FindStatusCondition(s.service("same").Status.Conditions, plan.ConditionWaypointBound); !strings.Contains(c.Message, "Canary waypoint not attached") || !strings.Contains(c.Message, "must differ from the primary") {
		t.Errorf("of a canary that is the first waypoint too istiod says %+v", c)
	}
	if c := meta.FindStatusCondition(s.service("led").Status.Conditions, plan.ConditionWaypointBound); strings.Contains(c.Message, "Canary waypoint") {
		t.Errorf("of a Service without canary istiod says %+v", c)
	}
}

// shopServices are Services that are led to a waypoint in ways of their own.
const shopServices = `
{apiVersion: v1, kind: Service, metadata: {name: alone, namespace: SHOP, labels: {istio.io/use-waypoint-canary: shared}, annotations: {istio.io/use-waypoint-canary-weight: "0"}}, spec: {selector: {app: orders}, ports: [{name: http, port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: same, namespace: SHOP, labels: {istio.io/use-waypoint: shared, istio.io/use-waypoint-canary: shared}}, spec: {selector: {app: orders}, ports: [{name: http, port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: led, namespace: SHOP, labels: {istio.io/use-waypoint: shared}}, spec: {selector: {app: orders}, ports: [{name: http, port: 80}]}}
`
