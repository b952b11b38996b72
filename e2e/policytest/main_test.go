package policytest

import (
	"context"
	"flag"
	"os"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/e2e/envoyshim"
	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/world"
)

var (
	rounds = flag.Int("rounds", 4, "how many sets of policies to try; each is asked thousands of times")
	seed   = flag.Uint64("seed", 1, "of what is random")
)

func TestMain(m *testing.M) {
	world.Enter(mesh.Funcs(envoyshim.Funcs()))
	flag.Parse()
	os.Exit(m.Run())
}

// token is one of a service account, which is made if need be, for istiod.
func token(t *testing.T, m *mesh.Mesh, namespace, name string) func(context.Context) (string, error) {
	t.Helper()
	if err := m.Apply(t.Context(), "{apiVersion: v1, kind: ServiceAccount, metadata: {name: "+name+", namespace: "+namespace+"}}"); err != nil {
		t.Fatal(err)
	}
	sa := &corev1.ServiceAccount{}
	sa.Name, sa.Namespace = name, namespace
	r := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{"istio-ca"}}}
	if err := m.Client().SubResource("token").Create(t.Context(), sa, r); err != nil {
		t.Fatal(err)
	}
	return func(context.Context) (string, error) { return r.Status.Token, nil }
}
