package identitytest_test

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/isthmus-mesh/isthmus/identity/identitytest"
)

var (
	td    = spiffeid.RequireTrustDomainFromString("cluster.local")
	other = spiffeid.RequireTrustDomainFromString("other.example")
	me    = spiffeid.RequireFromString("spiffe://cluster.local/ns/edge/sa/gateway")
	he    = spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/orders")
)

// check is what a careful peer of a mesh looks at.
func check(chain []*x509.Certificate, bundles x509bundle.Source) error {
	id, chains, err := x509svid.Verify(chain, bundles)
	if err != nil {
		return err
	}
	opts := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	opts.Roots.AddCert(chains[0][len(chains[0])-1])
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	if _, err := chain[0].Verify(opts); err != nil {
		return err
	}
	if !strings.HasPrefix(id.Path(), "/ns/") {
		return &net.AddrError{Err: "is no service account", Addr: id.String()}
	}
	return nil
}

func TestGoodCertificates(t *testing.T) {
	ca, old := identitytest.NewCA(td), identitytest.NewCA(td)
	for name, c := range map[string]struct {
		issuer, trusted *identitytest.CA
		length          int
	}{
		"by the root":                          {ca, ca, 1},
		"by an intermediate":                   {ca.Intermediate(), ca, 2},
		"two intermediates":                    {ca.Intermediate().Intermediate(), ca, 3},
		"cross-signed, old trust":              {old.CrossSign(ca), old, 2},
		"cross-signed, new trust":              {old.CrossSign(ca), ca, 2},
		"by an intermediate's cross-signature": {old.Intermediate().CrossSign(ca), old, 3},
	} {
		svid := c.issuer.SVID(me, identitytest.Lifetime(time.Minute))
		if err := check(svid.Certificates, c.trusted.Bundle()); err != nil || svid.ID != me || len(svid.Certificates) != c.length {
			t.Errorf("%s: %d certificates, %v", name, len(svid.Certificates), err)
		}
		leaf := svid.Certificates[0]
		if left := time.Until(leaf.NotAfter); left > time.Minute || left < 50*time.Second {
			t.Errorf("%s: lives %v", name, left)
		}
		if !leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool }).Equal(svid.PrivateKey.Public()) {
			t.Errorf("%s: another key", name)
		}
	}
}

// What Issuer gives issues certificates that those who trust the authority accept.
func TestIssuer(t *testing.T) {
	ca := identitytest.NewCA(td)
	for name, by := range map[string]*identitytest.CA{"root": ca, "intermediate": ca.Intermediate()} {
		chain, key := by.Issuer()
		leaf := ca.SVID(me).Certificates[0]
		der, err := x509.CreateCertificate(rand.Reader, leaf, chain[0], leaf.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		again, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		if err := check(append([]*x509.Certificate{again}, chain...), ca.Bundle()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Each bad certificate is refused for what its name says, and only when it is made bad.
func TestBadCertificates(t *testing.T) {
	ca := identitytest.NewCA(td)
	bad := identitytest.Bad()
	for name, want := range map[string]string{
		"TwoURIs":     "more than one URI SAN",
		"NoURI":       "no URI SAN",
		"NotSPIFFE":   "scheme",
		"WrongPath":   "no service account",
		"Expired":     "expired or is not yet valid",
		"NotYetValid": "expired or is not yet valid",
		"WrongUsage":  "key usage",
	} {
		if bad[name] == nil {
			t.Errorf("Bad has no %s", name)
			continue
		}
		if err := check(ca.SVID(me, bad[name]).Certificates, ca.Bundle()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
		delete(bad, name)
	}
	for name := range bad {
		t.Errorf("%s is not tested", name)
	}
	if err := check(ca.SVID(me, identitytest.ValidIn(time.Minute)).Certificates, ca.Bundle()); err == nil || !strings.Contains(err.Error(), "not yet valid") {
		t.Errorf("ValidIn: got %v", err)
	}
	if err := check(identitytest.NewCA(td).SVID(me).Certificates, ca.Bundle()); err == nil {
		t.Error("another authority's certificate is accepted")
	}
}

func TestSource(t *testing.T) {
	ca, more := identitytest.NewCA(td), identitytest.NewCA(other)
	s := ca.Source(me)
	if svid, err := s.GetX509SVID(); err != nil || svid.ID != me {
		t.Errorf("got %v, %v", svid, err)
	}
	if _, err := s.GetX509BundleForTrustDomain(other); err == nil {
		t.Error("a stranger is trusted")
	}
	for name, change := range map[string]func(){
		"another identity": func() { s.Set(ca.SVID(he)) },
		"none":             func() { s.Set(nil) },
		"more trust":       func() { s.Trust(more) },
	} {
		changed := s.Changed()
		select {
		case <-changed:
			t.Errorf("%s: told too early", name)
		default:
		}
		change()
		select {
		case <-changed:
		default:
			t.Errorf("%s: not told", name)
		}
	}
	s.Set(nil)
	if _, err := s.GetX509SVID(); err == nil {
		t.Error("an identity where there is none")
	}
	if _, err := s.GetX509BundleForTrustDomain(other); err != nil {
		t.Error(err)
	}
	if s := ca.Source(me, more); s.Bundles().Len() != 2 || s.CA != ca {
		t.Errorf("%d bundles", s.Bundles().Len())
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			s.Set(ca.SVID(he))
			s.Trust(more)
			<-s.Changed()
		})
	}
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	for {
		select {
		case <-done:
			return
		case <-time.After(time.Millisecond):
			s.Set(ca.SVID(me))
		}
	}
}

// Two sources meet over TLS as go-spiffe does it.
func TestHandshake(t *testing.T) {
	ca := identitytest.NewCA(td)
	mine, his := ca.Source(me), ca.Intermediate().Source(he)
	a, b := net.Pipe()
	server := tls.Server(b, tlsconfig.MTLSServerConfig(his, his, tlsconfig.AuthorizeID(me)))
	client := tls.Client(a, tlsconfig.MTLSClientConfig(mine, mine, tlsconfig.AuthorizeID(he)))
	errs := make(chan error, 1)
	go func() { errs <- server.Handshake() }()
	if err := client.Handshake(); err != nil {
		t.Error(err)
	}
	if err := <-errs; err != nil {
		t.Error(err)
	}
}

func TestPEM(t *testing.T) {
	svid := identitytest.NewCA(td).Intermediate().SVID(me)
	text := identitytest.PEM(svid.Certificates...)
	got, err := x509svid.Parse(text, identitytest.KeyPEM(svid.PrivateKey))
	if err != nil || got.ID != me || len(got.Certificates) != 2 || !got.Certificates[0].Equal(svid.Certificates[0]) {
		t.Errorf("got %v, %v", got, err)
	}
	if block, rest := pem.Decode(identitytest.PEM()); block != nil || len(rest) != 0 {
		t.Errorf("got %v, %q", block, rest)
	}
}
