package controllertest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/e2e/capture"
	"github.com/isthmus-mesh/isthmus/e2e/envoyshim"
	"github.com/isthmus-mesh/isthmus/e2e/envoyshim/accesslog"
	"github.com/isthmus-mesh/isthmus/e2e/story/apps"
)

// changeWorld has Istio's ingress gateway, whose agent asks for another certificate twice a second, with whatever token it has then; and a gateway outside of the mesh
// that calls what it is told to. The shop has a second Service of the same pods, for the latter.
var changeWorld = strings.Replace(shopWorld, "isthmus.dev/edges: EDGE/public", `isthmus.dev/edges: "EDGE/public,EDGE-captured/public"`, 1) + `
{apiVersion: v1, kind: Namespace, metadata: {name: EDGE-captured}}
---` + caller("EDGE-captured", "gateway") + `
{apiVersion: v1, kind: Service, metadata: {name: plain, namespace: SHOP}, spec: {selector: {app: orders}, ports: [{name: http, port: 80, targetPort: 8080}]}}
---
apiVersion: networking.istio.io/v1beta1
kind: ProxyConfig
metadata: {name: certificates, namespace: EDGE}
spec: {environmentVariables: {SECRET_TTL: 20s, SECRET_GRACE_PERIOD_RATIO: "0.975", ECC_SIGNATURE_ALGORITHM: ECDSA}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: ingress, namespace: EDGE, annotations: {networking.istio.io/service-type: ClusterIP}}
spec: {gatewayClassName: istio, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
{apiVersion: gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, metadata: {name: routes, namespace: SHOP}, spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: EDGE}], to: [{group: "", kind: Service}]}}
---
` + routeOf("shop") + changePolicy

// changePolicy lets the ingress gateway ask for paths below /ok, where the waypoint is asked.
const changePolicy = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: callers, namespace: SHOP}
spec:
  targetRefs: [{kind: Service, group: "", name: orders}]
  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/EDGE/sa/ingress-istio]}}]
    to: [{operation: {methods: [GET], paths: [/ok*]}}]
---
`

// routeOf leads what is asked of the host NAME.example.com to orders.
func routeOf(name string) string {
	return strings.ReplaceAll(`
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: NAME, namespace: EDGE}
spec: {parentRefs: [{name: ingress}], hostnames: [NAME.example.com], rules: [{backendRefs: [{name: orders, namespace: SHOP, port: 80}]}]}
---
`, "NAME", name)
}

// changeEdge is an AmbientEdge for the ingress gateway. waypoint is that field of its spec.
func changeEdge(waypoint string) string {
	return `
apiVersion: isthmus.dev/v1alpha1
kind: AmbientEdge
metadata: {name: public, namespace: EDGE}
spec:
  targetRefs: [{name: ingress}]
  mode: Manage
  backends: {services: [{namespace: SHOP, name: orders}]}
  waypoint: ` + waypoint + "\n"
}

// captureEdge is one that brings the other gateway in, and does nothing else.
const captureEdge = `
apiVersion: isthmus.dev/v1alpha1
kind: AmbientEdge
metadata: {name: public, namespace: EDGE}
spec:
  workloadRefs: [{kind: Deployment, name: gateway}]
  mode: Manage
  backends: {services: [{namespace: SHOP, name: plain}]}
  waypoint: {policy: None}
`

// span is a time in which every request has to go through a waypoint.
type span struct {
	what     string
	from, to time.Time
	waypoint []string // paths of those that its Envoy has answered
}

// change is a story of changes under traffic, told by test 3, 6 and 2 of those that users asked for: docs/measurements.md says which.
type change struct {
	*site

	captured *site
	ingress  *corev1.Pod
	spans    []span
	serials  map[string]bool // of the ingress gateway's certificates
	probe    *http.Client
}

// changesUnderTraffic changes all that there is to change as fast as it is seen to be done, while people outside ask for what the waypoint lets them have and
// for what it does not, on connections that they keep and on new ones, and while the controller is killed in the middle of it. Nobody gets an error, and nobody gets past the waypoint
// from the moment at which a change is done to the beginning of the next.
func changesUnderTraffic(t *testing.T, s *site) {
	s.own, s.eager = true, true
	captured := *s
	captured.edge = s.edge + "-captured"
	c := &change{site: s, captured: &captured, serials: map[string]bool{}}
	c.probe = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: s.mesh.NS.DialContext, DisableKeepAlives: true}}
	s.apply(changeWorld)
	controller := newProcess(s, s.edge, captured.edge)
	controller.begin()
	for _, d := range []types.NamespacedName{{Namespace: s.edge, Name: "ingress-istio"}, {Namespace: captured.edge, Name: "gateway"}, {Namespace: s.shop, Name: "shared"}} {
		s.available(d)
	}
	if err := s.mesh.Node.WaitCaptured(t.Context(), s.shop, "orders", true); err != nil {
		t.Fatal(err)
	}
	controller.ready()
	s.wait("the ingress gateway has one pod, which renews its certificate", func() string {
		var pods corev1.PodList
		if err := s.c.List(t.Context(), &pods, client.InNamespace(s.edge), client.MatchingLabels{edge.LabelGatewayName: "ingress"}); err != nil || len(pods.Items) != 1 {
			return fmt.Sprintf("it has %d, %v", len(pods.Items), err)
		}
		if !slices.ContainsFunc(pods.Items[0].Spec.Containers[0].Env, func(e corev1.EnvVar) bool { return e.Name == "SECRET_TTL" }) {
			return "istiod did not know of the ProxyConfig when it made it"
		}
		return ""
	})
	s.available(types.NamespacedName{Namespace: s.edge, Name: "ingress-istio"})
	c.ingress = s.podOf(s.edge, "ingress")
	outside, vip := captured.gatewayPod().Status.PodIP, s.service("plain").Spec.ClusterIP
	c.answered("/secret/first", 200)
	captured.gets("gateway", vip, 200)
	before := s.state(false)

	began := time.Now()
	endAllowed, endSecret := s.visits(c.ingress, "shop.example.com", "/ok/traffic", 2), s.visits(c.ingress, "shop.example.com", "/secret/traffic", 1)
	endCaptured := steadily(4, func(person int) visit {
		v := visit{began: time.Now()}
		a := s.askBy(outside, vip, person%2 == 0)
		if v.at, v.status = time.Now(), a.Status; a.Err != "" {
			v.err = fmt.Errorf("%s, on a connection from %s", a.Err, a.From)
		}
		return v
	})
	c.flips()
	c.waypoints(controller)
	allowed, secret, plain := endAllowed(), endSecret(), endCaptured()
	end := time.Now()
	controller.kill()

	s.onlyGot("allowed", allowed, began, end, 200)
	s.onlyGot("denied by the waypoint", secret, began, end, 200, 403)
	s.onlyGot("the gateway that is brought in and out", plain, began, end, 200)
	for _, span := range c.spans {
		c.noBypass(span, allowed, secret)
	}
	if t.Logf("the ingress gateway was seen with %d certificates in %v", len(c.serials), end.Sub(began)); len(c.serials) < 4 {
		t.Error("that are too few")
	}
	after, policy := s.state(false), "AuthorizationPolicy "+s.shop+"/callers" // which was made anew, by the test
	before[policy] = after[policy]
	if d := cmp.Diff(before, after); d != "" {
		t.Errorf("objects differ (-before +after):\n%s", d)
	}
}

// answered waits until the ingress gateway answers a request of its own with a status.
func (c *change) answered(path string, want int) {
	c.t.Helper()
	n := 0
	c.wait(fmt.Sprintf("%s is answered with %d", path, want), func() string {
		n++
		if v := visitBy(c.probe, c.ingress.Status.PodIP, "shop.example.com", fmt.Sprintf("%s/%d", path, n)); v.err != nil || v.status != want {
			return fmt.Sprintf("it got %d, %v", v.status, v.err)
		}
		return ""
	})
}

// settle is how long after the first answer by the waypoint all have to come by it: the ingress gateway has two workers.
const settle = 200 * time.Millisecond

// enforced has the waypoint asked for a while, from the moment at which the change before is seen to be done, and notes it.
func (c *change) enforced(what, waypoint string, do func()) {
	c.t.Helper()
	c.answered("/secret/probe", 403)
	time.Sleep(settle)
	one := span{what: what, from: time.Now()}
	do()
	time.Sleep(settle)
	one.to = time.Now()
	c.certificate()
	one.waypoint = c.through(waypoint, one.to)
	c.spans = append(c.spans, one)
}

// through waits until a waypoint's Envoy has logged what was answered until a moment, and returns the paths of what it has answered so far.
func (c *change) through(waypoint string, until time.Time) (paths []string) {
	c.t.Helper()
	pod := c.podOf(c.shop, waypoint)
	c.wait("Envoy of "+pod.Name+" has logged what it answered", func() string {
		text, err := os.ReadFile(c.mesh.Node.LogPath(pod.Namespace, pod.Name, "istio-proxy"))
		if err != nil {
			return err.Error()
		}
		list := accesslog.Requests(string(text))
		if len(list) == 0 || list[len(list)-1].Time.Before(until) {
			return "its log ends before that" // there is traffic
		}
		paths = paths[:0]
		for _, r := range list {
			paths = append(paths, r.Path)
		}
		return ""
	})
	return paths
}

// noBypass holds that what was asked and answered in a span went through the waypoint: it has logged what was allowed, and nothing else was answered.
func (c *change) noBypass(one span, allowed, secret []visit) {
	c.t.Helper()
	by := map[string]bool{}
	for _, path := range one.waypoint {
		by[path] = true
	}
	n := 0
	in := func(v visit) bool { return !v.began.Before(one.from) && !v.at.After(one.to) }
	for _, v := range allowed {
		if !in(v) {
			continue
		}
		if n++; !by[v.path] {
			c.t.Errorf("%s: %s was answered with %d at %v, and the waypoint does not know of it", one.what, v.path, v.status, v.at.Format("05.000"))
		}
	}
	for _, v := range secret {
		if !in(v) {
			continue
		}
		if n++; v.status != http.StatusForbidden {
			c.t.Errorf("%s: %s, which the waypoint forbids, was answered with %d at %v", one.what, v.path, v.status, v.at.Format("05.000"))
		}
	}
	if c.t.Logf("%s: %d requests in %v", one.what, n, one.to.Sub(one.from).Round(time.Millisecond)); n == 0 {
		c.t.Errorf("%s: there was no traffic", one.what)
	}
}

// certificate notes the serial numbers of the certificates that the ingress gateway has at the moment.
func (c *change) certificate() {
	c.t.Helper()
	text, err := envoyshim.Admin(c.t.Context(), c.mesh.Node, c.ingress.Namespace, c.ingress.Name, "certs")
	if err != nil {
		c.t.Fatal(err)
	}
	var certs struct {
		Certificates []struct {
			Chain []struct {
				Serial string `json:"serial_number"`
			} `json:"cert_chain"`
		}
	}
	if err := json.Unmarshal([]byte(text), &certs); err != nil {
		c.t.Fatalf("%v: %s", err, text)
	}
	for _, one := range certs.Certificates {
		if len(one.Chain) > 0 {
			c.serials[one.Chain[0].Serial] = true
		}
	}
}

// label sets labels of orders, as a user does; nil takes one away.
func (c *change) label(labels map[string]any) {
	c.t.Helper()
	text, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": labels}})
	if err != nil {
		c.t.Fatal(err)
	}
	if err := c.c.Patch(c.t.Context(), c.service("orders"), client.RawPatch(types.MergePatchType, text)); err != nil {
		c.t.Fatal(err)
	}
}

// knows waits until a waypoint's Envoy has the Service. The controller sees by a request of its own that it is served, before it sets a switch.
func (c *change) knows(waypoint string) {
	c.t.Helper()
	pod := c.podOf(c.shop, waypoint)
	c.wait("waypoint "+waypoint+" knows the Service", func() string {
		text, err := envoyshim.Admin(c.t.Context(), c.mesh.Node, pod.Namespace, pod.Name, "clusters")
		if err != nil {
			return err.Error()
		}
		if !strings.Contains(text, "|orders."+c.shop+".") {
			return "it does not"
		}
		return ""
	})
	time.Sleep(settle) // its listeners come after its clusters
}

// flips sets the ingress gateway's switch and takes it away, by hand, and has the other gateway brought in and out by its AmbientEdge, again and again, each as soon as the one
// before is seen to be done.
func (c *change) flips() {
	const rounds = 2
	c.label(map[string]any{plan.LabelUseWaypoint: "shared"})
	c.knows("shared")
	for i := range rounds {
		c.captured.apply(captureEdge)
		for range 2 {
			c.label(map[string]any{edge.LabelIngressUseWaypoint: "true"})
			c.enforced(fmt.Sprintf("the switch is set in round %d", i), "shared", func() {})
			c.label(map[string]any{edge.LabelIngressUseWaypoint: nil})
			c.answered("/secret/probe", 200)
		}
		c.captured.ready("public", v1alpha1.ReasonDone)
		c.captured.delete(c.captured.theEdge("public"))
		c.captured.gone(c.captured.theEdge("public"))
	}
	c.label(map[string]any{plan.LabelUseWaypoint: nil})
}

// waypoints has the AmbientEdge's waypoint be made and wired, taken away by its policy, found, and undone. In the middle of each the controller is killed.
func (c *change) waypoints(controller *process) {
	dies := func(when string, yet func() bool) {
		c.t.Helper()
		c.wait(when, func() string {
			if !yet() {
				return "not yet"
			}
			return ""
		})
		controller.kill()
		c.t.Logf("%s: killed", when)
		controller.begin()
	}
	labelled := func(key string, is bool) func() bool {
		return func() bool { _, set := c.service("orders").Labels[key]; return set == is }
	}
	made := object("gateway.networking.k8s.io/v1", "Gateway", c.shop, "made")
	there := func() bool {
		err := c.c.Get(c.t.Context(), client.ObjectKeyFromObject(made), made)
		if err != nil && !apierrors.IsNotFound(err) {
			c.t.Fatal(err)
		}
		return err == nil
	}

	c.apply(changeEdge("{policy: Create, name: made}"))
	dies("a waypoint is being made", there)
	c.ready("public", v1alpha1.ReasonDone)
	c.enforced("a waypoint that was made", "made", func() {
		controller.kill()
		c.t.Log("all is done: killed")
		time.Sleep(settle)
		controller.start()
	})

	if err := c.mesh.Delete(c.t.Context(), c.text(changePolicy)); err != nil { // else it would keep the waypoint
		c.t.Fatal(err)
	}
	c.apply(changeEdge("{policy: None}"))
	dies("the gateway does not send to it any more", labelled(edge.LabelIngressUseWaypoint, false))
	c.wait("the waypoint is taken away", func() string {
		if there() {
			return "it is there"
		}
		return ""
	})
	c.apply(changePolicy)

	c.apply(changeEdge("{policy: Use, name: shared}"))
	dies("the Service is being led to a waypoint", labelled(plan.LabelUseWaypoint, true))
	c.ready("public", v1alpha1.ReasonDone)
	c.enforced("a waypoint that was there", "shared", func() { c.firstRequests() })

	c.delete(c.theEdge("public"))
	c.ready("public", v1alpha1.ReasonUndoHalted) // for the policy
	c.confirm("public")
	dies("undo is under way", labelled(edge.LabelIngressUseWaypoint, false))
	c.gone(c.theEdge("public"))
}

// firstRequests are those to routes that are new, whose Service is wired: from the first answer that is not 404 they go through the waypoint, whose identity the backend
// sees. Each is the last of its connection to the backend, which so has a new one to look at.
func (c *change) firstRequests() {
	const routes = 4
	from := time.Now()
	var took []time.Duration
	var all []visit
	for i := range routes {
		name := fmt.Sprintf("new%d", i)
		var mine []visit
		end := steadily(2, func(person int) visit {
			return visitBy(c.probe, c.ingress.Status.PodIP, name+".example.com", fmt.Sprintf("/ok/%s/%d/%d", name, person, time.Now().UnixNano()), apps.LastHeader)
		})
		time.Sleep(60 * time.Millisecond) // it is asked for before it is there
		applied := time.Now()
		c.apply(routeOf(name))
		c.wait("a request to "+name+" is answered", func() string {
			v := visitBy(c.probe, c.ingress.Status.PodIP, name+".example.com", fmt.Sprintf("/ok/%s/first/%d", name, time.Now().UnixNano()))
			mine = append(mine, v)
			if v.status != http.StatusOK {
				return fmt.Sprintf("it got %d, %v", v.status, v.err)
			}
			return ""
		})
		took = append(took, time.Since(applied))
		time.Sleep(100 * time.Millisecond)
		all = append(all, append(mine, end()...)...)
		c.delete(object("gateway.networking.k8s.io/v1", "HTTPRoute", c.edge, name))
	}
	to := time.Now()
	by := c.through("shared", to)
	missing, served := 0, 0
	for _, v := range all {
		switch {
		case v.err == nil && v.status == http.StatusNotFound:
			missing++
		case v.err != nil || v.status != http.StatusOK:
			c.t.Errorf("a new route: %s got %d, %v", v.path, v.status, v.err)
		case !slices.Contains(by, v.path):
			c.t.Errorf("a new route: %s was answered at %v, and the waypoint does not know of it", v.path, v.at.Format("05.000"))
		default:
			served++
		}
	}
	slices.Sort(took)
	if c.t.Logf("%d new routes: %d requests got 404, and %d then 200, through the waypoint; after %v", routes, missing, served, took); missing < routes || served < routes {
		c.t.Error("that are too few")
	}
	c.seenByBackend(from, to)
}

// seenByBackend holds that whoever called the backend in a span of time, by what its own capture has logged, was the waypoint or the gateway that is in the mesh for the other Service.
func (c *change) seenByBackend(from, to time.Time) {
	c.t.Helper()
	text, err := os.ReadFile(c.mesh.Node.LogPath(c.shop, "orders", "capture"))
	if err != nil {
		c.t.Fatal(err)
	}
	n := 0
	for _, e := range capture.Entries(string(text)) {
		if e.Direction != capture.Inbound || e.Transport != capture.HBONE || e.Time.Before(from) || e.Time.After(to) {
			continue
		}
		switch e.SourceIdentity {
		case "spiffe://cluster.local/ns/" + c.shop + "/sa/shared":
			n++
		default:
			c.t.Errorf("the backend was called by %s: %+v", e.SourceIdentity, e)
		}
	}
	if c.t.Logf("the backend saw %d connections of the waypoint", n); n == 0 {
		c.t.Error("the backend has seen none of the waypoint")
	}
}
