package controllertest

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/e2e/envoyshim/accesslog"
)

// ingressWorld is Istio's own ingress gateway with a route to the shop, and a policy for what it may ask there, which nobody enforces yet.
var ingressWorld = shopWorld + `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: ingress, namespace: EDGE, annotations: {networking.istio.io/service-type: ClusterIP}}
spec: {gatewayClassName: istio, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
{apiVersion: gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, metadata: {name: routes, namespace: SHOP}, spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: EDGE}], to: [{group: "", kind: Service}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: orders, namespace: EDGE}, spec: {parentRefs: [{name: ingress}], rules: [{backendRefs: [{name: orders, namespace: SHOP, port: 80}]}]}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: callers, namespace: SHOP}
spec:
  targetRefs: [{kind: Service, group: "", name: orders}]
  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/EDGE/sa/ingress-istio]}}]
    to: [{operation: {methods: [GET], paths: [/ok*]}}]
`

const ingressEdge = `
apiVersion: isthmus.dev/v1alpha1
kind: AmbientEdge
metadata: {name: public, namespace: EDGE}
spec:
  targetRefs: [{name: ingress}]
  mode: Manage
  waypoint: {policy: Use, name: shared}
`

// podOf is the one pod of a Gateway.
func (s *site) podOf(namespace, gateway string) *corev1.Pod {
	s.t.Helper()
	var pods corev1.PodList
	if err := s.c.List(s.t.Context(), &pods, client.InNamespace(namespace), client.MatchingLabels{edge.LabelGatewayName: gateway}); err != nil || len(pods.Items) != 1 {
		s.t.Fatalf("Gateway %s/%s has %d pods, %v", namespace, gateway, len(pods.Items), err)
	}
	return &pods.Items[0]
}

// answers waits until a request from outside, through the gateway's pod, is answered with a status.
func (s *site) answers(gateway *corev1.Pod, path string, want int) time.Duration {
	s.t.Helper()
	c := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: s.mesh.NS.DialContext, DisableKeepAlives: true}}
	return s.wait(fmt.Sprintf("%s is answered with %d", path, want), func() string {
		req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "http://"+gateway.Status.PodIP+path, nil)
		if err != nil {
			return err.Error()
		}
		res, err := c.Do(req)
		if err != nil {
			return err.Error()
		}
		defer res.Body.Close()
		if res.StatusCode != want {
			return res.Status
		}
		return ""
	})
}

// logged is the access log's line of a request in a pod's Envoy.
func (s *site) logged(pod *corev1.Pod, path string, status int) (r accesslog.Request) {
	s.t.Helper()
	s.wait(fmt.Sprintf("Envoy of %s has logged %s", pod.Name, path), func() string {
		text, err := os.ReadFile(s.mesh.Node.LogPath(pod.Namespace, pod.Name, "istio-proxy"))
		if err != nil {
			return err.Error()
		}
		list := accesslog.Requests(string(text))
		at := slices.IndexFunc(list, func(r accesslog.Request) bool { return r.Path == path && r.Status == status })
		if at < 0 {
			return "it has not"
		}
		r = list[at]
		return ""
	})
	return r
}

// visit is a request from outside and the answer to it; its status is 0 where there was none.
type visit struct {
	path      string
	began, at time.Time // when it was asked, and answered
	status    int
	err       error
}

// visits has people outside ask for what is below a path through a gateway's pod, again and again, so many on connections that they keep and as many on new
// ones, until the function that it returns is called: that gives all answers. Each request has a path of its own. Nobody asks again for what he did not get. host is
// what they ask for; empty: the pod's address.
func (s *site) visits(gateway *corev1.Pod, host, path string, each int) (end func() []visit) {
	clients := make([]*http.Client, 2*each)
	for i := range clients {
		clients[i] = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: s.mesh.NS.DialContext, DisableKeepAlives: i >= each}}
	}
	var asked atomic.Int64
	stop := steadily(len(clients), func(person int) visit {
		return visitBy(clients[person], gateway.Status.PodIP, host, path+"/"+strconv.FormatInt(asked.Add(1), 10))
	})
	return func() []visit {
		list := stop()
		for _, c := range clients {
			c.CloseIdleConnections()
		}
		return list
	}
}

// visitBy asks a gateway's address for a path of a host; empty: of that address. headers are those of the request.
func visitBy(c *http.Client, address, host, path string, headers ...string) visit {
	v := visit{path: path, began: time.Now()}
	req, err := http.NewRequest(http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		v.err = err
		return v
	}
	req.Host = host
	for _, h := range headers {
		req.Header.Set(h, "yes")
	}
	res, err := c.Do(req)
	if v.err = err; err == nil {
		v.status = res.StatusCode
		_, v.err = io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
	v.at = time.Now()
	return v
}

// steadily has so many people ask, each every 20 ms at most, until the function that it returns is called: that gives what all of them got.
func steadily(people int, ask func(person int) visit) (end func() []visit) {
	var wg sync.WaitGroup
	var mu sync.Mutex // guards the field below
	var list []visit
	stop := make(chan struct{})
	for i := range people {
		wg.Go(func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-stop:
					return
				case <-tick.C:
				}
				v := ask(i)
				mu.Lock()
				list = append(list, v)
				mu.Unlock()
			}
		})
	}
	return func() []visit {
		close(stop)
		wg.Wait()
		return list
	}
}

// onlyGot holds that all answers in a span of time had one of some statuses. No answer at all is an error too.
func (s *site) onlyGot(what string, list []visit, from, to time.Time, statuses ...int) {
	s.t.Helper()
	n := 0
	for _, v := range list {
		if v.at.Before(from) || v.at.After(to) {
			continue
		}
		if n++; v.err != nil || !slices.Contains(statuses, v.status) {
			s.t.Errorf("%s: got %d, %v at %v, and wants %v", what, v.status, v.err, v.at.Format("05.000"), statuses)
		}
	}
	if s.t.Logf("%s: %d answers in %v", what, n, to.Sub(from).Round(time.Millisecond)); n == 0 {
		s.t.Errorf("%s: there was no traffic", what)
	}
}

// istioIngress lets the controller set the switch of Istio's own ingress gateway, and sees by requests and by what both Envoys log that
// these go through the waypoint then, which enforces the policy, and past it before and after. None is lost on the way there and back, and none goes past while the
// switch is set.
func istioIngress(t *testing.T, s *site) {
	s.apply(ingressWorld)
	for _, d := range []types.NamespacedName{{Namespace: s.edge, Name: "ingress-istio"}, {Namespace: s.shop, Name: "shared"}} {
		s.available(d)
	}
	if err := s.mesh.Node.WaitCaptured(t.Context(), s.shop, "orders", true); err != nil {
		t.Fatal(err)
	}
	gateway, waypoint := s.podOf(s.edge, "ingress"), s.podOf(s.shop, "shared")
	id := "spiffe://cluster.local/ns/" + s.edge + "/sa/ingress-istio"
	backend := s.mesh.Node.PodIP(s.shop, "orders").String() + ":8080"
	s.answers(gateway, "/secret/before", 200)
	if r := s.logged(gateway, "/secret/before", 200); r.Upstream != backend || !r.HBONE {
		t.Errorf("before: the gateway logged %+v; want a tunnel to %s, past the waypoint", r, backend)
	}
	before := s.state(false)

	began := time.Now()
	endAllowed, endSecret := s.visits(gateway, "", "/ok/traffic", 3), s.visits(gateway, "", "/secret/traffic", 1)
	s.apply(ingressEdge)
	e, took := s.ready("public", v1alpha1.ReasonDone)
	t.Logf("ready after %v", took)
	readyInTime(t, took)
	if g := e.Status.Gateways; len(g) != 1 || g[0].Vendor != "istio" || g[0].Captured != 0 || g[0].Identity != id || g[0].Switch != edge.LabelIngressUseWaypoint+"=true" {
		t.Errorf("gateways are %+v", g)
	}
	if b := e.Status.Backends; len(b) != 1 || b[0].Waypoint != s.shop+"/shared" || !slices.Contains(b[0].Policies, s.shop+"/callers") {
		t.Errorf("backends are %+v", b)
	}
	if labels := s.service("orders").Labels; labels[plan.LabelUseWaypoint] != "shared" || labels[edge.LabelIngressUseWaypoint] != "true" {
		t.Errorf("the Service's labels are %v", labels)
	}
	t.Logf("the gateway follows the switch %v after Ready", s.answers(gateway, "/secret/now", 403))
	followed := time.Now().Add(time.Second) // with the connections of before
	s.answers(gateway, "/ok/now", 200)
	if r := s.logged(waypoint, "/ok/now", 200); r.Peer != id || r.Policy != s.shop+"/callers" || !r.Allowed {
		t.Errorf("the waypoint logged %+v; want caller %s, let in by the policy", r, id)
	}
	if r := s.logged(waypoint, "/secret/now", 403); r.Peer != id || r.Allowed {
		t.Errorf("the waypoint logged %+v; want caller %s, denied", r, id)
	}
	if r, want := s.logged(gateway, "/ok/now", 200), waypoint.Status.PodIP+":15008"; r.Upstream != want || !r.HBONE {
		t.Errorf("the gateway logged %+v; want a tunnel by %s", r, want)
	}

	s.delete(s.theEdge("public"))
	s.ready("public", v1alpha1.ReasonUndoHalted) // for the policy
	time.Sleep(time.Until(followed.Add(time.Second)))
	confirmed := time.Now()
	s.confirm("public")
	t.Logf("undone after %v", s.gone(s.theEdge("public")))
	s.same(before, false)
	s.answers(gateway, "/secret/after", 200)
	for range 2 { // each takes four seconds
		s.apply(ingressEdge)
		s.ready("public", v1alpha1.ReasonDone)
		s.answers(gateway, "/secret/again", 403)
		s.delete(s.theEdge("public"))
		s.ready("public", v1alpha1.ReasonUndoHalted)
		s.confirm("public")
		s.gone(s.theEdge("public"))
		s.answers(gateway, "/secret/again", 200)
	}
	allowed, secret := endAllowed(), endSecret()
	end := time.Now()
	s.onlyGot("allowed, there and back, three times", allowed, began, end, 200)
	s.onlyGot("denied by the waypoint, on the way there", secret, began, followed, 200, 403)
	s.onlyGot("denied by the waypoint, by the switch", secret, followed, confirmed, 403)
	s.onlyGot("denied by the waypoint, on the way back and twice more", secret, confirmed, end, 200, 403)
	if r := s.logged(gateway, "/secret/after", 200); r.Upstream != backend || !r.HBONE {
		t.Errorf("after: the gateway logged %+v; want a tunnel to %s, past the waypoint", r, backend)
	}
}
