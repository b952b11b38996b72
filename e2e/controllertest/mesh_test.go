package controllertest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/run"
	"github.com/isthmus-mesh/isthmus/e2e/capture"
	"github.com/isthmus-mesh/isthmus/e2e/envoyshim"
	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/mesh/meshtest"
	"github.com/isthmus-mesh/isthmus/e2e/node"
	"github.com/isthmus-mesh/isthmus/e2e/programs"
	"github.com/isthmus-mesh/isthmus/e2e/story/apps"
	"github.com/isthmus-mesh/isthmus/e2e/world"
	"github.com/isthmus-mesh/isthmus/identity/istioca"
	"github.com/isthmus-mesh/isthmus/manifests"
)

// shopWorld is a backend in the mesh, and a waypoint that nobody is led to yet.
var shopWorld = `
{apiVersion: v1, kind: Namespace, metadata: {name: EDGE}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: SHOP, labels: {istio.io/dataplane-mode: ambient}, annotations: {isthmus.dev/edges: EDGE/public}}}
---` + apps.OrdersObjects("SHOP", "") + `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: shared, namespace: SHOP, labels: {istio.io/waypoint-for: service}}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
`

// wholeWorld is a gateway outside of the mesh, before the shop.
var wholeWorld = shopWorld + `
{apiVersion: v1, kind: ServiceAccount, metadata: {name: gateway, namespace: EDGE}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: gateway, namespace: EDGE}
spec:
  selector: {matchLabels: {app: gateway}}
  template:
    metadata: {labels: {app: gateway}}
    spec:
      serviceAccountName: gateway
      automountServiceAccountToken: false
      containers: [{name: gateway, image: orders, readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}}]
`

const wholeEdge = `
apiVersion: isthmus.dev/v1alpha1
kind: AmbientEdge
metadata: {name: public, namespace: EDGE}
spec:
  workloadRefs: [{kind: Deployment, name: gateway}]
  mode: Manage
  backends: {services: [{namespace: SHOP, name: orders}]}
  waypoint: {policy: Use, name: shared}
`

// noRetries has Istio's own gateways and waypoints ask once: what is lost is seen.
const noRetries = "defaultHttpRetryPolicy: {attempts: 0}\n"

// tokenAge is how long a pod of a whole mesh has the same token.
const tokenAge = 3 * time.Second

// wholeMesh starts a mesh with istiod, captured pods and real waypoints, and the controller that asks them with an identity of the mesh.
func wholeMesh(t *testing.T) *mesh.Mesh {
	t.Helper()
	set, err := programs.Ensure(t.Context(), programs.All(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	if set.Path(programs.Envoy) == "" {
		t.Skip("there is no Envoy") // with CI=true Ensure has failed
	}
	proxy, err := envoyshim.Image(set)
	if err != nil {
		t.Fatal(err)
	}
	var m *mesh.Mesh
	m = meshtest.New(t, mesh.Options{
		Quick: true, Images: map[string]node.Image{"orders": {Func: "orders"}, "caller": {Func: "caller"}, programs.ProxyImage: proxy}, MeshConfig: envoyshim.MeshConfig + noRetries,
		RotateTokens: tokenAge, Capture: capture.Hook(capture.Mesh{Roots: func() []byte { return m.RootPEM }}),
	})
	all, err := manifests.Install()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Apply(t.Context(), string(all)); err != nil {
		t.Fatal(err)
	}
	sa := &corev1.ServiceAccount{}
	sa.Namespace, sa.Name = manifests.Namespace, manifests.Controller
	id, err := istioca.New(t.Context(), istioca.Config{
		Addresses: []string{m.Istiod.CA.String()}, Roots: func() ([]byte, error) { return m.RootPEM, nil }, DialContext: m.NS.DialContext,
		ID: spiffeid.RequireFromString("spiffe://cluster.local/ns/" + sa.Namespace + "/sa/" + sa.Name),
		Token: func(ctx context.Context) (string, error) {
			r := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{"istio-ca"}}}
			err := m.Client().SubResource("token").Create(ctx, sa.DeepCopy(), r)
			return r.Status.Token, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { id.Close() })
	stop, err := runController(m, account, run.Options{Prober: &run.HBONEProber{Identity: id, NetDial: m.NS.DialContext}}, leaveOwn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return m
}

// wholeSite is one of a whole mesh: istiod, Envoys and pods take their time beside others.
func wholeSite(t *testing.T, m *mesh.Mesh, name string) *site {
	t.Helper()
	s := newSiteOf(t, m, name)
	s.patience = time.Minute
	return s
}

// readyInTime holds an AmbientEdge to its promise.
func readyInTime(t *testing.T, took time.Duration) {
	t.Helper()
	const promise = 5 * time.Second
	seen := fmt.Sprintf("an AmbientEdge is ready in %v where the waypoint is up: it took %v", promise, took.Round(10*time.Millisecond))
	if took > promise && world.Judge(t, seen) {
		t.Error(seen)
	}
}

func TestEdgesOfAWholeMesh(t *testing.T) {
	m := wholeMesh(t)
	t.Run("a gateway that is captured", func(t *testing.T) { capturedGateway(t, wholeSite(t, m, "whole")) })
	t.Run("a gateway that is locked", func(t *testing.T) { lockedGateway(t, wholeSite(t, m, "locked")) })
	t.Run("a gateway that is paired", func(t *testing.T) { pairedSwitch(t, wholeSite(t, m, "paired")) })
	t.Run("a gateway that embeds hbone", func(t *testing.T) { nativeGateway(t, wholeSite(t, m, "native")) })
	t.Run("Istio's own ingress gateway", func(t *testing.T) { istioIngress(t, wholeSite(t, m, "ingress")) })
	t.Run("changes under traffic", func(t *testing.T) { changesUnderTraffic(t, wholeSite(t, m, "change")) })
	t.Run("a gateway that gets what its routes call", func(t *testing.T) { scopedGateway(t, wholeSite(t, m, "scoped")) })
	t.Run("a canary without a first waypoint", func(t *testing.T) { canaryAlone(t, wholeSite(t, m, "canary")) })
}

func capturedGateway(t *testing.T, s *site) {
	s.apply(wholeWorld)
	for _, d := range []types.NamespacedName{{Namespace: s.edge, Name: "gateway"}, {Namespace: s.shop, Name: "shared"}} {
		s.available(d)
	}
	if err := s.mesh.Node.WaitCaptured(t.Context(), s.shop, "orders", true); err != nil {
		t.Fatal(err)
	}
	before := s.state(false)

	s.apply(wholeEdge)
	e, took := s.ready("public", v1alpha1.ReasonDone)
	t.Logf("ready after %v", took)
	readyInTime(t, took)
	if g := e.Status.Gateways; len(g) != 1 || g[0].Captured != 1 || g[0].Identity != "spiffe://cluster.local/ns/"+s.edge+"/sa/gateway" {
		t.Errorf("gateways are %+v", g)
	}

	t.Run("undo waits for the policy of the waypoint", func(t *testing.T) {
		s.apply(strings.NewReplacer("GROUP", "gateway.networking.k8s.io", "KIND", "Gateway", "NAME", "shared").Replace(policy))
		s.delete(s.theEdge("public"))
		s.ready("public", v1alpha1.ReasonUndoHalted)
		s.delete(object("security.istio.io/v1", "AuthorizationPolicy", s.shop, "only-public"))
	})
	t.Logf("undone after %v", s.gone(s.theEdge("public")))
	s.same(before, false)
	var pods corev1.PodList
	if err := s.c.List(t.Context(), &pods, client.InNamespace(s.edge), client.MatchingLabels{"app": "gateway"}); err != nil || len(pods.Items) != 1 {
		t.Fatalf("%d pods, %v", len(pods.Items), err)
	}
	if err := s.mesh.Node.WaitCaptured(t.Context(), s.edge, pods.Items[0].Name, false); err != nil {
		t.Error(err)
	}
}
