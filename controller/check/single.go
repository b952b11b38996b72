package check

import (
	"fmt"
	"slices"

	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// singleChecks are about waypoints that one pod is.
func singleChecks() []Check {
	return []Check{{
		Code: "ISM607", Title: "one pod is all that a waypoint has", Severities: onlyInfo(), Pains: []string{"G6"},
		Matter: "Services lead to a waypoint that one pod serves.",
		Harm:   "Whenever that pod ends, be it for an update or with its node, everything that is sent to these Services fails until another is ready.",
		Fix:    "Have two or more, by a ConfigMap that infrastructure.parametersRef of the waypoint names, or by a HorizontalPodAutoscaler.",
		Find:   findSingle,
	}}
}

func findSingle(w *World, found func(Finding)) {
	if w.Paper {
		return // istiod makes the pods
	}
	for i := range w.Gateways {
		g := &w.Gateways[i]
		led := w.guard().led[keyOf(g)]
		if len(led) == 0 || !w.IsWaypoint(g) || len(g.Spec.Addresses) > 0 { // who serves an address that people have written is not seen
			continue
		}
		pods := slices.DeleteFunc(slices.Clone(w.waypointPods(keyOf(g))), func(p *plan.Pod) bool { return p.DeletionTimestamp != nil })
		if len(pods) != 1 || !isReady(pods[0]) {
			continue
		}
		f := Finding{
			Object: gatewayObject(keyOf(g)), Field: "spec.infrastructure.parametersRef",
			Message: fmt.Sprintf("%s is all that serves this waypoint: when it ends, what is sent to %s fails until another is ready", podObject(pods[0]), ServiceObject(led[0])),
			Fix:     "have two or more pods, by a ConfigMap that spec.infrastructure.parametersRef names, with deployment: {spec: {replicas: 2}}",
			Related: []Object{ServiceObject(led[0])},
		}
		if more := len(led) - 1; more > 0 {
			f.Message = fmt.Sprintf("%s is all that serves this waypoint: when it ends, what is sent to %s and %d more fails until another is ready", podObject(pods[0]),
				ServiceObject(led[0]), more)
		}
		found(f)
	}
}
