package controllertest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/e2e/story/apps"
)

// lockWorld has a gateway that calls what it is told to, and somebody of the shop who does.
var lockWorld = shopWorld + caller("EDGE", "gateway") + caller("SHOP", "other")

func caller(namespace, name string) string {
	return strings.NewReplacer("NAMESPACE", namespace, "NAME", name).Replace(`
{apiVersion: v1, kind: ServiceAccount, metadata: {name: NAME, namespace: NAMESPACE}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME, namespace: NAMESPACE}
spec:
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME}}
    spec:
      serviceAccountName: NAME
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 0
      containers: [{name: NAME, image: caller}]
---
`)
}

// called is what one of the callers gets from an address.
func (s *site) called(who, target string) apps.Answer {
	s.t.Helper()
	var pods corev1.PodList
	if err := s.c.List(s.t.Context(), &pods, client.MatchingLabels{"app": who}); err != nil {
		s.t.Fatal(err)
	}
	at := slices.IndexFunc(pods.Items, func(p corev1.Pod) bool {
		return (p.Namespace == s.edge || p.Namespace == s.shop) && p.DeletionTimestamp == nil && p.Status.PodIP != ""
	})
	if at < 0 {
		return apps.Answer{Err: "there is no pod"}
	}
	return s.ask(pods.Items[at].Status.PodIP, target)
}

// ask has the caller of an address call another, on a new connection.
func (s *site) ask(caller, target string) apps.Answer { return s.askBy(caller, target, false) }

// askBy has it do so on a connection of before, where keep is set.
func (s *site) askBy(caller, target string, keep bool) (a apps.Answer) {
	c := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: s.mesh.NS.DialContext, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, "http://"+caller+":8080/call?url="+url.QueryEscape("http://"+target+"/")+"&keep="+strconv.FormatBool(keep), nil)
	if err != nil {
		return apps.Answer{Err: err.Error()}
	}
	res, err := c.Do(req)
	if err != nil {
		return apps.Answer{Err: err.Error()}
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&a); err != nil {
		return apps.Answer{Err: err.Error()}
	}
	return a
}

// lostCall is an answer but 200, and when it came.
type lostCall struct {
	apps.Answer
	At time.Time
}

// traffic has a caller call, again and again, on so many connections that it keeps and on as many new ones, until the function that it returns is
// called: that tells how often, and of all answers but 200.
func (s *site) traffic(caller, target string, each int) (end func() (int, []lostCall)) {
	var wg sync.WaitGroup
	var mu sync.Mutex // guards the fields below
	stop := make(chan struct{})
	calls := 0
	var lost []lostCall
	for i := range 2 * each {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				a := s.askBy(caller, target, i < each)
				mu.Lock()
				if calls++; a.Status != 200 {
					lost = append(lost, lostCall{a, time.Now()})
				}
				mu.Unlock()
			}
		})
	}
	return func() (int, []lostCall) {
		close(stop)
		wg.Wait()
		return calls, lost
	}
}

// gets waits until a caller gets a status, 0 for none: nobody answers.
func (s *site) gets(who, target string, want int) {
	s.t.Helper()
	s.wait(fmt.Sprintf("%s gets %d from %s", who, want, target), func() string {
		if a := s.called(who, target); a.Status != want || strings.Contains(a.Err, "there is no pod") {
			return fmt.Sprintf("it gets %+v", a)
		}
		return ""
	})
}

// nextSecond waits for it: times of objects are whole seconds.
func nextSecond() { time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) }

// lockedGateway sees the bypass first: while nothing is locked the gateway reaches the pod without its waypoint, and so it does by the Service's address
// when the waypoint is gone. Locked, it gets no answer by either way, and whoever else calls gets his.
func lockedGateway(t *testing.T, s *site) {
	s.apply(lockWorld)
	for _, d := range []types.NamespacedName{{Namespace: s.edge, Name: "gateway"}, {Namespace: s.shop, Name: "other"}, {Namespace: s.shop, Name: "shared"}} {
		s.available(d)
	}
	if err := s.mesh.Node.WaitCaptured(t.Context(), s.shop, "orders", true); err != nil {
		t.Fatal(err)
	}
	vip, pod := s.service("orders").Spec.ClusterIP, s.mesh.Node.PodIP(s.shop, "orders").String()+":8080"
	s.gets("gateway", vip, 200)
	s.gets("gateway", pod, 200)
	before := s.state(false)

	locking := strings.Replace(wholeEdge, "  mode: Manage\n", "  mode: Manage\n  authorization: {mode: Lock}\n", 1)
	s.apply(locking)
	e, _ := s.ready("public", v1alpha1.ReasonWaiting)
	if f := finding(e, v1alpha1.FindingNotLocked); f == nil || f.Object != "Service "+s.shop+"/orders" || !strings.Contains(f.Message, "connections from before") ||
		!strings.Contains(f.Fix, "kubectl rollout restart -n "+s.edge+" deployment gateway") {
		t.Errorf("findings are %+v", e.Status.Findings)
	}
	if policies := s.locks(); len(policies) > 0 {
		t.Errorf("locked before the connections of before have ended: %v", policies)
	}
	s.gets("gateway", vip, 200)
	s.gets("gateway", pod, 200) // the bypass

	lock := func() {
		t.Helper()
		nextSecond()
		s.delete(s.gatewayPod())
		e, _ := s.ready("public", v1alpha1.ReasonDone)
		last := e.Status.Plan.Steps[len(e.Status.Plan.Steps)-1]
		if policies := s.locks(); last.Verb != plan.VerbLock || last.State != v1alpha1.StepDone || len(policies) != 1 || last.Object != "AuthorizationPolicy "+s.shop+"/"+policies[0] {
			t.Errorf("the last step is %+v, policies are %v", last, policies)
		}
		s.gets("gateway", pod, 0)
		s.gets("gateway", vip, 200)
		s.gets("other", pod, 200)
		s.gets("other", vip, 200)
	}
	lock()

	t.Run("undo under traffic", func(t *testing.T) {
		s := &site{t: t, mesh: s.mesh, c: s.c, edge: s.edge, shop: s.shop, patience: s.patience, eager: true}
		gateway := s.gatewayPod()
		end := s.traffic(gateway.Status.PodIP, vip, 4)
		s.delete(s.theEdge("public"))
		var wired time.Time // it was then, at least
		s.wait("the Service leads to its pods", func() string {
			at := time.Now()
			if l := s.service("orders").Labels; len(l) > 0 {
				wired = at
				return fmt.Sprint(l)
			}
			return ""
		})
		s.gone(s.theEdge("public"))
		calls, lost := end()
		t.Logf("%d of %d requests were lost after %v: %+v", len(lost), calls, wired, lost)
		if calls == 0 {
			t.Error("there was no traffic")
		}
		for _, l := range lost {
			if l.At.Before(wired) {
				t.Errorf("lost while the lock was opened: %+v", l)
			}
			if why := s.byWaypoint(l, gateway); why != "" {
				t.Errorf("lost otherwise than by a waypoint that does not know the Service any more: %+v: %s", l, why)
			}
		}
		for range 20 {
			if a := s.askBy(gateway.Status.PodIP, vip, true); a.Status != 200 {
				t.Errorf("lost when all is undone: %+v", a)
			}
		}
		s.same(before, false)
	})
	s.apply(locking)
	s.ready("public", v1alpha1.ReasonWaiting)
	lock()

	for _, b := range s.breaks() {
		t.Run(b.name, func(t *testing.T) {
			s := &site{t: t, mesh: s.mesh, c: s.c, edge: s.edge, shop: s.shop, patience: s.patience, eager: true}
			past := func(a apps.Answer) bool { return a.Status == 200 && !throughEnvoy(a) }
			b.cause(s)
			if b.open {
				s.wait("somebody else goes past every policy of the waypoint", func() string {
					if a := s.called("other", vip); !past(a) {
						return fmt.Sprintf("he gets %+v", a)
					}
					return ""
				})
			}
			for range 20 {
				if a := s.called("gateway", vip); past(a) {
					t.Fatalf("the gateway reaches the pod without its waypoint: %+v", a)
				}
				if a := s.called("other", vip); !b.open && !b.mended && past(a) {
					t.Fatalf("somebody else reaches the pod without the waypoint: %+v", a)
				}
				time.Sleep(50 * time.Millisecond)
			}
			if !b.mended {
				s.wait("the gateway is refused", func() string {
					if a := s.called("gateway", vip); a.Status == 200 {
						return fmt.Sprintf("it gets %+v", a)
					}
					return ""
				})
			}
			if b.mend == nil {
				return
			}
			b.mend(s)
			s.wait("the gateway is served by the waypoint", func() string {
				if a := s.called("gateway", vip); !throughEnvoy(a) {
					return fmt.Sprintf("it gets %+v", a)
				}
				return ""
			})
			s.ready("public", v1alpha1.ReasonDone)
		})
	}

	s.delete(s.theEdge("public"))
	t.Logf("undone after %v", s.gone(s.theEdge("public")))
	s.gets("gateway", pod, 200)
	s.gets("gateway", vip, 200)
	after := s.state(false)
	for _, all := range []map[string]string{before, after} {
		for name := range all {
			if strings.HasSuffix(name, s.shop+"/shared") { // the waypoint and what istiod made of it
				delete(all, name)
			}
		}
	}
	if d := cmp.Diff(before, after); d != "" {
		t.Errorf("objects differ (-before +after):\n%s", d)
	}
}

// loss is a way by which a waypoint is lost that a Service leads to.
type loss struct {
	name        string
	cause, mend func(*site) // mend nil: it stays lost
	open        bool        // Istio has everybody go to the pods then, past the waypoint
	mended      bool        // the controller puts it right at once
}

// breaks are the ways by which the waypoint is lost, the last for good.
func (s *site) breaks() []loss {
	waypoint := func() *unstructured.Unstructured {
		return object("gateway.networking.k8s.io/v1", "Gateway", s.shop, "shared")
	}
	admits := func(namespace string) func(*site) {
		return func(s *site) {
			s.merge(waypoint(), `{"spec":{"listeners":[{"name":"mesh","port":15008,"protocol":"HBONE","allowedRoutes":{"namespaces":{"from":"Selector","selector":{"matchLabels":{"kubernetes.io/metadata.name":"`+namespace+`"}}}}}]}}`)
		}
	}
	scale := func(replicas int) func(*site) {
		return func(s *site) {
			s.merge(object("apps/v1", "Deployment", s.shop, "shared"), fmt.Sprintf(`{"spec":{"replicas":%d}}`, replicas))
		}
	}
	return []loss{
		{
			name: "the waypoint is for workloads", open: true,
			cause: func(s *site) { s.merge(waypoint(), `{"metadata":{"labels":{"istio.io/waypoint-for":"workload"}}}`) },
			mend:  func(s *site) { s.merge(waypoint(), `{"metadata":{"labels":{"istio.io/waypoint-for":"service"}}}`) },
		},
		{name: "the waypoint admits another namespace", open: true, cause: admits("elsewhere"), mend: admits(s.shop)},
		{
			name: "the label is removed behind our back", mended: true,
			cause: func(s *site) {
				s.merge(object("v1", "Service", s.shop, "orders"), `{"metadata":{"labels":{"istio.io/use-waypoint":null}}}`)
			},
			mend: func(*site) {},
		},
		{
			name: "the waypoint has no pods", cause: func(s *site) {
				scale(0)(s)
				s.wait("its pods are gone", func() string {
					var pods corev1.PodList
					if err := s.c.List(s.t.Context(), &pods, client.InNamespace(s.shop), client.MatchingLabels{edge.LabelGatewayName: "shared"}); err != nil || len(pods.Items) > 0 {
						return fmt.Sprintf("there are %d, %v", len(pods.Items), err)
					}
					return ""
				})
			},
			mend: scale(1),
		},
		{
			name: "the waypoint is gone", open: true, cause: func(s *site) {
				s.delete(waypoint())
				s.wait("istiod has no waypoint for the Service", func() string {
					if meta.IsStatusConditionTrue(s.service("orders").Status.Conditions, plan.ConditionWaypointBound) {
						return "it has"
					}
					return ""
				})
			},
		},
	}
}

// gatewayPod is the one pod of the gateway.
func (s *site) gatewayPod() *corev1.Pod {
	s.t.Helper()
	var pods corev1.PodList
	if err := s.c.List(s.t.Context(), &pods, client.InNamespace(s.edge), client.MatchingLabels{"app": "gateway"}); err != nil || len(pods.Items) != 1 {
		s.t.Fatalf("%d pods, %v", len(pods.Items), err)
	}
	return &pods.Items[0]
}

// locks are the names of policies of the shop.
func (s *site) locks() (names []string) {
	s.t.Helper()
	var list securityv1.AuthorizationPolicyList
	if err := s.c.List(s.t.Context(), &list, client.InNamespace(s.shop)); err != nil {
		s.t.Fatal(err)
	}
	for _, p := range list.Items {
		names = append(names, p.Name)
	}
	return names
}

// TestUndoOpensTheLockFirst: while a Service that is led to its pods again is denied there, requests would be lost.
func TestUndoOpensTheLockFirst(t *testing.T) {
	t.Parallel()
	s := kgatewaySite(t, "unlock")
	s.eager = true
	before := s.state(false)
	s.apply(edgeOfKgateway + "  authorization: {mode: Lock}\n")
	s.wait("the Service is wired", func() string {
		if l := s.service("orders").Labels; len(l) != 3 {
			return fmt.Sprint(l)
		}
		return ""
	})
	// The gateway is started anew: what it has connected to before is no more.
	nextSecond()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: s.edge, Name: "http"}}
	patch := fmt.Appendf(nil, `{"status":{"startTime":%q}}`, time.Now().UTC().Format(time.RFC3339))
	if err := s.c.Status().Patch(t.Context(), pod, client.RawPatch(types.MergePatchType, patch)); err != nil {
		t.Fatal(err)
	}
	s.ready("public", v1alpha1.ReasonDone)
	if len(s.locks()) != 1 {
		t.Errorf("policies are %v", s.locks())
	}
	lock := object("security.istio.io/v1", "AuthorizationPolicy", s.shop, s.locks()[0])

	// Whoever opens it by hand is corrected.
	s.merge(lock, `{"spec":{"action":"ALLOW"}}`)
	s.wait("the lock is mended", func() string {
		var p securityv1.AuthorizationPolicy
		if err := s.c.Get(t.Context(), client.ObjectKeyFromObject(lock), &p); err != nil || p.Spec.GetAction().String() != "DENY" {
			return fmt.Sprint(err, p.Spec.GetAction())
		}
		return ""
	})
	s.ready("public", v1alpha1.ReasonDone)

	s.delete(s.theEdge("public"))
	s.wait("the lock is open", func() string {
		if len(s.locks()) > 0 {
			return "it is not"
		}
		return ""
	})
	if l := s.service("orders").Labels[plan.LabelUseWaypoint]; l != "waypoint" {
		t.Errorf("the Service is led to %q already", l)
	}
	s.gone(s.theEdge("public"))
	s.same(before, false)
}
