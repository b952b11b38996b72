package clitest

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/e2e/capture"
	"github.com/isthmus-mesh/isthmus/e2e/command"
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
		Quick: true, Images: images, MeshConfig: envoyshim.MeshConfig,
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

// isthmus runs the command in the mesh's network, as the administrator of the cluster.
func (c *cluster) isthmus(args ...string) command.Result {
	c.t.Helper()
	return command.Run(c.t, shared.binary, c.NS, []string{"KUBECONFIG=" + c.Kubeconfig}, args...)
}

// dial is isthmus dial as the gateway.
func (c *cluster) dial(target string, more ...string) command.Result {
	c.t.Helper()
	return c.isthmus(append([]string{"dial", target, "--istiod", c.Istiod.XDS.String(), "--token-file", c.token, "--ca-roots", c.roots, "--timeout", "10s"}, more...)...)
}
