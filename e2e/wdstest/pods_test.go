package wdstest

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	k8s "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/e2e/mesh"
)

const service = `
{apiVersion: v1, kind: Service, metadata: {name: close, namespace: pods}, spec: {clusterIP: 10.96.80.5, selector: {app: close}, ports: [{name: tcp, port: 80, targetPort: 8080}]}}
`

// running makes a captured pod of app close on a node that nobody plays.
func running(t *testing.T, m *mesh.Mesh, name, ip string) {
	t.Helper()
	runningAs(t, m, "pods", name, ip, "gateway", "app: close")
}

// runningAs makes one of another namespace and account, with other labels.
func runningAs(t *testing.T, m *mesh.Mesh, namespace, name, ip, account, labels string) {
	t.Helper()
	yaml := fmt.Sprintf(`
{apiVersion: v1, kind: Pod, metadata: {name: %s, namespace: %s, labels: {%s}, annotations: {ambient.istio.io/redirection: enabled}}, spec: {nodeName: elsewhere, serviceAccountName: %s, containers: [{name: c, image: none}]}}
`, name, namespace, labels, account)
	if err := m.Apply(t.Context(), yaml); err != nil {
		t.Fatal(err)
	}
	p := &corev1.Pod{}
	p.Namespace, p.Name = namespace, name
	status := fmt.Sprintf(`{"status":{"phase":"Running","podIP":%q,"podIPs":[{"ip":%q}],"conditions":[{"type":"Ready","status":"True"}]}}`, ip, ip)
	if err := m.Client().Status().Patch(t.Context(), p, k8s.RawPatch(types.MergePatchType, []byte(status))); err != nil {
		t.Fatal(err)
	}
}

// A Service that was asked for long ago leads to its pods of today.
func TestPodsAreReplaced(t *testing.T) {
	t.Parallel()
	m := shared.Get(t)
	if err := m.Apply(t.Context(), namespace("pods")+"---"+service); err != nil {
		t.Fatal(err)
	}
	running(t, m, "old", "10.244.80.1")
	c := newClient(t, m, "pods", nil)
	c.leads("10.96.80.5:80", "10.244.80.1:8080")
	kubectl := func(args ...string) {
		t.Helper()
		if _, err := m.Run(t.Context(), "kubectl", append([]string{"-n", "pods"}, args...)...); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("one comes, then one goes", func(t *testing.T) {
		running(t, m, "new", "10.244.80.2")
		kubectl("delete", "pod", "old", "--force", "--grace-period=0")
		client{t, c.Client}.leads("10.96.80.5:80", "10.244.80.2:8080")
	})
	t.Run("the Service goes, comes back, and then gets a pod", func(t *testing.T) {
		kubectl("delete", "service", "close")
		kubectl("delete", "pod", "new", "--force", "--grace-period=0")
		if err := m.Apply(t.Context(), service); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) { // istiod tells a moment later
			if _, err := c.resolve("10.96.80.5:80"); err != nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("a Service that was deleted leads somewhere")
			}
		}
		// It is dialled while it has no pod, which is what makes istiod forget to tell.
		for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if _, err := c.resolve("10.96.80.5:80"); err == nil {
				t.Fatal("a Service without a pod leads somewhere")
			}
		}
		running(t, m, "newest", "10.244.80.3")
		client{t, c.Client}.leads("10.96.80.5:80", "10.244.80.3:8080")
	})
}
