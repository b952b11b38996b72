package capture_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/capture"
	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/node"
	"github.com/isthmus-mesh/isthmus/e2e/story/apps"
	"github.com/isthmus-mesh/isthmus/e2e/world"
)

func TestMain(m *testing.M) {
	world.Enter(mesh.Funcs(capture.Funcs(), world.Funcs{"orders": apps.Orders, "caller": apps.Caller, "holder": holder, "fake-ztunnel": fakeZtunnel}))
	code := m.Run()
	for _, s := range meshes {
		if err := s.stop(code != 0); err != nil {
			fmt.Println(err)
			code = 1
		}
	}
	os.Exit(code)
}

// meshes are those of all tests, by their rules: each test takes namespaces of its own.
var meshes = map[node.Rules]*shared{node.Auto: {}, node.AnyIP: {}}

type shared struct {
	once sync.Once
	mesh *mesh.Mesh
	err  error
}

// stop ends the mesh, if it was started, and keeps its logs where something has failed.
func (s *shared) stop(failed bool) error {
	if s.mesh == nil {
		return nil
	}
	if failed {
		s.mesh.Keep()
		fmt.Println("logs are in", s.mesh.Dir)
	}
	return s.mesh.Stop()
}

func theMesh(t *testing.T, rules node.Rules) *mesh.Mesh {
	t.Helper()
	s := meshes[rules]
	s.once.Do(func() {
		s.mesh, s.err = mesh.Start(context.Background(), mesh.Options{
			Images: map[string]node.Image{"orders": {Func: "orders"}, "caller": {Func: "caller"}, "holder": {Func: "holder"}},
			Rules:  rules,
			Capture: capture.Hook(capture.Mesh{
				Roots:   func() []byte { return s.mesh.RootPEM },
				Wait:    500 * time.Millisecond,
				Lenient: func(namespace, _ string) bool { return namespace == "lenient" },
			}),
		})
	})
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.mesh
}

const pods = `
apiVersion: v1
kind: Namespace
metadata: {name: %[1]s}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: caller, namespace: %[1]s}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: orders, namespace: %[1]s}
---
apiVersion: v1
kind: Pod
metadata: {name: orders, namespace: %[1]s, labels: {app: orders, istio.io/dataplane-mode: ambient}}
spec:
  serviceAccountName: orders
  automountServiceAccountToken: false
  containers:
  - name: orders
    image: orders
    ports: [{containerPort: 8080}]
    readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata:
  name: caller
  namespace: %[1]s
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
---
apiVersion: v1
kind: Service
metadata: {name: orders, namespace: %[1]s}
spec:
  selector: {app: orders}
  ports: [{name: http, port: 80, targetPort: 8080}]
`

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
	c := &cluster{Mesh: theMesh(t, rules), t: t, ns: ns}
	c.apply(fmt.Sprintf(pods, ns))
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
	if c.Node.Rules() == node.NFTables {
		return
	}
	if os.Getenv("CI") == "true" {
		c.t.Fatal("this machine allows no nftables in a namespace")
	}
	c.t.Skip("this machine allows no nftables in a namespace")
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
	label := "istio.io/dataplane-mode-"
	if in {
		label = "istio.io/dataplane-mode=ambient"
	}
	if _, err := c.Run(c.ctx(), "kubectl", "label", "pod", "caller", "-n", c.ns, label); err != nil {
		c.t.Fatal(err)
	}
	if err := c.Node.WaitCaptured(c.ctx(), c.ns, "caller", in); err != nil {
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
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if a = c.call(path); a.Status == want {
			return a
		}
	}
	c.t.Fatalf("%s answers %+v, want %d\ncaller: %s\norders: %s", path, a, want,
		c.Node.Tail(c.ns, "caller", "capture", 20), c.Node.Tail(c.ns, "orders", "capture", 20))
	return a
}

// last is the newest access log entry of the pod's capture.
func (c *cluster) last(pod string) capture.Entry {
	c.t.Helper()
	entries := capture.Entries(c.Node.Tail(c.ns, pod, "capture", 1000))
	if len(entries) == 0 {
		c.t.Fatalf("pod %s has no access log: %s", pod, c.Node.Tail(c.ns, pod, "capture", 20))
	}
	return entries[len(entries)-1]
}

// wantLast waits until ok holds of the newest entry of the pod's access log; ok may make another come.
func (c *cluster) wantLast(pod string, ok func(capture.Entry) bool) {
	c.t.Helper()
	for deadline := time.Now().Add(12 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if ok(c.last(pod)) {
			return
		}
	}
	c.t.Fatalf("the access log of %s is not as it should be:\n%s", pod, c.Node.Tail(c.ns, pod, "capture", 10))
}

// until waits for f to be true.
func (c *cluster) until(what string, f func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !f(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("not within 10 s: %s", what)
		}
	}
}
