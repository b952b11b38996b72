package controllertest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// listed is a list at the pods that names the gateway, and something that the pods deny to a caller whom it names too.
const listed = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: callers, namespace: SHOP}
spec:
  selector: {matchLabels: {app: orders}}
  rules: [{from: [{source: {principals: [cluster.local/ns/EDGE/sa/gateway, cluster.local/ns/SHOP/sa/other]}}], to: [{operation: {ports: ["8080"]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: not-other, namespace: SHOP}
spec: {action: DENY, rules: [{from: [{source: {serviceAccounts: [other]}}]}]}
---
`

// pairedGateway has a Service whose pods take the gateway by a list, and refuse somebody. Wired as it is the list would refuse everybody, which is why it
// is not. With Pair the gateway goes by the waypoint, without a request refused on the way, and whoever was refused is, before, meanwhile and after undo.
func pairedGateway(t *testing.T, s *site) {
	s.apply(lockWorld)
	for _, d := range []types.NamespacedName{{Namespace: s.edge, Name: "gateway"}, {Namespace: s.shop, Name: "other"}, {Namespace: s.shop, Name: "shared"}} {
		s.available(d)
	}
	s.apply(`{apiVersion: v1, kind: Namespace, metadata: {name: EDGE, labels: {istio.io/dataplane-mode: ambient}}}` + "\n---" + listed)
	for _, at := range [][2]string{{s.edge, s.gatewayPod().Name}, {s.shop, "orders"}} {
		if err := s.mesh.Node.WaitCaptured(t.Context(), at[0], at[1], true); err != nil {
			t.Fatal(err)
		}
	}
	vip, pod := s.service("orders").Spec.ClusterIP, s.mesh.Node.PodIP(s.shop, "orders").String()+":8080"
	s.gets("gateway", vip, 200)
	s.gets("gateway", pod, 200)
	s.gets("other", vip, 0)
	s.gets("other", pod, 0)
	before := s.state(false)

	s.apply(wholeEdge)
	s.wait("it is told what the waypoint would do to the list", func() string {
		if f := finding(s.get("public"), v1alpha1.FindingVoided); f == nil || f.Severity != v1alpha1.SeverityError || f.Object != "AuthorizationPolicy "+s.shop+"/callers" {
			return fmt.Sprintf("%+v", s.get("public").Status.Findings)
		}
		return ""
	})
	s.gets("gateway", vip, 200)

	gateway := s.gatewayPod().Status.PodIP
	end := s.traffic(gateway, vip, 2)
	s.apply(strings.Replace(wholeEdge, "  mode: Manage\n", "  mode: Manage\n  authorization: {mode: Pair}\n", 1))
	e, took := s.ready("public", v1alpha1.ReasonWaiting) // for the gateway to be started anew
	calls, lost := end()
	t.Logf("paired after %v; of %d requests %d were lost: %+v", took, calls, len(lost), lost)
	if calls == 0 {
		t.Error("there was no traffic")
	}
	for _, l := range lost {
		if l.Status == 403 || l.Status == 0 || strings.Contains(l.Body, "RBAC") {
			t.Errorf("refused on the way: %+v", l)
		}
	}
	var order []string
	for _, step := range e.Status.Plan.Steps {
		if slices.Contains([]string{plan.VerbPair, plan.VerbWire, plan.VerbConfirm}, step.Verb) {
			order = append(order, step.Verb+" "+string(step.State))
		}
	}
	if want := "[Pair Done Pair Done Pair Done Wire Done Confirm Done]"; fmt.Sprint(order) != want {
		t.Errorf("the steps are %v, want %v", order, want)
	}
	byWaypoint := func() {
		t.Helper()
		s.wait("the gateway goes by the waypoint", func() string {
			if a := s.called("gateway", vip); a.Status != 200 || !strings.Contains(a.Body, "X-Request-Id") { // which Envoy adds
				return fmt.Sprintf("it gets %+v", a)
			}
			return ""
		})
		s.gets("other", vip, 403)
		s.gets("other", pod, 0)
	}
	byWaypoint()
	s.gets("gateway", pod, 200) // until it is locked

	nextSecond()
	s.delete(s.gatewayPod())
	s.ready("public", v1alpha1.ReasonDone)
	s.gets("gateway", pod, 0)
	byWaypoint()

	// The waypoint follows the pods: whoever is not denied any more is allowed by the list.
	s.delete(object("security.istio.io/v1", "AuthorizationPolicy", s.shop, "not-other"))
	s.gets("other", vip, 200)
	s.apply(listed)
	s.gets("other", vip, 403)

	// Undo asks all the time whether the other gets in.
	stop, got := make(chan struct{}), make(chan []string)
	go func() {
		var in []string
		for {
			select {
			case <-stop:
				got <- in
				return
			default:
			}
			if a := s.called("other", vip); a.Status == 200 {
				in = append(in, fmt.Sprintf("%+v", a))
			}
		}
	}()
	s.delete(s.theEdge("public"))
	t.Logf("undone after %v", s.gone(s.theEdge("public")))
	close(stop)
	if in := <-got; len(in) > 0 {
		t.Errorf("%d requests got in that are denied: %v", len(in), in[0])
	}
	s.gets("gateway", vip, 200)
	s.gets("gateway", pod, 200)
	s.gets("other", vip, 0)
	s.gets("other", pod, 0)
	delete(before, "AuthorizationPolicy "+s.shop+"/not-other") // which this test has made anew
	after := s.state(false)
	delete(after, "AuthorizationPolicy "+s.shop+"/not-other")
	if d := cmp.Diff(before, after); d != "" {
		t.Errorf("objects differ (-before +after):\n%s", d)
	}
}
