package clitest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/e2e/capture"
	"github.com/isthmus-mesh/isthmus/e2e/envoyshim"
	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/mesh/meshtest"
	"github.com/isthmus-mesh/isthmus/e2e/node"
	"github.com/isthmus-mesh/isthmus/e2e/programs"
	"github.com/isthmus-mesh/isthmus/e2e/story/apps"
	"github.com/isthmus-mesh/isthmus/e2e/world"
	"github.com/isthmus-mesh/isthmus/manifests"
)

func TestMain(m *testing.M) {
	world.Enter(mesh.Funcs(capture.Funcs(), envoyshim.Funcs(), world.Funcs{"orders": apps.Orders}))
	shared.mesh.Start = start
	code := meshtest.Main(m, &shared.mesh)
	if shared.dir != "" {
		os.RemoveAll(shared.dir)
	}
	os.Exit(code)
}

// shared is the mesh and the binary of all tests.
var shared struct {
	mesh   meshtest.Shared
	binary string
	envoy  bool // there are waypoints
	dir    string
}

var shop = `
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Namespace
metadata: {name: edge}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: gateway, namespace: edge}
---` + apps.OrdersObjects("shop", "") + `
apiVersion: v1
kind: Service
metadata: {name: empty, namespace: shop}
spec:
  selector: {app: nobody}
  ports: [{name: http, port: 80, targetPort: 8080}]
`

// cluster is a mesh with a shop in it, and the files of a gateway's account.
type cluster struct {
	*mesh.Mesh
	t            *testing.T
	token, roots string
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{Mesh: shared.mesh.Get(t), t: t, roots: filepath.Join(shared.dir, "roots.pem")}
	c.token = c.newToken("edge", "gateway", "istio-ca")
	return c
}

func start(ctx context.Context) (m *mesh.Mesh, err error) {
	if shared.dir, err = os.MkdirTemp("", "isthmus-clitest-"); err != nil {
		return m, err
	}
	if shared.binary, err = programs.Isthmus(ctx, shared.dir, os.Stderr); err != nil {
		return m, err
	}
	set, err := programs.Ensure(ctx, programs.All(), os.Stderr)
	if err != nil {
		return m, err
	}
	images := map[string]node.Image{
		"orders":        {Func: "orders"},
		manifests.Image: {Entrypoint: []string{"/isthmus"}, Files: map[string]string{"/isthmus": shared.binary}},
	}
	if shared.envoy = set.Path(programs.Envoy) != ""; shared.envoy {
		if images[programs.ProxyImage], err = envoyshim.Image(set); err != nil {
			return m, err
		}
	}
	m, err = mesh.Start(ctx, mesh.Options{
		Images: images, MeshConfig: envoyshim.MeshConfig,
		Capture: capture.Hook(capture.Mesh{Roots: func() []byte { return m.RootPEM }}),
	})
	if err != nil {
		return m, err
	}
	if err := os.WriteFile(filepath.Join(shared.dir, "roots.pem"), m.RootPEM, 0o600); err != nil {
		return m, err
	}
	if err := m.Apply(ctx, shop); err != nil {
		return m, err
	}
	if _, err := m.Node.WaitReady(ctx, "shop", "orders"); err != nil {
		return m, err
	}
	return m, m.Node.WaitCaptured(ctx, "shop", "orders", true)
}

// newToken writes a token of an account into a file.
func (c *cluster) newToken(namespace, name, audience string) string {
	c.t.Helper()
	sa := &corev1.ServiceAccount{}
	sa.Namespace, sa.Name = namespace, name
	tr := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{audience}}}
	if err := c.Client().SubResource("token").Create(c.t.Context(), sa, tr); err != nil {
		c.t.Fatal(err)
	}
	path := filepath.Join(c.t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(tr.Status.Token), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
}

// result is what a command said and how it ended.
type result struct {
	stdout, stderr string
	code           int
	took           time.Duration
}

// isthmus runs the command in the mesh's network, as the administrator of the cluster.
func (c *cluster) isthmus(args ...string) result {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, shared.binary, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	begin := time.Now()
	if err := c.NS.Start(cmd); err != nil {
		c.t.Fatal(err)
	}
	err := cmd.Wait()
	r := result{stdout: stdout.String(), stderr: stderr.String(), took: time.Since(begin)}
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		r.code = e.ExitCode()
	} else if err != nil {
		c.t.Fatal(err)
	}
	c.t.Logf("isthmus %s: exit code %d after %v\n%s%s", strings.Join(args, " "), r.code, r.took.Round(time.Millisecond), r.stdout, r.stderr)
	return r
}

// dial is isthmus dial as the gateway.
func (c *cluster) dial(target string, more ...string) result {
	c.t.Helper()
	return c.isthmus(append([]string{"dial", target, "--istiod", c.Istiod.XDS.String(), "--token-file", c.token, "--ca-roots", c.roots, "--timeout", "3s"}, more...)...)
}

// want checks the code, and that all parts are said in order.
func (r result) want(t *testing.T, code int, stream string, parts ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d", r.code, code)
	}
	for _, p := range parts {
		at := strings.Index(stream, p)
		if at < 0 {
			t.Errorf("%q is not said (in this order)", p)
			return
		}
		stream = stream[at+len(p):]
	}
}
