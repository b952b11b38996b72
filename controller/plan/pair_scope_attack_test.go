package plan_test

import (
	"fmt"
	"strings"
	"testing"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// TestTooManyRoutesWidenNothing: where a list lets the gateway in by its routes, and there are more of these than are looked at, it stays as narrow as it is.
func TestTooManyRoutesWidenNothing(t *testing.T) {
	s := snapshot(t, inputs(t)["pair-scope-route-follows-a-route-more"])
	for i := range 300 {
		r := s.HTTPRoutes[len(s.HTTPRoutes)-1].DeepCopy()
		r.Name, r.Spec.Hostnames = fmt.Sprint("more-", i), []gatewayv1.Hostname{gatewayv1.Hostname(fmt.Sprintf("h%d.test", i))}
		r.Spec.Rules[0].Filters = nil
		s.HTTPRoutes = append(s.HTTPRoutes, *r)
	}
	p := plan.Make(s)
	for _, step := range p.Steps {
		if step.Write != nil && strings.HasSuffix(step.Object, "-allow") {
			t.Errorf("%s is written: %v", step.Object, step.Write.Fields["spec"])
		}
	}
	if got := describe(p, s.Edge); !strings.Contains(got, "stays as it is, and more is refused there") {
		t.Errorf("nothing tells that the list stays:\n%s", got)
	}
}

// TestAnUnreadRouteKeepsNothingThatPodsRefuse: a route that the gateway has not spoken of has what was called stay, but not where the pods' list has ceased to
// let the gateway in.
func TestAnUnreadRouteKeepsNothingThatPodsRefuse(t *testing.T) {
	const gateway = "{source: {principals: [cluster.local/ns/edge/sa/gateway]}}, {source: {serviceAccounts: [job]}}"
	input := inputs(t)["pair-scope-route-keeps-what-an-unread-route-had"]
	if strings.Count(input, gateway) != 1 {
		t.Fatal("the pods' list does not have the gateway beside the job")
	}
	p := plan.Make(snapshot(t, strings.Replace(input, gateway, "{source: {serviceAccounts: [job]}}", 1)))
	for _, w := range p.Writes() {
		if !strings.HasSuffix(w.Key.Name, "-allow") {
			continue
		}
		rules := w.Fields["spec"].(map[string]any)["rules"].([]any)
		if got := fmt.Sprint(rules); len(rules) != 1 || !strings.Contains(got, "shop/job") || strings.Contains(got, "principals:[") {
			t.Errorf("the waypoint lets in %s", got)
		}
		return
	}
	t.Error("the list at the waypoint stays as it is")
}
