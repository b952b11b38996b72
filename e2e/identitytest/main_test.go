package identitytest

import (
	"context"
	"net"
	"os"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/world"
	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/istioca"
)

var gateway = spiffeid.RequireFromString("spiffe://cluster.local/ns/edge/sa/gateway")

func TestMain(m *testing.M) {
	world.Enter(mesh.Funcs())
	ctrl.SetLogger(logr.Discard())
	os.Exit(m.Run())
}

// account makes a service account, with its namespace.
func account(t *testing.T, m *mesh.Mesh, namespace, name string) *corev1.ServiceAccount {
	t.Helper()
	ns := &corev1.Namespace{}
	ns.Name = namespace
	sa := &corev1.ServiceAccount{}
	sa.Name, sa.Namespace = name, namespace
	for _, o := range []client.Object{ns, sa} {
		if err := m.Client().Create(t.Context(), o); client.IgnoreAlreadyExists(err) != nil {
			t.Fatal(err)
		}
	}
	return sa
}

// token asks the API server for a token, as the kubelet does.
func token(t *testing.T, m *mesh.Mesh, sa *corev1.ServiceAccount, audience string) string {
	t.Helper()
	r := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{audience}}}
	if err := m.Client().SubResource("token").Create(t.Context(), sa, r); err != nil {
		t.Fatal(err)
	}
	return r.Status.Token
}

// config is who the gateway is, with a token.
func config(m *mesh.Mesh, token string) istioca.Config {
	return istioca.Config{
		Addresses: []string{m.Istiod.CA.String()},
		Roots:     func() ([]byte, error) { return m.RootPEM, nil },
		Token:     func(context.Context) (string, error) { return token, nil },
		ID:        gateway,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return m.NS.DialContext(ctx, network, address)
		},
	}
}

// start gets an identity that ends with the test.
func start(t *testing.T, cfg istioca.Config) *identity.Source {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s, err := istioca.New(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
