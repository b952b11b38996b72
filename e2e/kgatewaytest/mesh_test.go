package kgatewaytest

import (
	"os"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/e2e/capture"
	"github.com/isthmus-mesh/isthmus/e2e/controltest"
	"github.com/isthmus-mesh/isthmus/e2e/envoyshim"
	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/mesh/meshtest"
	"github.com/isthmus-mesh/isthmus/e2e/node"
	"github.com/isthmus-mesh/isthmus/e2e/programs"
	"github.com/isthmus-mesh/isthmus/e2e/world"
	"github.com/isthmus-mesh/isthmus/manifests"
)

// Images as kgateway's chart names them: the controller's, and that of the proxies which it deploys.
const (
	registry        = "cr.kgateway.dev/kgateway-dev"
	controllerImage = registry + "/kgateway:" + programs.KgatewayVersion
	proxyImage      = registry + "/envoy-wrapper:" + programs.KgatewayVersion
)

// Where kgateway's controller is, and the container of its proxies' pods.
const (
	system         = "kgateway-system"
	proxyContainer = "kgateway-proxy"
)

// install is what kgateway's chart would install, as far as it matters here. Its account may do more than the chart's. FLAGS are further
// settings of the controller; the chart's defaults have none.
const install = `
{apiVersion: v1, kind: Namespace, metadata: {name: kgateway-system}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: kgateway, namespace: kgateway-system}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: kgateway}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}, subjects: [{kind: ServiceAccount, name: kgateway, namespace: kgateway-system}]}
---
{apiVersion: v1, kind: Service, metadata: {name: kgateway, namespace: kgateway-system}, spec: {selector: {kgateway: kgateway}, ports: [{name: grpc-xds, port: 9977}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: kgateway, namespace: kgateway-system}
spec:
  selector: {matchLabels: {kgateway: kgateway}}
  template:
    metadata: {labels: {kgateway: kgateway}}
    spec:
      serviceAccountName: kgateway
      terminationGracePeriodSeconds: 1
      containers:
      - name: controller
        image: ` + controllerImage + `
        readinessProbe: {httpGet: {path: /readyz, port: 9093}, periodSeconds: 1}
        env:
        - {name: POD_NAMESPACE, value: kgateway-system}
        - {name: KGW_DEFAULT_IMAGE_REGISTRY, value: ` + registry + `}
        - {name: KGW_DEFAULT_IMAGE_TAG, value: ` + programs.KgatewayVersion + `}
        - {name: KGW_DISABLE_LEADER_ELECTION, value: "true"}
        - {name: KGW_LISTENER_BIND_IPV6, value: "false"}
FLAGS
`

// withWaypoints is the one of FLAGS without which kgateway never sends to a waypoint.
const withWaypoints = `        - {name: KGW_ENABLE_WAYPOINT, value: "true"}`

func installed(flags string) string { return strings.Replace(install, "FLAGS", flags, 1) }

// start starts a mesh in which kgateway runs with the defaults of its chart, and the controller, with the rights of its own account.
func start(t *testing.T) *mesh.Mesh {
	t.Helper()
	set, err := programs.Ensure(t.Context(), append(programs.All(), programs.KgatewayEdge()...), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	if set.Path(programs.Envoy) == "" {
		t.Skip("there is no Envoy") // with CI=true Ensure has failed
	}
	var m *mesh.Mesh
	m = meshtest.New(t, mesh.Options{
		Quick: true, Images: images(t, set), MeshConfig: envoyshim.MeshConfig,
		Capture: capture.Hook(capture.Mesh{Roots: func() []byte { return m.RootPEM }}),
	})
	own, err := manifests.Install()
	if err != nil {
		t.Fatal(err)
	}
	crds, err := os.ReadFile(set.Path(programs.KgatewayCRDs))
	if err != nil {
		t.Fatal(err)
	}
	for _, objects := range []string{string(crds), installed(""), string(own)} {
		if err := m.Apply(t.Context(), objects); err != nil {
			t.Fatal(err)
		}
	}
	controltest.Run(t, m)
	return m
}

// images are what the mesh's pods run. What looks into the pods of kgateway is in its images too.
func images(t *testing.T, set programs.Set) map[string]node.Image {
	t.Helper()
	istio, err := envoyshim.Image(set)
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	with := func(path string, program programs.Name, args ...string) node.Image {
		return node.Image{
			Entrypoint: append([]string{path}, args...), Env: []string{world.FuncEnv + "=" + askFunc},
			Files: map[string]string{path: set.Path(program), askPath: own},
		}
	}
	return map[string]node.Image{
		"orders":            {Func: "orders"},
		"inside":            {Func: "inside"},
		programs.ProxyImage: istio,
		controllerImage:     with("/opt/kgateway/kgateway", programs.Kgateway),
		proxyImage:          with("/opt/kgateway/envoy", programs.Envoy, "-c", "/etc/envoy/envoy.yaml"),
	}
}
