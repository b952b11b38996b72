package clitest

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/controller/run"
)

// edges is a cluster that has a Gateway of kgateway, with a route to the shop, and ingress-nginx, with an Ingress in the shop.
const edges = `
{apiVersion: v1, kind: Namespace, metadata: {name: observed}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: kgateway}, spec: {controllerName: kgateway.dev/kgateway}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: http, namespace: observed}, spec: {gatewayClassName: kgateway, listeners: [{name: http, port: 80, protocol: HTTP}]}}
---
{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: nginx}, spec: {controller: k8s.io/ingress-nginx}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: nginx, namespace: observed}
spec:
  replicas: 0
  selector: {matchLabels: {app: nginx}}
  template: {metadata: {labels: {app: nginx}}, spec: {containers: [{name: controller, image: "registry.k8s.io/ingress-nginx/controller:v1.15.1"}]}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: orders, namespace: shop}
spec: {ingressClassName: nginx, rules: [{http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: orders, port: {number: 80}}}}]}}]}
`

// reader is a kubeconfig of a user who may do some of get, list and watch with what observing takes, and nothing else.
func (c *cluster) reader(name string, verbs ...string) string {
	c.t.Helper()
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, r := range run.ObserveRules() {
		if slices.Contains(r.Verbs, "list") {
			r.Verbs = verbs
			role.Rules = append(role.Rules, r)
		} else if slices.Contains(r.Resources, "configmaps") { // the mesh's, of which a note tells otherwise
			role.Rules = append(role.Rules, r)
		}
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}},
	}
	if err := c.Client().Create(c.t.Context(), role); err != nil {
		c.t.Fatal(err)
	}
	if err := c.Client().Create(c.t.Context(), binding); err != nil {
		c.t.Fatal(err)
	}
	if err := c.WaitGranted(c.t.Context(), "", name, role.Rules...); err != nil {
		c.t.Fatal(err)
	}
	return c.kubeconfig(name)
}

func TestObserve(t *testing.T) {
	c := newCluster(t)
	if err := c.Apply(t.Context(), edges); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Delete(context.WithoutCancel(t.Context()), edges); err != nil {
			t.Error(err)
		}
	})
	looks := c.reader("observe-looks", "get", "list", "watch")

	t.Run("a table", func(t *testing.T) {
		r := c.isthmus("observe", "--kubeconfig", looks)
		r.Want(t, 0, r.Stdout, "GATEWAY", "VENDOR", "CAPTURED", "BACKENDS", "EDGE", "WHAT", "observed/http", "kgateway", "0/0", "0", "-", "Deployment observed/nginx", "ingress-nginx", "0/0", "1", "-", "blocked by ISM302")
		if strings.Contains(r.Stdout, "waypoint ") || r.Stderr != "" {
			t.Errorf("it says %q and %q", r.Stdout, r.Stderr)
		}
	})
	t.Run("one namespace", func(t *testing.T) {
		r := c.isthmus("observe", "-n", "edge", "--kubeconfig", looks)
		r.Want(t, 0, r.Stderr, "There is no Gateway, and no known Ingress controller, in namespace edge.")
		r = c.isthmus("observe", "-n", "nowhere", "--kubeconfig", looks)
		r.Want(t, 1, r.Stderr, "there is no namespace nowhere", "next:")
	})
	t.Run("JSON", func(t *testing.T) {
		var doc struct {
			Kind     string
			Gateways []struct {
				Kind, Namespace, Name, Vendor, Switch, Inspect string
				HasEdge                                        bool
				EdgeSpec                                       map[string]any
				Plan                                           struct {
					Blocked bool
					Steps   []struct{ Verb string }
				}
			}
		}
		r := c.isthmus("observe", "-o", "json", "--kubeconfig", looks)
		if err := json.Unmarshal([]byte(r.Stdout), &doc); err != nil {
			t.Fatal(err)
		}
		if doc.Kind != "Observation" || len(doc.Gateways) != 2 {
			t.Fatalf("got %+v", doc)
		}
		if g := doc.Gateways[1]; g.Name != "nginx" || g.Vendor != "ingress-nginx" || !g.Plan.Blocked || g.Switch == "" || g.Inspect == "" || g.HasEdge {
			t.Errorf("got %+v", g)
		}
		if g := doc.Gateways[0]; g.Name != "http" || g.Vendor != "kgateway" || len(g.Plan.Steps) == 0 || g.EdgeSpec["targetRefs"] == nil {
			t.Errorf("got %+v", g)
		}
	})
	t.Run("one gateway, and its AmbientEdge goes into plan", func(t *testing.T) {
		c.install()
		r := c.isthmus("observe", "observed/http", "--kubeconfig", looks)
		r.Want(t, 0, r.Stdout, "Gateway observed/http, kgateway, 0 of 0 pods captured", "config_dump", "Plan of AmbientEdge observed/http, mode Manage", "STEP", "Enrol", "apiVersion: isthmus.dev/v1alpha1", "targetRefs:")
		_, text, _ := strings.Cut(r.Stdout, "# The AmbientEdge that would do this:\n")
		r = c.isthmus("plan", "-f", file(t, text))
		r.Want(t, 0, r.Stdout, "Plan of AmbientEdge observed/http", "Enrol")
		r = c.isthmus("observe", "-n", "observed", "nothing", "--kubeconfig", looks)
		r.Want(t, 1, r.Stderr, "there is no gateway nothing", "namespace observed", "next:", "-n")
	})
	t.Run("a wrong namespace in a file", func(t *testing.T) {
		c.install()
		r := c.isthmus("plan", "-f", file(t, strings.Replace(edgeYAML, "namespace: edge", "namespace: nowhere", 1)))
		r.Want(t, 1, r.Stderr, "there is no namespace nowhere", "next:", "kubectl create namespace nowhere", "metadata.namespace")
		if strings.Contains(r.Stderr, "with -n") {
			t.Error("-n is advised, and would be refused")
		}
	})
	t.Run("the walk with kgateway", func(t *testing.T) {
		c.install()
		c.walks(t)
	})
	t.Run("names for the shell", func(t *testing.T) {
		r := c.isthmus("__complete", "observe", "obs")
		r.Want(t, 0, r.Stdout, "observed/http\n:4\n")
	})
	t.Run("missing rights are named, all of them", func(t *testing.T) {
		r := c.isthmus("observe", "--kubeconfig", c.kubeconfig("observe-nobody"))
		r.Want(t, 1, r.Stderr, "cannot read the cluster", "the rights to list", "ambientedges.isthmus.dev", "gateways.gateway.networking.k8s.io", "ingresses.networking.k8s.io", "pods", "are missing", "next:", "isthmus-view")
		if r.Stdout != "" {
			t.Errorf("it shows %q", r.Stdout)
		}
		r = c.isthmus("observe", "--watch", "--kubeconfig", c.reader("observe-once", "get", "list"))
		r.Want(t, 1, r.Stderr, "the cluster cannot be watched", "watch", "forbidden", "isthmus-view")
	})
	t.Run("watch", func(t *testing.T) { c.watches(t, looks) })
}

// walks runs the commands that docs/operations.md has for a Gateway of kgateway, but for helm, and that which goes on until it is interrupted.
func (c *cluster) walks(t *testing.T) {
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## A Gateway of kgateway\n")
	_, script, _ := strings.Cut(section, "```sh\n")
	script, _, found := strings.Cut(script, "```")
	if !found {
		t.Fatal("there is no such walk")
	}
	t.Cleanup(func() {
		for _, args := range [][]string{{"delete", "ambientedge", "-n", "observed", "http", "--ignore-not-found", "--timeout=20s"}, {"annotate", "namespace", "shop", "isthmus.dev/edges-"}} {
			if out, err := c.Run(context.WithoutCancel(t.Context()), "kubectl", args...); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		}
	})
	written := ""
	if out, err := c.Run(t.Context(), "kubectl", "annotate", "namespace", "shop", "isthmus.dev/edges-"); err != nil { // others' tests left it
		t.Fatalf("%v\n%s", err, out)
	}
	for line := range strings.Lines(strings.ReplaceAll(strings.ReplaceAll(script, "edge/http", "observed/http"), " --watch", "")) {
		line, _, _ = strings.Cut(line, " #")
		first, after, piped := strings.Cut(line, " | ")
		words := strings.Fields(first)
		if len(words) == 0 {
			continue
		}
		switch words[0] {
		case "helm":
			continue
		case "isthmus":
			r := c.isthmus(words[1:]...)
			r.Want(t, 0, r.Stdout, "http")
			written += r.Stdout
			if !piped {
				continue
			}
			words = append(strings.Fields(strings.TrimSuffix(strings.TrimSpace(after), "-")), file(t, r.Stdout))
		}
		if out, err := c.Run(t.Context(), words[0], words[1:]...); err != nil {
			t.Errorf("%s: %v\n%s", line, err, out)
		}
	}
	for _, want := range []string{"It needs before: helm upgrade kgateway with waypoint.enabled=true", "policy: Create", "isthmus observe observed/http -o yaml | kubectl apply -f -"} {
		if !strings.Contains(written, want) {
			t.Errorf("%q is not said:\n%s", want, written)
		}
	}
	if out, err := c.Run(t.Context(), "kubectl", "get", "ambientedge", "-n", "observed", "http", "-o", "jsonpath={.spec.mode} {.spec.waypoint.policy}"); err != nil || out != "Manage Create" {
		t.Errorf("the AmbientEdge is %q, %v", out, err)
	}
}

// output is what a command says while it runs.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) waitFor(t *testing.T, what string) time.Duration {
	t.Helper()
	begin := time.Now()
	for time.Since(begin) < 20*time.Second {
		o.mu.Lock()
		said := strings.Contains(o.text.String(), what)
		o.mu.Unlock()
		if said {
			return time.Since(begin)
		}
		time.Sleep(20 * time.Millisecond)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	t.Fatalf("%q is not said: %q", what, o.text.String())
	return 0
}

// watches has the table shown again when a Gateway comes, and ends it as people do.
func (c *cluster) watches(t *testing.T, kubeconfig string) {
	var out, errs output
	cmd := exec.CommandContext(t.Context(), shared.binary, "observe", "--watch", "--kubeconfig", kubeconfig)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := c.NS.Start(cmd); err != nil {
		t.Fatal(err)
	}
	out.waitFor(t, "observed/http")
	another := strings.ReplaceAll(edges[strings.Index(edges, "{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, "):], "name: http, namespace", "name: another, namespace")
	another, _, _ = strings.Cut(another, "\n---")
	if err := c.Apply(t.Context(), another); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Delete(context.WithoutCancel(t.Context()), another); err != nil {
			t.Error(err)
		}
	}()
	t.Logf("a new Gateway is shown after %v", out.waitFor(t, "observed/another").Round(time.Millisecond))
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v: %s", err, errs.text.String())
	}
	if n := strings.Count(out.text.String(), "GATEWAY"); n < 2 || n > 4 {
		t.Errorf("the table was shown %d times:\n%s", n, out.text.String())
	}
}
