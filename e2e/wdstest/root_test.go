package wdstest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	corev1 "k8s.io/api/core/v1"
	k8s "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
)

// replaceRoot gives istiod another root while dials go on, as an operator would: it is trusted beside the old one, then certificates are issued by it, then
// the old one goes. Istiod looks for its authority in the folder plugged when it starts, so that each step is a restart, too.
func replaceRoot(t *testing.T, m *mesh.Mesh, plugged string, c client, tr *traffic, sources ...*identity.Source) {
	t.Helper()
	td := spiffeid.RequireTrustDomainFromString("cluster.local")
	own := &corev1.Secret{}
	if err := m.Client().Get(t.Context(), k8s.ObjectKey{Namespace: "istio-system", Name: "istio-ca-secret"}, own); err != nil {
		t.Fatal(err)
	}
	next := identitytest.NewCA(td)
	chain, key := next.Intermediate().Issuer()
	before := map[string][]byte{"ca-cert.pem": own.Data["ca-cert.pem"], "ca-key.pem": own.Data["ca-key.pem"], "cert-chain.pem": own.Data["ca-cert.pem"]}
	after := map[string][]byte{"ca-cert.pem": identitytest.PEM(chain[0]), "ca-key.pem": identitytest.KeyPEM(key), "cert-chain.pem": identitytest.PEM(append(chain, next.Root)...)}
	oldRoot, newRoot := own.Data["ca-cert.pem"], identitytest.PEM(next.Root)

	roots := func(s *identity.Source) int {
		b, err := s.GetX509BundleForTrustDomain(td)
		if err != nil {
			return 0
		}
		return len(b.X509Authorities())
	}
	ofNext := func(s *identity.Source) bool {
		svid, err := s.GetX509SVID()
		if err != nil {
			return false
		}
		_, _, err = x509svid.Verify(svid.Certificates, next.Bundle())
		return err == nil
	}
	for _, step := range []struct {
		what   string
		issuer map[string][]byte
		roots  [][]byte
		done   func(*identity.Source) bool
	}{
		{"the new root is trusted, too", before, [][]byte{oldRoot, newRoot}, func(s *identity.Source) bool { return roots(s) == 2 && !ofNext(s) }},
		{"certificates are of the new root", after, [][]byte{newRoot, oldRoot}, func(s *identity.Source) bool { return roots(s) == 2 && ofNext(s) }},
		{"the old root is gone", after, [][]byte{newRoot}, func(s *identity.Source) bool { return roots(s) == 1 && ofNext(s) }},
	} {
		files := map[string][]byte{}
		for name, text := range step.issuer {
			files[name] = text
		}
		for _, root := range step.roots {
			files["root-cert.pem"] = append(files["root-cert.pem"], root...)
		}
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(plugged, name), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		dials := tr.dials.Load()
		if err := m.StopIstiod(); err != nil {
			t.Fatal(err)
		}
		if err := m.StartIstiod(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, s := range sources {
			until(t, step.what, func() bool { return step.done(s) || t.Failed() })
		}
		until(t, "istiod speaks to us again", func() bool { return c.Stats().Online || t.Failed() })
		n := tr.dials.Load()
		until(t, "dials after it", func() bool { return tr.dials.Load() > n+50 || t.Failed() })
		t.Logf("%s: %d dials meanwhile", step.what, tr.dials.Load()-dials)
	}
}
