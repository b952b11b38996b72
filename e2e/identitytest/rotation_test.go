package identitytest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
)

// rotation gives istiod an authority of ours, under another root than before: who knows the root from the ConfigMap that istiod writes gets a
// certificate of the new one long before the old certificate ends, and trusts both roots as long as istiod names both. Istiod looks for the authority in the
// folder plugged, and for its list of revoked certificates. It returns the authority. Nothing that knows the mesh by its old root may come after it.
func rotation(t *testing.T, m *mesh.Mesh, plugged, token string) *identitytest.CA {
	cfg := config(m, token)
	cfg.TTL = time.Hour
	cfg.RootsInterval = 50 * time.Millisecond
	cfg.Roots = func() ([]byte, error) {
		c := &corev1.ConfigMap{}
		err := m.Client().Get(t.Context(), client.ObjectKey{Namespace: "edge", Name: "istio-ca-root-cert"}, c)
		return []byte(c.Data["root-cert.pem"]), err
	}
	s := start(t, cfg)
	old, err := x509bundle.Parse(gateway.TrustDomain(), m.RootPEM)
	if err != nil {
		t.Fatal(err)
	}

	next := identitytest.NewCA(gateway.TrustDomain())
	issuer := next.Intermediate()
	chain, key := issuer.Issuer()
	for name, text := range map[string][]byte{
		"ca-cert.pem":    identitytest.PEM(chain[0]),
		"ca-key.pem":     identitytest.KeyPEM(key),
		"cert-chain.pem": identitytest.PEM(append(chain, next.Root)...),
		"root-cert.pem":  append(identitytest.PEM(next.Root), m.RootPEM...),
		"ca-crl.pem":     append(identitytest.CRLPEM(issuer.CRL(nil)), identitytest.CRLPEM(next.CRL(nil))...),
	} {
		if err := os.WriteFile(filepath.Join(plugged, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.StopIstiod(); err != nil {
		t.Fatal(err)
	}
	if err := m.StartIstiod(t.Context()); err != nil {
		t.Fatal(err)
	}

	begin := time.Now()
	for end := time.After(60 * time.Second); ; {
		changed := s.Changed()
		svid, err := s.GetX509SVID()
		if err != nil {
			t.Fatal(err)
		}
		if id, _, err := x509svid.Verify(svid.Certificates, next.Bundle()); err == nil && id == gateway {
			break
		}
		select {
		case <-changed:
		case <-end:
			t.Fatalf("no certificate of the new root: %+v", s.Stats())
		}
	}
	t.Logf("a certificate of the new root %v after istiod was ready", time.Since(begin).Round(time.Millisecond))
	b, err := s.GetX509BundleForTrustDomain(gateway.TrustDomain())
	if err != nil || !b.HasX509Authority(next.Root) || !b.HasX509Authority(old.X509Authorities()[0]) || len(b.X509Authorities()) != 2 {
		t.Errorf("trusts %d roots, %v", len(b.X509Authorities()), err)
	}
	return issuer
}
