package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	ctl "github.com/isthmus-mesh/isthmus/controller/run"
)

const paperEdge = `apiVersion: isthmus.dev/v1alpha1
kind: AmbientEdge
metadata: {name: public, namespace: edge}
spec:
  targetRefs: [{name: http}]
  mode: Manage
  waypoint: {policy: Create, name: waypoint}
`

// paperCluster is what a repository has of a gateway and a shop: no pods, no statuses, and no Namespace edge.
const paperCluster = `# comments count as lines
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}, annotations: {isthmus.dev/edges: edge/public}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: kgateway}
spec: {controllerName: kgateway.dev/kgateway}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: kgateway, namespace: edge}
spec: {selector: {matchLabels: {kgateway: kgateway}}, template: {metadata: {labels: {kgateway: kgateway}}, spec: {containers: [{name: c, image: "cr.kgateway.dev/kgateway-dev/kgateway:v2.4.0", env: [{name: KGW_ENABLE_WAYPOINT, value: "true"}]}]}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: http, namespace: edge}
spec: {gatewayClassName: kgateway, listeners: [{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]}
---
apiVersion: v1
kind: List
items:
- apiVersion: gateway.networking.k8s.io/v1
  kind: HTTPRoute
  metadata: {name: orders, namespace: shop}
  spec: {parentRefs: [{name: http, namespace: edge}], rules: [{backendRefs: [{name: orders, port: 80}]}]}
- apiVersion: v1
  kind: Service
  metadata: {name: orders, namespace: shop}
  spec: {selector: {app: orders}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: orders, namespace: shop}
spec: {selector: {matchLabels: {app: orders}}, template: {metadata: {labels: {app: orders}}, spec: {serviceAccountName: orders, containers: [{name: c, image: i}]}}}
---
apiVersion: example.com/v1
kind: Unknown
metadata: {name: somebody-elses}
`

// folder writes files, and names the folder.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestPlanFromFiles(t *testing.T) {
	t.Setenv("KUBECONFIG", "/nonexistent") // nobody is to be asked
	dir := folder(t, map[string]string{"edge.yaml": paperEdge, "deep/cluster.yml": paperCluster, ".git/x.yaml": "kind: [", "README.md": "kind: ["})

	r := isthmus(t, "plan", "--from", dir)
	r.want(t, exitOK, r.stdout, "Plan of AmbientEdge edge/public, mode Manage", "only the controller can see", "http", "kgateway", "unknown", "Enrol", "Gateway edge/http", "Verify", "Unknown", "its pods are not in the files",
		"Create", "Next", "Gateway shop/waypoint", "Wire", "Service shop/orders", "Confirm", "Unknown", "whether istiod has bound it is not in the files")
	r.want(t, exitOK, r.stderr, "note: these Namespaces are not in the files", "assumed to be there", ": edge\n", "note: these HTTPRoutes have no status", "assumed: shop/orders",
		"one of each template is assumed", "Deployment edge/kgateway, Deployment shop/orders", "note: the files have no AuthorizationPolicy: policies were not looked at", "note: the mesh's configuration is not in the files", "note: no API server was asked")
	if strings.Contains(r.stdout, "Done") || strings.Contains(r.stdout, "ISM308") {
		t.Errorf("something that nobody has seen is told as seen: %s", r.stdout)
	}

	t.Run("standard input", func(t *testing.T) {
		in := isthmusWith(t, t.Context(), strings.NewReader(paperEdge+"---\n"+paperCluster), "plan", "--from", "-")
		if in.code != r.code || in.stdout != r.stdout {
			t.Errorf("the plan differs: %s", in.stdout)
		}
	})
	t.Run("an AmbientEdge beside them", func(t *testing.T) {
		file := filepath.Join(folder(t, map[string]string{"edge.yaml": strings.Replace(paperEdge, "name: public", "name: other", 1)}), "edge.yaml")
		r := isthmus(t, "plan", "-f", file, "--from", filepath.Join(dir, "deep"))
		r.want(t, exitFailed, r.stdout, "edge/other", "ISM302")
	})
	t.Run("diff", func(t *testing.T) {
		r := isthmus(t, "plan", "--from", dir, "-o", "diff")
		r.want(t, exitOK, r.stdout, "--- Gateway edge/http\n+++ Gateway edge/http\n@@ -1,5 +1,9 @@ Enrol Gateway edge/http\n", " apiVersion: gateway.networking.k8s.io/v1\n", "+spec:\n+  infrastructure:\n+    labels:\n+      istio.io/dataplane-mode: ambient\n",
			"--- /dev/null\n+++ Gateway shop/waypoint\n@@ -0,0 +1,", "@@ Create Gateway shop/waypoint\n", "+  gatewayClassName: istio-waypoint\n",
			"--- Service shop/orders\n+++ Service shop/orders\n", "+  labels:\n", "+    istio.io/use-waypoint: waypoint\n")
		if !strings.HasPrefix(r.stdout, "--- ") {
			t.Errorf("standard output has more than the diff: %s", r.stdout)
		}
	})
	t.Run("YAML is JSON's", func(t *testing.T) {
		r := isthmus(t, "plan", "--from", dir, "-o", "yaml")
		r.want(t, exitOK, r.stdout, "\nfromFiles: true\n", "\nkind: Plan\n")
		path := filepath.Join(t.TempDir(), "plan.yaml")
		if err := os.WriteFile(path, []byte(r.stdout), 0o600); err != nil {
			t.Fatal(err)
		}
		r = isthmus(t, "apply", "--plan", path)
		r.want(t, exitFailed, r.stderr, "made from files alone", path, "plan against the cluster")
	})
	t.Run("captured pods of a cluster are seen", func(t *testing.T) {
		seen := `
apiVersion: v1
kind: Pod
metadata: {name: http-1, namespace: edge, uid: p1, labels: {gateway.networking.k8s.io/gateway-name: http}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {serviceAccountName: http}
status: {phase: Running}
`
		r := isthmusWith(t, t.Context(), strings.NewReader(seen), "plan", "--from", dir, "--from", "-")
		r.want(t, exitOK, r.stdout, "Verify", "Gateway edge/http", "1 of 1 pods are captured")
	})
	t.Run("a policy was looked at", func(t *testing.T) {
		policy := "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: all, namespace: elsewhere}\n"
		r := isthmusWith(t, t.Context(), strings.NewReader(policy), "plan", "--from", dir, "--from", "-")
		if r.code != exitOK || strings.Contains(r.stderr, "AuthorizationPolicy") {
			t.Errorf("it says %s", r.stderr)
		}
	})
	t.Run("the mesh's configuration counts", func(t *testing.T) {
		config := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata: {mesh: 'trustDomain: corp.example'}\n"
		r := isthmusWith(t, t.Context(), strings.NewReader(config), "plan", "--from", dir, "--from", "-")
		if r.code != exitOK || strings.Contains(r.stderr, "mesh's configuration") {
			t.Errorf("it says %s", r.stderr)
		}
		r = isthmusWith(t, t.Context(), strings.NewReader(config), "plan", "--from", dir, "--from", "-", "--trust-domain", "other.example")
		r.want(t, exitFailed, r.stderr, "--trust-domain says other.example, and the mesh's configuration corp.example", "ConfigMap istio-system/istio")
	})
}

// TestWhatIsNoFileIsLeftOut: of a folder. What is named itself is read, as <(...) of a shell is a pipe.
func TestWhatIsNoFileIsLeftOut(t *testing.T) {
	dir := folder(t, map[string]string{"edge.yaml": paperEdge, "elsewhere/cluster": paperCluster})
	pipe, link := filepath.Join(dir, "pipe.yaml"), filepath.Join(dir, "link.yaml")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{link: "elsewhere/cluster", filepath.Join(dir, "folder.yaml"): "elsewhere"} {
		if err := os.Symlink(to, name); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan result, 1)
	go func() { done <- isthmus(t, "plan", "--from", dir) }()
	select {
	case r := <-done:
		r.want(t, exitOK, r.stdout, "Plan of AmbientEdge edge/public", "Service shop/orders")
		r.want(t, exitOK, r.stderr, "folder.yaml is no regular file, and is left out", "pipe.yaml is no regular file, and is left out")
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for somebody to write into the pipe")
	}
	go func() { _ = os.WriteFile(pipe, []byte(paperEdge), 0o600) }()
	r := isthmus(t, "plan", "--from", pipe, "--from", link)
	r.want(t, exitOK, r.stdout, "Plan of AmbientEdge edge/public")
}

// TestTheExampleAsksForAllKinds: a kind that a plan depends on, and that is not asked for, is none for a plan from files.
func TestTheExampleAsksForAllKinds(t *testing.T) {
	scheme, err := ctl.Scheme()
	if err != nil {
		t.Fatal(err)
	}
	r := &listedReader{paperReader: paperReader{world: &paperWorld{}, scheme: scheme}, resources: map[string]bool{}}
	if _, err := ctl.Observe(t.Context(), r, &v1alpha1.AmbientEdge{}); err != nil {
		t.Fatal(err)
	}
	if len(r.resources) < 10 {
		t.Fatalf("a plan depends on %v alone", r.resources)
	}
	asked := map[string]bool{}
	for line := range strings.Lines(planExample) {
		if list, is := strings.CutPrefix(strings.TrimSpace(line), "kinds="); is {
			for name := range strings.SplitSeq(list, ",") {
				name, _, _ = strings.Cut(name, ".")
				asked[name] = true
			}
		}
	}
	for name := range r.resources {
		if !asked[name] {
			t.Errorf("the example does not ask for %s: %v", name, asked)
		}
	}
}

// listedReader keeps which resources are listed, but for those of vendors, which few clusters know.
type listedReader struct {
	paperReader
	mu        sync.Mutex
	resources map[string]bool
}

func (r *listedReader) List(ctx context.Context, to client.ObjectList, opts ...client.ListOption) error {
	if _, vendors := to.(*unstructured.UnstructuredList); !vendors {
		gvk, err := apiutil.GVKForObject(to, r.scheme)
		if err != nil {
			return err
		}
		gvk.Kind = strings.TrimSuffix(gvk.Kind, "List")
		resource, _ := meta.UnsafeGuessKindToResource(gvk)
		r.mu.Lock()
		r.resources[strings.Replace(resource.Resource, "gatewaies", "gateways", 1)] = true
		r.mu.Unlock()
	}
	return r.paperReader.List(ctx, to, opts...)
}

func TestWhyTheMeshsConfigurationIsAssumed(t *testing.T) {
	dir := folder(t, map[string]string{"edge.yaml": paperEdge, "cluster.yaml": paperCluster})
	const config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\n"
	for _, c := range []struct{ name, text, want string }{
		{"not there", "", "is not in the files: trust domain cluster.local"},
		{"no key mesh", config + "data: {other: a}\n", `it has no key mesh, but ["other"]`},
		{"no YAML", config + "data: {mesh: 'trustDomain: ['}\n", "cannot be read (read ConfigMap istio-system/istio, key mesh:"},
		{"a wrong type", config + "data: {mesh: {trustDomain: corp.example}}\n", "ConfigMap istio-system/istio is malformed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := isthmusWith(t, t.Context(), strings.NewReader(c.text), "plan", "--from", dir, "--from", "-")
			r.want(t, exitOK, r.stderr, "note: the mesh's configuration", c.want, "are assumed")
			if told := strings.Contains(r.stderr, "configuration is not in the files"); told != (c.text == "") {
				t.Errorf("it says %s", r.stderr)
			}
		})
	}
}

func TestPlanFromFilesThatMakeNoSense(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"no YAML", paperEdge + "---\na: b\n c: d\n", []string{"this is no YAML", "x.yaml:10", "line 10"}},
		{"a key twice", paperEdge + "---\na: b\na: c\n", []string{"this is no YAML", "x.yaml:10", `"a" already set`}},
		{"no object", paperEdge + "---\na: b\n", []string{"no object of Kubernetes", "x.yaml:9", "apiVersion, kind and metadata.name"}},
		{"no name", paperEdge + "---\napiVersion: v1\nkind: Service\n", []string{"this Service has no name", "x.yaml:9"}},
		{"a wrong type", paperEdge + "---\napiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: 80}\n", []string{"Service default/a is malformed", "x.yaml:12", "spec.ports takes a list"}},
		{"an unknown field of an AmbientEdge", strings.Replace(paperEdge, "mode:", "mood:", 1), []string{"this AmbientEdge is malformed", "x.yaml:1", `unknown field "spec.mood"`}},
		{"no AmbientEdge", "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n", []string{"there is no AmbientEdge"}},
		{"two", paperEdge + "---\n" + strings.Replace(paperEdge, "public", "other", 1), []string{"more than one AmbientEdge: edge/public, edge/other", "name one of them"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := isthmus(t, "plan", "--from", folder(t, map[string]string{"x.yaml": c.text}))
			r.want(t, exitFailed, r.stderr, c.want...)
		})
	}
	r := isthmus(t, "plan", "--from", t.TempDir())
	r.want(t, exitFailed, r.stderr, "no objects in this folder", "*.yaml")
	r = isthmus(t, "plan", "--from", "/nonexistent/x")
	r.want(t, exitFailed, r.stderr, "/nonexistent/x", "no such file")
	r = isthmus(t, "plan", "-f", "-", "--from", "-")
	r.want(t, exitUsage, r.stderr, "standard input is for -f or for --from")
	r = isthmus(t, "plan", "other/edge", "--from", folder(t, map[string]string{"x.yaml": paperEdge}))
	r.want(t, exitFailed, r.stderr, "there is no AmbientEdge other/edge")
}

// TestManyDocumentsTakeNoLongerEach: what a document takes does not grow with the lines before it.
func TestManyDocumentsTakeNoLongerEach(t *testing.T) {
	const doc = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n"
	each := func(n int) uint64 {
		text := strings.Repeat(doc+strings.Repeat("\n", 200)+"---\n", n) + doc
		w := &paperWorld{strict: true}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := w.read(strings.NewReader(text), "-"); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		if at := w.objects[n].where; at != fmt.Sprintf("standard input:%d", 204*n+1) {
			t.Errorf("the last of %d documents is at %s", n+1, at)
		}
		return (after.TotalAlloc - before.TotalAlloc) / uint64(n)
	}
	if few, many := each(100), each(1000); many > 2*few {
		t.Errorf("each of 100 documents takes %d bytes, and each of 1000 takes %d", few, many)
	}
}

func TestTheLastOfTwoCounts(t *testing.T) {
	dir := folder(t, map[string]string{"a.yaml": paperEdge + "---\n" + paperCluster, "b.yaml": strings.Replace(paperEdge, "mode: Manage", "mode: Observe", 1)})
	r := isthmus(t, "plan", "--from", dir)
	r.want(t, exitOK, r.stdout, "mode Observe")
	r.want(t, exitOK, r.stderr, "AmbientEdge edge/public is in the files twice", "b.yaml:1 counts", "a.yaml:1 does not")
}

func TestDiffLines(t *testing.T) {
	for _, c := range []struct{ name, before, after, want string }{
		{"nothing", "a", "a", " a"},
		{"more", "a c", "a b c", " a +b  c"},
		{"less", "a b c", "a c", " a -b  c"},
		{"other", "a b", "a c", " a -b +c"},
		{"all new", "", "a b", "+a +b"},
		{"all gone", "a b", "", "-a -b"},
	} {
		if got := strings.Join(diffLines(strings.Fields(c.before), strings.Fields(c.after)), " "); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
