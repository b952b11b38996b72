package identitytest

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/identity/istioca"
)

// manyIdentities shows how one process holds an identity for each of several gateways: it may ask the API server for tokens of their service accounts, by
// name and for nobody else, and does so whenever a certificate is due.
func manyIdentities(t *testing.T, m *mesh.Mesh) {
	user, err := m.UserConfig("bridge")
	if err != nil {
		t.Fatal(err)
	}
	api, err := client.New(user, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"blue", "green", "red"}
	var accounts []*corev1.ServiceAccount
	for _, name := range append(names, "foreign") {
		accounts = append(accounts, account(t, m, "edge", name))
	}
	role := &rbacv1.Role{Rules: []rbacv1.PolicyRule{{
		APIGroups: []string{""}, Resources: []string{"serviceaccounts/token"}, ResourceNames: names, Verbs: []string{"create"},
	}}}
	role.Name, role.Namespace = "bridge-identities", "edge"
	binding := &rbacv1.RoleBinding{
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role.Name},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: "bridge"}},
	}
	binding.Name, binding.Namespace = role.Name, role.Namespace
	for _, o := range []client.Object{role, binding} {
		if err := m.Client().Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.WaitGranted(t.Context(), "edge", "bridge", role.Rules...); err != nil {
		t.Fatal(err)
	}
	by := func(sa *corev1.ServiceAccount) istioca.Config {
		cfg := config(m, "")
		cfg.ID = spiffeid.RequireFromPathf(gateway.TrustDomain(), "/ns/edge/sa/%s", sa.Name)
		cfg.Token = func(ctx context.Context) (string, error) {
			seconds := int64(600)
			r := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{"istio-ca"}, ExpirationSeconds: &seconds}}
			if err := api.SubResource("token").Create(ctx, sa, r); err != nil {
				return "", fmt.Errorf("ask for a token of service account %s/%s: %w", sa.Namespace, sa.Name, err)
			}
			return r.Status.Token, nil
		}
		return cfg
	}
	for i, sa := range accounts[:len(names)] {
		if svid, err := start(t, by(sa)).GetX509SVID(); err != nil || svid.ID.Path() != "/ns/edge/sa/"+names[i] {
			t.Errorf("%s: got %v, %v", names[i], svid, err)
		}
	}
	err = once(t, by(accounts[len(names)]))
	if err == nil || !strings.Contains(err.Error(), "ask for a token of service account edge/foreign") || !strings.Contains(err.Error(), "forbidden") {
		t.Errorf("an account that it has no right to: %v", err)
	}
}

// impersonate is a node agent: istiod trusts its account, and gives it what pods of its node are, and nothing else.
func impersonate(t *testing.T, m *mesh.Mesh, isthmus string) {
	agent := account(t, m, "istio-system", "agent")
	here, elsewhere := account(t, m, "edge", "here"), account(t, m, "edge", "elsewhere")
	own := pod(t, m, agent, "one")
	pod(t, m, here, "one")
	pod(t, m, elsewhere, "two")
	seconds := int64(600)
	r := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		Audiences: []string{"istio-ca"}, ExpirationSeconds: &seconds,
		BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: own.Name, UID: own.UID},
	}}
	if err := m.Client().SubResource("token").Create(t.Context(), agent, r); err != nil {
		t.Fatal(err)
	}
	cfg := config(m, r.Status.Token)
	cfg.Impersonate = true
	cfg.ID = spiffeid.RequireFromPath(gateway.TrustDomain(), "/ns/edge/sa/here")
	if svid, err := start(t, cfg).GetX509SVID(); err != nil || svid.ID != cfg.ID {
		t.Errorf("got %v, %v", svid, err)
	}
	line := newCommandLine(t, m, isthmus)
	as := func(name string) []string {
		return append(line.istiod(r.Status.Token), "--impersonate", "--service-account", "edge/"+name)
	}
	line.is(line.run(as("here")...), cfg.ID)
	said := line.run(as("elsewhere")...)
	said.Want(t, 1, said.Stderr, "gave no certificate for spiffe://cluster.local/ns/edge/sa/elsewhere", "with --impersonate it is the node agent's own")
	cfg.ID = spiffeid.RequireFromPath(gateway.TrustDomain(), "/ns/edge/sa/elsewhere")
	if err := once(t, cfg); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a pod of another node: %v", err)
	}
}

// pod makes a Pod object on a node that does not exist: nobody runs it.
func pod(t *testing.T, m *mesh.Mesh, sa *corev1.ServiceAccount, node string) *corev1.Pod {
	t.Helper()
	p := &corev1.Pod{Spec: corev1.PodSpec{
		ServiceAccountName: sa.Name, NodeName: "nowhere-" + node, Containers: []corev1.Container{{Name: "none", Image: "none"}},
	}}
	p.Name, p.Namespace = sa.Name, sa.Namespace
	if err := m.Client().Create(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	return p
}
