package controltest

import (
	"context"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/isthmus-mesh/isthmus/controller/run"
	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/identity/istioca"
	"github.com/isthmus-mesh/isthmus/manifests"
)

// Run runs the controller with the rights of its own account, which package manifests' objects give it, until the test ends. It asks waypoints with an
// identity of the mesh.
func Run(t *testing.T, m *mesh.Mesh) {
	t.Helper()
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
	cfg, err := m.UserConfig("system:serviceaccount:"+sa.Namespace+":"+sa.Name, "system:serviceaccounts", "system:authenticated")
	if err != nil {
		t.Fatal(err)
	}
	scheme, err := run.Scheme()
	if err != nil {
		t.Fatal(err)
	}
	skip := true // the name of the controller is one of metrics; a test may run again
	o := ctrl.Options{Scheme: scheme, Metrics: server.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: &skip}}
	denied := run.Configure(cfg, &o)
	mgr, err := ctrl.NewManager(cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Setup(mgr, run.Options{Prober: &run.HBONEProber{Identity: id, NetDial: m.NS.DialContext}, Denied: denied}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the controller ended: %v", err)
		}
	})
}

// Client reads and writes the API server directly, as the administrator. It knows AmbientEdges too.
func Client(t *testing.T, m *mesh.Mesh) client.Client {
	t.Helper()
	scheme, err := run.Scheme()
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(m.Config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
