package clitest

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/isthmus-mesh/isthmus/manifests"
)

const gateway = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: gateway, namespace: edge}
spec:
  replicas: 1
  selector: {matchLabels: {app: gateway}}
  template:
    metadata: {labels: {app: gateway}}
    spec:
      serviceAccountName: gateway
      automountServiceAccountToken: false
      containers:
      - name: gateway
        image: orders
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
`

const edgeYAML = `
apiVersion: isthmus.dev/v1alpha1
kind: AmbientEdge
metadata: {name: public, namespace: edge}
spec:
  workloadRefs: [{kind: Deployment, name: gateway}]
  mode: Manage
  backends: {services: [{namespace: shop, name: orders}]}
  waypoint: {policy: None}
`

// file writes text into a file.
func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "edge.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// install applies the manifests, and waits for the controller.
func (c *cluster) install() time.Duration {
	c.t.Helper()
	begin := time.Now()
	all, err := manifests.Install()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := c.Apply(c.t.Context(), string(all)); err != nil {
		c.t.Fatal(err)
	}
	c.available(types.NamespacedName{Namespace: manifests.Namespace, Name: manifests.Controller})
	return time.Since(begin)
}

func (c *cluster) available(key types.NamespacedName) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	for {
		var d appsv1.Deployment
		err := c.Client().Get(ctx, key, &d)
		if err == nil && d.Status.AvailableReplicas == 1 && d.Status.ObservedGeneration == d.Generation {
			return
		}
		if ctx.Err() != nil {
			c.t.Fatalf("%s is not available: %v, %+v", key, err, d.Status)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// kubeconfig is a file for another user.
func (c *cluster) kubeconfig(user string, groups ...string) string {
	c.t.Helper()
	theirs, err := c.UserConfig(user, groups...)
	if err != nil {
		c.t.Fatal(err)
	}
	cfg, err := clientcmd.LoadFromFile(c.Kubeconfig)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, a := range cfg.AuthInfos {
		a.ClientCertificateData, a.ClientKeyData = theirs.CertData, theirs.KeyData
	}
	path := filepath.Join(c.t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*cfg, path); err != nil {
		c.t.Fatal(err)
	}
	return path
}

func TestPlanStatusAndController(t *testing.T) {
	c := newCluster(t)
	if err := c.Apply(t.Context(), gateway); err != nil {
		t.Fatal(err)
	}
	c.available(types.NamespacedName{Namespace: "edge", Name: "gateway"})
	edge := file(t, edgeYAML)

	waypoint := file(t, strings.Replace(edgeYAML, "{policy: None}", "{policy: Create, name: waypoint}", 1))

	r := c.isthmus("plan", "-f", waypoint)
	r.Want(t, 1, r.Stderr, "CRD AmbientEdge is not installed", "error: the plan is blocked: ISM302", "next:")
	if n := strings.Count(r.Stdout+r.Stderr, "has not consented"); n != 1 {
		t.Errorf("a finding is told %d times", n)
	}
	r = c.isthmus("status", "-A")
	r.Want(t, 1, r.Stderr, "cannot list AmbientEdges", "install the CRDs")
	r = c.isthmus("controller", "--metrics-bind-address", "0", "--health-probe-bind-address", "0")
	r.Want(t, 1, r.Stderr, "lacks what the controller works on", "AmbientEdge", "install the CRDs")

	t.Logf("the controller is available %v after its manifests", c.install().Round(time.Millisecond))
	r = c.isthmus("status", "-A")
	r.Want(t, 0, r.Stderr, "no AmbientEdge in all namespaces")

	t.Run("no consent", func(t *testing.T) {
		r := c.isthmus("plan", "-f", waypoint)
		r.Want(t, 1, r.Stdout, "Plan of AmbientEdge edge/public, mode Manage: blocked", "GATEWAY", "gateway", "BACKEND", "shop/orders", "ISM302  Error", "STEP", "Enrol")
		r.Want(t, 1, r.Stderr, "error: the plan is blocked: ISM302 at Namespace shop", "next:")
	})
	if _, err := c.Run(t.Context(), "kubectl", "annotate", "namespace", "shop", "isthmus.dev/edges=edge/public"); err != nil {
		t.Fatal(err)
	}
	t.Run("malformed", func(t *testing.T) {
		r := c.isthmus("plan", "-f", file(t, strings.Replace(edgeYAML, "mode: Manage", "mood: Manage", 1)))
		r.Want(t, 1, r.Stderr, "malformed", "edge.yaml", `unknown field "spec.mood"`, "kubectl explain")
		r = c.isthmus("plan", "-f", file(t, strings.Replace(edgeYAML, "mode: Manage", "mode: Conquer", 1)))
		r.Want(t, 1, r.Stderr, "edge/public cannot be applied", "spec.mode", "Conquer", "next:")
		r = c.isthmus("plan", "-f", file(t, strings.Replace(edgeYAML, "workloadRefs", "targetRefs: [{name: x}]\n  workloadRefs", 1)))
		r.Want(t, 1, r.Stderr, "exactly one of targetRefs and workloadRefs")
	})
	t.Run("no rights", func(t *testing.T) {
		nobody := c.kubeconfig("nobody")
		r := c.isthmus("plan", "-f", edge, "--kubeconfig", nobody)
		r.Want(t, 1, r.Stderr, "cannot read the cluster", "list AmbientEdges", "forbidden", `"nobody"`, "isthmus-view")
		r = c.isthmus("status", "-A", "--kubeconfig", nobody)
		r.Want(t, 1, r.Stderr, "cannot list AmbientEdges", "forbidden", "isthmus-view")
		r = c.isthmus("status", "-n", "edge", "--kubeconfig", c.kubeconfig("stranger", "system:unauthenticated"))
		r.Want(t, 1, r.Stderr, "cannot list AmbientEdges", "failed to get server groups", "next:", "isthmus-view")
		if _, err := c.Run(t.Context(), "kubectl", "create", "clusterrolebinding", "looks", "--clusterrole", "isthmus-view", "--user", "looks"); err != nil {
			t.Fatal(err)
		}
		for _, write := range [][]string{{"patch", "ambientedges.isthmus.dev/status"}, {"create", "events.events.k8s.io"}, {"create", "events"}} {
			out, err := c.Run(t.Context(), "kubectl", append([]string{"auth", "can-i", "-A", "--as", "looks"}, write...)...)
			if err == nil || strings.TrimSpace(out) != "no" {
				t.Errorf("whoever looks may %v: %q, %v", write, out, err)
			}
		}
		r = c.isthmus("plan", "-f", edge, "--kubeconfig", c.kubeconfig("looks"))
		r.Want(t, 0, r.Stderr, "note: you may not apply AmbientEdges in namespace edge")
		r.Want(t, 0, r.Stdout, "steps are left")
	})
	t.Run("no such namespace", func(t *testing.T) {
		nowhere := file(t, strings.Replace(edgeYAML, "namespace: edge", "namespace: nowhere", 1))
		for _, args := range [][]string{{"status", "-n", "nowhere"}, {"status", "nowhere/public"}, {"plan", "nowhere/public"}} {
			r := c.isthmus(args...)
			r.Want(t, 1, r.Stderr, "nowhere", "next:", "kubectl get namespaces")
		}
		r := c.isthmus("plan", "-f", nowhere)
		r.Want(t, 1, r.Stderr, "no namespace nowhere", nowhere, "next:", "kubectl create namespace nowhere")
		r = c.isthmus("status", "-n", "edge")
		r.Want(t, 0, r.Stderr, "no AmbientEdge in namespace edge")
	})
	t.Run("not there", func(t *testing.T) {
		r := c.isthmus("plan", "edge/public")
		r.Want(t, 1, r.Stderr, "AmbientEdge edge/public", "not found", "kubectl get ambientedges")
	})
	r = c.isthmus("plan", "-f", waypoint)
	r.Want(t, 0, r.Stdout, "steps are left", "BACKEND", "shop/waypoint", "STEP", "Create", "Gateway shop/waypoint", "Wire", "Service shop/orders")
	r = c.isthmus("plan", "-f", edge)
	r.Want(t, 0, r.Stdout, "Plan of AmbientEdge edge/public, mode Manage", "steps are left", "STEP", "Enrol", "Next")
	if strings.Contains(r.Stdout, "Error") {
		t.Error("there is a finding of severity Error")
	}
	for _, line := range strings.Split(r.Stdout, "\n") {
		if strings.HasSuffix(line, " ") {
			t.Errorf("%q ends with a blank", line)
		}
	}
	var doc struct {
		Kind  string
		Steps []struct {
			Verb, State string
			Write       map[string]any
		}
	}
	if err := json.Unmarshal([]byte(c.isthmus("plan", "-f", edge, "-o", "json").Stdout), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Kind != "Plan" || len(doc.Steps) == 0 || doc.Steps[0].Write == nil {
		t.Errorf("got %+v", doc)
	}

	if _, err := c.Run(t.Context(), "kubectl", "apply", "-f", edge); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	for r = c.isthmus("status", "edge/public", "--require-ready"); r.Code != 0 && time.Since(begin) < 30*time.Second; r = c.isthmus("status", "edge/public", "--require-ready") {
		time.Sleep(200 * time.Millisecond)
	}
	t.Logf("ready after %v", time.Since(begin).Round(time.Millisecond))
	r.Want(t, 0, r.Stdout, "AmbientEdge edge/public, mode Manage: ready True", "CONDITION", "Ready", "GATEWAY", "1/1", gatewayID, "STEP", "Enrol", "Done")
	r = c.isthmus("plan", "-n", "edge", "public")
	r.Want(t, 0, r.Stdout, "nothing is left to do")
	r = c.isthmus("status", "-A")
	r.Want(t, 0, r.Stdout, "NAMESPACE", "edge", "public", "Manage", "True", "1/1")
	t.Run("names for the shell", c.completes)
	if shared.envoy {
		t.Run("with a waypoint", func(t *testing.T) { c.withWaypoint(t, waypoint) })
	}
	if _, err := c.Run(t.Context(), "kubectl", "delete", "-f", edge, "--timeout=20s"); err != nil {
		t.Error(err)
	}
}

// completes asks as a shell does.
func (c *cluster) completes(t *testing.T) {
	nobody := c.kubeconfig("nobody-completes")
	for _, q := range []struct {
		args []string
		want string // the lines of names
	}{
		{[]string{"status", ""}, "edge/public\n"},
		{[]string{"plan", "edge/p"}, "edge/public\n"},
		{[]string{"plan", "-n", "edge", ""}, "public\n"},
		{[]string{"status", "shop/"}, ""},
		{[]string{"status", "edge/public", ""}, ""},
		{[]string{"status", "-n", "sh"}, "shop\n"},
		{[]string{"dial", "orders."}, "orders.shop.svc.cluster.local:80\n"},
		{[]string{"status", "--kubeconfig", nobody, ""}, ""},
		{[]string{"status", "--kubeconfig", "/nonexistent", ""}, ""},
	} {
		r := c.isthmus(append([]string{"__complete"}, q.args...)...)
		if names, rest, ok := strings.Cut(r.Stdout, ":"+noFiles+"\n"); r.Code != 0 || !ok || rest != "" || names != q.want {
			t.Errorf("%q: got %q, want %q", q.args, r.Stdout, q.want)
		}
		if strings.Contains(r.Stderr, "rror") {
			t.Errorf("%q: it says %q", q.args, r.Stderr)
		}
	}
}

// noFiles is cobra's way to tell the shell that these are no names of files.
const noFiles = "4"

// withWaypoint plans for an edge whose waypoint only the controller can ask.
func (c *cluster) withWaypoint(t *testing.T, edge string) {
	r := c.isthmus("plan", "-f", edge)
	r.Want(t, 0, r.Stdout, "steps are left", "STEP", "Create", "Next", "Wire", "Later")
	if _, err := c.Run(t.Context(), "kubectl", "apply", "-f", edge); err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); ; time.Sleep(200 * time.Millisecond) {
		if r = c.isthmus("status", "edge/public", "--require-ready"); r.Code == 0 {
			break
		}
		if time.Since(begin) > 30*time.Second {
			t.Fatal("it does not become ready")
		}
	}
	for _, args := range [][]string{{"plan", "edge/public"}, {"plan", "-f", edge}} {
		r = c.isthmus(args...)
		r.Want(t, 0, r.Stdout, "nothing is left to do", "Await", "Done", "it answers", "as the controller has seen since 20", "Confirm", "Done", "as the controller has seen since 20")
	}
	t.Run("kubectl", c.kubectlShows)
	text, err := os.ReadFile(edge)
	if err != nil {
		t.Fatal(err)
	}
	changed := file(t, string(text)+"  onDelete: Keep\n") // of another spec the controller has seen nothing yet
	r = c.isthmus("plan", "-f", changed)
	r.Want(t, 0, r.Stdout, "nothing is left to write; 2 of 6 steps only the controller can see", "Await", "Unknown", "not asked from here", "Confirm", "Unknown")
}
