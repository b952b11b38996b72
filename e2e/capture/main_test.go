package capture_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/e2e/capture"
	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/mesh/meshtest"
	"github.com/isthmus-mesh/isthmus/e2e/node"
	"github.com/isthmus-mesh/isthmus/e2e/story/apps"
	"github.com/isthmus-mesh/isthmus/e2e/world"
)

func TestMain(m *testing.M) {
	world.Enter(mesh.Funcs(capture.Funcs(), world.Funcs{"orders": apps.Orders, "caller": apps.Caller, "holder": holder, "fake-ztunnel": fakeZtunnel}))
	os.Exit(meshtest.Main(m, meshes[node.Auto], meshes[node.AnyIP]))
}

// meshes are those of all tests, by their rules: each test takes namespaces of its own.
var meshes = map[node.Rules]*meshtest.Shared{node.Auto: sharedMesh(node.Auto), node.AnyIP: sharedMesh(node.AnyIP)}

func sharedMesh(rules node.Rules) *meshtest.Shared {
	return &meshtest.Shared{Start: func(ctx context.Context) (m *mesh.Mesh, err error) {
		m, err = mesh.Start(ctx, mesh.Options{
			Quick:  true,
			Images: map[string]node.Image{"orders": {Func: "orders"}, "caller": {Func: "caller"}, "holder": {Func: "holder"}},
			Rules:  rules,
			Capture: capture.Hook(capture.Mesh{
				Roots:   func() []byte { return m.RootPEM },
				Wait:    500 * time.Millisecond,
				Lenient: func(namespace, _ string) bool { return namespace == "lenient" },
			}),
		})
		return m, err
	}}
}

// pods are a captured backend, and a caller that is not captured.
func pods(ns string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Namespace
metadata: {name: %[1]s}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: caller, namespace: %[1]s}
---`, ns) + apps.OrdersObjects(ns, ", istio.io/dataplane-mode: ambient") + fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata:
  name: caller
  namespace: %s
  labels: {app: caller}
  annotations: {ambient.istio.io/bypass-inbound-capture: "true"} # the test reaches it whatever the policies say
spec:
  serviceAccountName: caller
  automountServiceAccountToken: false
  containers:
  - name: caller
    image: caller
    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
  - name: holder
    image: holder
    readinessProbe: {tcpSocket: {port: 8081}, periodSeconds: 1}
`, ns)
}

// cluster is a namespace with a captured backend, orders, and a caller that is not captured.
type cluster struct {
	*mesh.Mesh
	t  *testing.T
	ns string
}

func newCluster(t *testing.T, ns string) *cluster {
	t.Helper()
	return newClusterWith(t, ns, node.Auto)
}

func newClusterWith(t *testing.T, ns string, rules node.Rules) *cluster {
	t.Helper()
	c := &cluster{Mesh: meshes[rules].Get(t), t: t, ns: ns}
	c.apply(pods(ns))
	for _, name := range []string{"orders", "caller"} {
		if _, err := c.Node.WaitReady(c.ctx(), ns, name); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// needNFTables leaves out a test of connections that only nftables brings to the process: inbound plaintext, and what goes to a pod's
// own address.
func (c *cluster) needNFTables() {
	c.t.Helper()
	err := node.CheckNFTables()
	if errors.Is(err, node.ErrNoNFTables) && os.Getenv("CI") != "true" {
		c.t.Skip(err)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) ctx() context.Context {
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
	c.t.Cleanup(cancel)
	return ctx
}

func (c *cluster) apply(yaml string) {
	c.t.Helper()
	if err := c.Apply(c.ctx(), yaml); err != nil {
		c.t.Fatal(err)
	}
}

// enrol brings the caller into the mesh, or out of it.
func (c *cluster) enrol(in bool) {
	c.t.Helper()
	c.enrolPod("caller", in)
}

func (c *cluster) enrolPod(name string, in bool) {
	c.t.Helper()
	mode := "null"
	if in {
		mode = `"ambient"`
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns, Name: name}}
	patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"istio.io/dataplane-mode":`+mode+`}}}`))
	if err := c.Client().Patch(c.ctx(), pod, patch); err != nil {
		c.t.Fatal(err)
	}
	if err := c.Node.WaitCaptured(c.ctx(), c.ns, name, in); err != nil {
		c.t.Fatal(err)
	}
}

// call lets the caller send a request to the Service.
func (c *cluster) call(path string) apps.Answer {
	c.t.Helper()
	to := fmt.Sprintf("http://%s:8080/call?url=%s", c.Node.PodIP(c.ns, "caller"), url.QueryEscape("http://orders."+c.ns+".svc.cluster.local"+path))
	req, err := http.NewRequestWithContext(c.ctx(), http.MethodPost, to, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: c.NS.DialContext, DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	var a apps.Answer
	if err := json.NewDecoder(res.Body).Decode(&a); err != nil {
		c.t.Fatal(err)
	}
	return a
}

// eventually calls until the answer's status is want; a policy takes a moment to arrive.
func (c *cluster) eventually(path string, want int) apps.Answer {
	c.t.Helper()
	var a apps.Answer
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if a = c.call(path); a.Status == want {
			return a
		}
	}
	c.t.Fatalf("%s answers %+v, want %d\ncaller: %s\norders: %s", path, a, want,
		c.Node.Tail(c.ns, "caller", "capture", 20), c.Node.Tail(c.ns, "orders", "capture", 20))
	return a
}

// wantLast waits until ok holds of the newest entry of the pod's access log: a ztunnel completes it when the connection has ended. ok may make
// another come.
func (c *cluster) wantLast(pod string, ok func(capture.Entry) bool) {
	c.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		entries := capture.Entries(c.Node.Tail(c.ns, pod, "capture", 1000))
		if len(entries) > 0 && ok(entries[len(entries)-1]) {
			return
		}
	}
	c.t.Fatalf("the access log of %s is not as it should be:\n%s", pod, c.Node.Tail(c.ns, pod, "capture", 10))
}

// logs calls until the answer's status is want and the newest entry of a pod's access log is as it should be. One call is not enough: that which is under
// way when a policy comes is ended by it, and leaves another entry than a call that is refused.
func (c *cluster) logs(path string, want int, pod string, ok func(capture.Entry) bool) {
	c.t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if c.call(path).Status != want {
			continue
		}
		entries := capture.Entries(c.Node.Tail(c.ns, pod, "capture", 1000))
		if len(entries) > 0 && ok(entries[len(entries)-1]) {
			return
		}
	}
	c.t.Fatalf("the access log of %s is not as it should be, though it is asked again and again:\n%s", pod, c.Node.Tail(c.ns, pod, "capture", 10))
}

// until waits for f to be true.
func (c *cluster) until(what string, f func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !f(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("not within 30 s: %s", what)
		}
	}
}
