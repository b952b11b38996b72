package controllertest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/e2e/story/apps"
)

// pairWorld has a gateway in the mesh, and pods with a list of callers: the gateway, another, and one that a DENY refuses all the same. A stranger is on no list.
var pairWorld = strings.Replace(lockWorld, "{apiVersion: v1, kind: Namespace, metadata: {name: EDGE}}", "{apiVersion: v1, kind: Namespace, metadata: {name: EDGE, labels: {istio.io/dataplane-mode: ambient}}}", 1) +
	caller("SHOP", "denied") + caller("SHOP", "stranger") + pairList("other") + `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: refused, namespace: SHOP}
spec:
  selector: {matchLabels: {app: orders}}
  action: DENY
  rules: [{from: [{source: {principals: [cluster.local/ns/SHOP/sa/denied]}}]}]
---
`

// pairList is the list of callers, with one of the shop beside those that are always there.
func pairList(one string) string {
	return strings.ReplaceAll(`
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: callers, namespace: SHOP}
spec:
  selector: {matchLabels: {app: orders}}
  action: ALLOW
  rules: [{from: [{source: {principals: [cluster.local/ns/EDGE/sa/gateway, cluster.local/ns/SHOP/sa/denied, cluster.local/ns/SHOP/sa/ONE]}}]}]
---
`, "ONE", one)
}

// addressOf is the address of a caller's pod.
func (s *site) addressOf(namespace, name string) string {
	s.t.Helper()
	var pods corev1.PodList
	if err := s.c.List(s.t.Context(), &pods, client.InNamespace(namespace), client.MatchingLabels{"app": name}); err != nil || len(pods.Items) != 1 {
		s.t.Fatalf("%d pods of %s, %v", len(pods.Items), name, err)
	}
	return pods.Items[0].Status.PodIP
}

// refusals has callers call that are to be refused, and says when it ends how often they did, and how often they were answered.
func (s *site) refusals(target string, callers ...string) (end func() (calls, answered int)) {
	var ends []func() (int, []lostCall)
	for _, who := range callers {
		ends = append(ends, s.traffic(s.addressOf(s.shop, who), target, 1))
	}
	return func() (calls, answered int) {
		for _, end := range ends {
			n, lost := end()
			calls, answered = calls+n, answered+n-len(lost)
		}
		return calls, answered
	}
}

// outside is what people outside see of a gateway that tries again, as such do, when it gets no answer or 503.
type outside struct {
	calls, failed int
	lost          []lostCall // tries that were repeated
}

// fromOutside has a gateway call, again and again, on so many connections that it keeps and on as many new ones, until the function that it returns is called.
func (s *site) fromOutside(gateway, target string, each int) (end func() outside) {
	var wg sync.WaitGroup
	var mu sync.Mutex // guards the field below
	var seen outside
	stop := make(chan struct{})
	once := func(keep bool) {
		var lost []lostCall
		a := s.askBy(gateway, target, keep)
		for range 3 {
			if a.Status != 0 && a.Status != 503 {
				break
			}
			lost = append(lost, lostCall{a, time.Now()})
			time.Sleep(50 * time.Millisecond)
			a = s.askBy(gateway, target, keep)
		}
		mu.Lock()
		defer mu.Unlock()
		seen.calls++
		if seen.lost = append(seen.lost, lost...); a.Status != 200 {
			seen.failed++
			seen.lost = append(seen.lost, lostCall{a, time.Now()})
		}
	}
	for i := range 2 * each {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					once(i < each)
				}
			}
		})
	}
	return func() outside {
		close(stop)
		wg.Wait()
		return seen
	}
}

// unharmed holds that nobody outside saw an error, and that whatever was tried again was lost by a waypoint that did not know the Service at that moment.
func (s *site) unharmed(what string, seen outside, gateway *corev1.Pod, refused, answered int) {
	s.t.Helper()
	s.t.Logf("%s: %d of %d requests from outside failed, %d were tried again; %d of %d that are refused were answered", what, seen.failed, seen.calls, len(seen.lost), answered, refused)
	if seen.calls == 0 || refused == 0 {
		s.t.Errorf("%s: there was no traffic", what)
	}
	if seen.failed > 0 || answered > 0 {
		s.t.Errorf("%s: %d requests from outside failed, %d that are refused were answered: %+v", what, seen.failed, answered, seen.lost)
	}
	for _, l := range seen.lost {
		why := s.byWaypoint(l, gateway)
		tunnel := strings.Contains(why, "through waypoint "+s.shop+"/shared") && strings.Contains(why, "answered 503") // which was refused
		ztunnels := strings.HasPrefix(why, "the waypoint refused the tunnel") && strings.Contains(why, "http status: 503")
		if why != "" && !tunnel && !ztunnels {
			s.t.Errorf("%s: lost otherwise than by a waypoint that does not know the Service: %+v: %s", what, l, why)
		}
	}
}

func throughEnvoy(a apps.Answer) bool {
	return a.Status == 200 && strings.Contains(a.Body, "X-Request-Id")
} // which Envoy adds

// pairedSwitch is story 14: a Service whose pods have a list of callers is led to its waypoint, and back, while the gateway calls on connections that it keeps and on
// new ones, and while others call who are refused.
func pairedSwitch(t *testing.T, s *site) {
	s.apply(pairWorld)
	for _, d := range []types.NamespacedName{{Namespace: s.edge, Name: "gateway"}, {Namespace: s.shop, Name: "other"}, {Namespace: s.shop, Name: "denied"}, {Namespace: s.shop, Name: "stranger"}, {Namespace: s.shop, Name: "shared"}} {
		s.available(d)
	}
	for namespace, pod := range map[string]string{s.shop: "orders", s.edge: s.gatewayPod().Name} {
		if err := s.mesh.Node.WaitCaptured(t.Context(), namespace, pod, true); err != nil {
			t.Fatal(err)
		}
	}
	vip, pod := s.service("orders").Spec.ClusterIP, s.mesh.Node.PodIP(s.shop, "orders").String()+":8080"
	s.gets("gateway", vip, 200)
	s.gets("other", vip, 200)
	s.gets("denied", vip, 0)
	s.gets("stranger", vip, 0)
	before := s.state(false)

	gateway := s.gatewayPod()
	end, endRefused := s.fromOutside(gateway.Status.PodIP, vip, 3), s.refusals(vip, "denied", "stranger")
	s.apply(strings.Replace(wholeEdge, "  mode: Manage\n", "  mode: Manage\n  authorization: {mode: Pair}\n", 1))
	e, took := s.ready("public", v1alpha1.ReasonWaiting) // for the gateway to be started anew: connections of before may go past the waypoint
	t.Logf("switched after %v", took)
	for range 5 {
		if a := s.called("gateway", vip); !throughEnvoy(a) {
			t.Errorf("a new connection goes past the waypoint: %+v", a)
		}
	}
	seen := end()
	refused, answered := endRefused()
	s.unharmed("switch", seen, gateway, refused, answered)
	if order := stepsOf(e, plan.VerbPair, plan.VerbWitness, plan.VerbWire); !slices.Equal(order, []string{"deny", "allow", "Service", "AuthorizationPolicy", "Gateway", "admit", "Wire"}) {
		t.Errorf("steps are %v", order)
	}

	nextSecond()
	s.delete(s.gatewayPod())
	s.ready("public", v1alpha1.ReasonDone)
	s.gets("gateway", vip, 200)
	s.gets("gateway", pod, 0)
	s.gets("other", vip, 200)
	s.gets("denied", vip, 403)
	s.gets("stranger", vip, 403)

	s.apply(pairList("stranger")) // one goes, and one comes
	s.gets("other", vip, 403)
	s.gets("stranger", vip, 200)
	s.apply(pairList("other"))
	s.gets("stranger", vip, 403)
	s.gets("other", vip, 200)
	s.ready("public", v1alpha1.ReasonDone)

	gateway = s.gatewayPod()
	end, endRefused = s.fromOutside(gateway.Status.PodIP, vip, 3), s.refusals(vip, "denied", "stranger")
	s.delete(s.theEdge("public"))
	t.Logf("undone after %v", s.gone(s.theEdge("public")))
	seen = end()
	refused, answered = endRefused()
	s.unharmed("undo", seen, gateway, refused, answered)
	s.gets("gateway", vip, 200)
	s.gets("gateway", pod, 200)
	s.gets("denied", vip, 0)
	s.gets("stranger", vip, 0)
	s.same(before, false)
}

// stepsOf are the steps by some verbs, in short: what a policy does, or the kind of the object, or the verb.
func stepsOf(e *v1alpha1.AmbientEdge, verbs ...string) (list []string) {
	for _, step := range e.Status.Plan.Steps {
		if !slices.Contains(verbs, step.Verb) {
			continue
		}
		kind, name, _ := strings.Cut(step.Object, " ")
		short := step.Verb
		switch step.Verb {
		case plan.VerbPair:
			short = name[strings.LastIndex(name, "-")+1:]
		case plan.VerbWitness:
			short = kind
		}
		list = append(list, short)
		if step.State != v1alpha1.StepDone {
			list = append(list, fmt.Sprintf("which is %s: %s", step.State, step.Reason))
		}
	}
	return list
}
