package check

import (
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge/rules"
)

func edgeTwiceChecks() []Check {
	degrades := v1alpha1.SeverityWarning
	return []Check{
		{
			Code: "ISM604", Title: "retries of edge and mesh multiply", Severities: []v1alpha1.Severity{degrades},
			Pains:  []string{"A12", "ER04"},
			Matter: "A gateway sends failed requests again, and a route at the waypoint does so too.",
			Harm:   "Where the Service is ill it gets the product of both: three and three are sixteen requests for one.",
			Fix:    "Let one hop retry.",
			Find:   findMultipliedRetries,
		},
		{
			Code: "ISM605", Title: "the edge gives up before the mesh does", Severities: []v1alpha1.Severity{degrades},
			Pains:  []string{"A12", "ER04"},
			Matter: "The timeout of a gateway is shorter than that of a route at the waypoint for the same Service.",
			Harm:   "The client has its answer, an error, while the mesh still works on the request, or sends it again.",
			Fix:    "Give the gateway the longer timeout.",
			Find:   findEarlyTimeouts,
		},
		{
			Code: "ISM606", Title: "a canary is weighed at both hops", Severities: []v1alpha1.Severity{degrades},
			Pains: []string{"A12", "ER05"},
			Matter: "A route of a gateway splits by weights, and one of its Services is split by a route at the waypoint again; " +
				"or the gateway sends to versions past that route.",
			Harm: "The canary gets another share than is written.",
			Fix:  "Split at one hop.",
			Find: findTwiceWeighed,
		},
	}
}

// gamma are the rules of routes at the waypoint for the Service of a trip, which requests of the gateway go through.
func (t *trip) gamma(w *World, rule func(route *gatewayv1.HTTPRoute, i int)) {
	if is, _ := t.leads(w); is != rules.Yes {
		return
	}
	for _, r := range w.edgeWorld().mesh.routes[t.service] {
		for i := range r.Spec.Rules {
			rule(r, i)
		}
	}
}

func findMultipliedRetries(w *World, found func(Finding)) {
	for t := range w.trips() {
		by := t.having(func(r *rules.Rule) bool { return r.Retry != nil && r.Retry.Attempts > 0 })
		if len(by) != 1 {
			continue
		}
		t.gamma(w, func(route *gatewayv1.HTTPRoute, i int) {
			again := route.Spec.Rules[i].Retry
			if again == nil || again.Attempts == nil || *again.Attempts == 0 {
				return
			}
			a, b := by[0].Retry.Attempts, *again.Attempts
			found(Finding{
				Object: ruleObject(by[0].Object), Field: by[0].Field, Related: []Object{gammaObject(route), ruleObject(t.route)},
				Message: fmt.Sprintf("%s sends a failed request again up to %d times, and %s does each of them up to %d times: Service %s may get %d requests for one",
					t.edge.View.String(), a, gammaObject(route), b, t.service, (a+1)*(b+1)),
				Fix: "let one of them retry",
			})
		})
	}
}

func findEarlyTimeouts(w *World, found func(Finding)) {
	for t := range w.trips() {
		by := t.having(func(r *rules.Rule) bool { return r.Timeout != nil && r.Timeout.Request > 0 })
		if len(by) != 1 {
			continue
		}
		t.gamma(w, func(route *gatewayv1.HTTPRoute, i int) {
			rule := &route.Spec.Rules[i]
			mesh, what := duration(rule.Timeouts, func(t *gatewayv1.HTTPRouteTimeouts) *gatewayv1.Duration { return t.Request }), "takes"
			if rule.Retry != nil && rule.Retry.Attempts != nil {
				each := duration(rule.Timeouts, func(t *gatewayv1.HTTPRouteTimeouts) *gatewayv1.Duration { return t.BackendRequest })
				if all := each * time.Duration(*rule.Retry.Attempts+1); mesh == 0 && all > 0 {
					mesh, what = all, "takes with its retries"
				}
			}
			if mesh <= by[0].Timeout.Request {
				return
			}
			found(Finding{
				Object: ruleObject(by[0].Object), Field: by[0].Field, Related: []Object{gammaObject(route), ruleObject(t.route)},
				Message: fmt.Sprintf("%s gives up after %v, and %s %s up to %v for Service %s: it works on for nobody", t.edge.View.String(), by[0].Timeout.Request,
					gammaObject(route), what, mesh, t.service),
				Fix: "give the gateway the longer timeout",
			})
		})
	}
}

func duration(t *gatewayv1.HTTPRouteTimeouts, of func(*gatewayv1.HTTPRouteTimeouts) *gatewayv1.Duration) time.Duration {
	if t == nil || of(t) == nil {
		return 0
	}
	d, err := time.ParseDuration(string(*of(t)))
	if err != nil {
		return 0
	}
	return d
}

func findTwiceWeighed(w *World, found func(Finding)) {
	split := map[types.NamespacedName]*gatewayv1.HTTPRoute{} // Services that routes at waypoints split to, apart from their parents
	for parent, list := range w.edgeWorld().mesh.routes {
		for _, r := range list {
			for i := range r.Spec.Rules {
				for _, to := range weighed(r, i) {
					if is := split[to]; to != parent && (is == nil || gammaObject(r).String() < gammaObject(is).String()) {
						split[to] = r
					}
				}
			}
		}
	}
	if len(split) == 0 {
		return
	}
	type place struct{ route, section string }
	told := map[place]bool{}
	var versions []*trip
	for t := range w.trips() {
		if t.backends < 2 {
			continue
		}
		versions = append(versions, t)
		t.gamma(w, func(route *gatewayv1.HTTPRoute, i int) {
			if len(weighed(route, i)) < 2 {
				return
			}
			told[place{t.route.String(), t.section}] = true
			found(Finding{
				Object: ruleObject(t.route), Field: "spec." + t.section, Related: []Object{gammaObject(route)},
				Message: fmt.Sprintf("%s weighs Service %s here, and %s splits what comes to it again at the waypoint",
					t.edge.View.String(), t.service, gammaObject(route)),
				Fix: "split at one of them",
			})
		})
	}
	for _, t := range versions {
		route := split[t.service]
		if route == nil || told[place{t.route.String(), t.section}] || slices.Contains(parentsOf(route), t.service) {
			continue
		}
		told[place{t.route.String(), t.section}] = true
		found(Finding{
			Object: ruleObject(t.route), Field: "spec." + t.section, Related: []Object{gammaObject(route)},
			Message: fmt.Sprintf("%s weighs Service %s here, to which %s leads as well for callers of the mesh: "+
				"these have other shares, and filters and timeouts that are not here", t.edge.View.String(), t.service, gammaObject(route)),
			Fix: fmt.Sprintf("name the Service that %s is for, and let it split", gammaObject(route)),
		})
	}
}

// weighed are the Services of a rule that splits.
func weighed(r *gatewayv1.HTTPRoute, i int) []types.NamespacedName {
	refs := r.Spec.Rules[i].BackendRefs
	if len(refs) < 2 {
		return nil
	}
	var list []types.NamespacedName
	for j := range refs {
		key := types.NamespacedName{Namespace: r.Namespace, Name: string(refs[j].Name)}
		if refs[j].Namespace != nil {
			key.Namespace = string(*refs[j].Namespace)
		}
		list = append(list, key)
	}
	return list
}

// parentsOf are the Services that a route of the mesh is for.
func parentsOf(r *gatewayv1.HTTPRoute) []types.NamespacedName {
	var list []types.NamespacedName
	for _, p := range r.Spec.ParentRefs {
		list = append(list, types.NamespacedName{Namespace: r.Namespace, Name: string(p.Name)})
	}
	return list
}
