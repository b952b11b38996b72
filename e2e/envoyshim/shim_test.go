package envoyshim_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/e2e/capture"
	"github.com/isthmus-mesh/isthmus/e2e/envoyshim"
	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/mesh/meshtest"
	"github.com/isthmus-mesh/isthmus/e2e/node"
	"github.com/isthmus-mesh/isthmus/e2e/programs"
	"github.com/isthmus-mesh/isthmus/e2e/story/apps"
	"github.com/isthmus-mesh/isthmus/e2e/world"
)

func TestMain(m *testing.M) {
	world.Enter(mesh.Funcs(capture.Funcs(), envoyshim.Funcs(), world.Funcs{"orders": apps.Orders, "caller": apps.Caller}))
	os.Exit(m.Run())
}

const objects = `
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: good, namespace: shop}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: bad, namespace: shop}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: orders, namespace: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: orders, namespace: shop, labels: {app: orders}}
spec:
  serviceAccountName: orders
  automountServiceAccountToken: false
  containers:
  - {name: orders, image: orders, readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}}
---
apiVersion: v1
kind: Pod
metadata: {name: good, namespace: shop}
spec:
  serviceAccountName: good
  automountServiceAccountToken: false
  containers:
  - {name: caller, image: caller, readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}}
---
apiVersion: v1
kind: Pod
metadata: {name: bad, namespace: shop}
spec:
  serviceAccountName: bad
  automountServiceAccountToken: false
  containers:
  - {name: caller, image: caller, readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {name: orders, namespace: shop, labels: {istio.io/use-waypoint: waypoint}}
spec:
  selector: {app: orders}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: callers, namespace: shop}
spec:
  targetRefs: [{kind: Service, group: "", name: orders}]
  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/shop/sa/good]}}]
    to: [{operation: {methods: [GET], paths: [/ok*]}}]
`

const waypoint = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop, labels: {istio.io/waypoint-for: service}}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
`

func TestWaypointEnforcesByIdentity(t *testing.T) {
	set, err := programs.Ensure(t.Context(), programs.All(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	if set.Path(programs.Envoy) == "" {
		t.Skip(set.Missing()) // with CI=true Ensure has failed
	}
	image, err := envoyshim.Image(set)
	if err != nil {
		t.Fatal(err)
	}
	var m *mesh.Mesh
	m = meshtest.New(t, mesh.Options{
		MeshConfig: envoyshim.MeshConfig,
		Images:     map[string]node.Image{programs.ProxyImage: image, "orders": {Func: "orders"}, "caller": {Func: "caller"}},
		Capture:    capture.Hook(capture.Mesh{Roots: func() []byte { return m.RootPEM }}),
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := m.Apply(ctx, objects); err != nil {
		t.Fatal(err)
	}
	for _, pod := range []string{"orders", "good", "bad"} {
		if _, err := m.Node.WaitReady(ctx, "shop", pod); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	if err := m.Apply(ctx, waypoint); err != nil {
		t.Fatal(err)
	}
	pod := waitProgrammed(t, ctx, m)
	programmed := time.Since(began)
	if _, err := m.Node.WaitReady(ctx, "shop", pod.Name); err != nil {
		t.Fatalf("%v\n%s", err, m.Node.Tail("shop", pod.Name, "istio-proxy", 60))
	}
	t.Logf("waypoint: programmed %.1f s, ready %.1f s after its Gateway was applied", programmed.Seconds(), time.Since(began).Seconds())
	logMemory(t, pod.Name)

	for _, c := range []struct {
		caller, path string
		want         int
		policy       string
	}{
		{"good", "/ok/1", 200, "shop/callers"},
		{"bad", "/ok/2", 403, ""},
		{"good", "/secret", 403, ""},
	} {
		eventually(t, m, pod, c.caller, c.path, c.want)
		requests := envoyshim.Requests(readLog(t, m, pod))
		at := slices.IndexFunc(requests, func(r envoyshim.Request) bool { return r.Path == c.path && r.Status == c.want })
		if at < 0 {
			t.Errorf("%s %s: not in the access log: %+v", c.caller, c.path, requests)
			continue
		}
		r := requests[at]
		if want := "spiffe://cluster.local/ns/shop/sa/" + c.caller; r.Peer != want || r.Policy != c.policy || r.Allowed != (c.want == 200) {
			t.Errorf("%s %s: logged as %+v; want peer %s, policy %q", c.caller, c.path, r, want, c.policy)
		}
	}
	text := readLog(t, m, pod)
	if strings.Contains(text, "ACK ERROR") || strings.Contains(text, "rejected") {
		t.Errorf("Envoy refused a configuration:\n%s", text)
	}
}

func waitProgrammed(t *testing.T, ctx context.Context, m *mesh.Mesh) *corev1.Pod {
	t.Helper()
	for ; ; time.Sleep(20 * time.Millisecond) {
		var g gatewayv1.Gateway
		if err := m.Client().Get(ctx, types.NamespacedName{Namespace: "shop", Name: "waypoint"}, &g); err != nil {
			t.Fatal(err)
		}
		var pods corev1.PodList
		if err := m.Client().List(ctx, &pods, client.InNamespace("shop"), client.MatchingLabels{"gateway.networking.k8s.io/gateway-name": "waypoint"}); err != nil && ctx.Err() == nil {
			t.Fatal(err)
		}
		if meta.IsStatusConditionTrue(g.Status.Conditions, "Programmed") && len(pods.Items) == 1 {
			return &pods.Items[0]
		}
		if ctx.Err() != nil {
			for _, p := range pods.Items {
				t.Logf("%s: %s", p.Name, m.Node.Tail("shop", p.Name, "istio-proxy", 60))
			}
			t.Fatalf("not programmed: %+v", g.Status.Conditions)
		}
	}
}

func readLog(t *testing.T, m *mesh.Mesh, pod *corev1.Pod) string {
	t.Helper()
	time.Sleep(100 * time.Millisecond) // Envoy writes every 20 ms
	text, err := os.ReadFile(m.Node.LogPath(pod.Namespace, pod.Name, "istio-proxy"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// eventually sends until the answer is want; a policy takes a moment to arrive.
func eventually(t *testing.T, m *mesh.Mesh, waypoint *corev1.Pod, caller, path string, want int) {
	t.Helper()
	var a apps.Answer
	c := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: m.NS.DialContext, DisableKeepAlives: true}}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		to := fmt.Sprintf("http://%s:8080/call?url=%s", m.Node.PodIP("shop", caller), url.QueryEscape("http://orders.shop.svc.cluster.local"+path))
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, to, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		err = json.NewDecoder(res.Body).Decode(&a)
		res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if a.Status == want {
			return
		}
	}
	t.Fatalf("%s as %s: got %+v, want %d\ncapture: %s\nwaypoint: %s", path, caller, a, want,
		m.Node.Tail("shop", caller, "capture", 5), m.Node.Tail("shop", waypoint.Name, "istio-proxy", 20))
}
