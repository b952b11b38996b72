package istiocatest_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	security "istio.io/api/security/v1alpha1"

	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/isthmus-mesh/isthmus/identity/identitytest/istiocatest"
)

var (
	td = spiffeid.RequireTrustDomainFromString("cluster.local")
	me = spiffeid.RequireFromString("spiffe://cluster.local/ns/edge/sa/gateway")
)

func start(t *testing.T, ca *identitytest.CA) *istiocatest.Server {
	t.Helper()
	s, err := istiocatest.New(ca)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// ask makes a call on a connection of its own, with header as it stands.
func ask(t *testing.T, s *istiocatest.Server, csr string, header ...string) (*security.IstioCertificateResponse, error) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.RootPEM())
	cc, err := grpc.NewClient(s.Address(), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: istiocatest.ServerName})))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	ctx := metadata.AppendToOutgoingContext(t.Context(), header...)
	return security.NewIstioCertificateServiceClient(cc).CreateCertificate(ctx, &security.IstioCertificateRequest{Csr: csr, ValidityDuration: 600})
}

func newCSR(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// The token says who it is for, as with istiod; the request names nobody here.
func TestIssues(t *testing.T) {
	ca := identitytest.NewCA(td)
	s := start(t, ca)
	s.Admit("good", me)
	for name, by := range map[string]*identitytest.CA{"root": ca, "intermediate": ca.Intermediate(), "another": identitytest.NewCA(td)} {
		s.Rotate(by)
		res, err := ask(t, s, newCSR(t), "authorization", "Bearer good", "clusterid", "west")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var certs []*x509.Certificate
		for _, text := range res.GetCertChain() {
			block, rest := pem.Decode([]byte(text))
			if block == nil || len(rest) > 0 {
				t.Fatalf("%s: %q is not one certificate", name, text)
			}
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			certs = append(certs, c)
		}
		if !certs[len(certs)-1].Equal(by.Root) {
			t.Errorf("%s: the chain does not end with the root", name)
		}
		if id, _, err := x509svid.Verify(certs[:len(certs)-1], by.Bundle()); err != nil || id != me {
			t.Errorf("%s: got %v, %v", name, id, err)
		}
		if left := time.Until(certs[0].NotAfter); left > 10*time.Minute || left < 9*time.Minute {
			t.Errorf("%s: lives %v", name, left)
		}
	}
	reqs := s.Requests()
	if len(reqs) != 3 || reqs[0].ID != me || reqs[0].Token != "good" || reqs[0].ClusterID != "west" || reqs[0].TTL != 10*time.Minute || reqs[0].CSR == nil {
		t.Errorf("requests %+v", reqs)
	}
}

func TestRefuses(t *testing.T) {
	s := start(t, identitytest.NewCA(td))
	s.Admit("good", me)
	s.Admit("old", me)
	s.Expel("old")
	good := newCSR(t)
	forged := []byte(good)
	block, _ := pem.Decode(forged)
	block.Bytes[len(block.Bytes)-1] ^= 1 // in the signature
	for name, c := range map[string]struct {
		csr    string
		header []string
		want   codes.Code
	}{
		"no token":         {good, nil, codes.Unauthenticated},
		"unknown token":    {good, []string{"authorization", "Bearer bad"}, codes.Unauthenticated},
		"token taken back": {good, []string{"authorization", "Bearer old"}, codes.Unauthenticated},
		"no bearer":        {good, []string{"authorization", "good"}, codes.Unauthenticated},
		"no request":       {"", []string{"authorization", "Bearer good"}, codes.InvalidArgument},
		"no PEM":           {"rubbish", []string{"authorization", "Bearer good"}, codes.InvalidArgument},
		"two requests":     {good + good, []string{"authorization", "Bearer good"}, codes.InvalidArgument},
		"forged":           {string(pem.EncodeToMemory(block)), []string{"authorization", "Bearer good"}, codes.InvalidArgument},
		"a certificate":    {strings.ReplaceAll(good, " REQUEST", ""), []string{"authorization", "Bearer good"}, codes.InvalidArgument},
	} {
		if _, err := ask(t, s, c.csr, c.header...); status.Code(err) != c.want {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	if n := len(s.Requests()); n != 0 || s.Refused() != 4 {
		t.Errorf("%d requests, %d refused", n, s.Refused())
	}
}

func TestAnswer(t *testing.T) {
	s := start(t, identitytest.NewCA(td))
	s.Admit("good", me)
	s.Answer(func(istiocatest.Request) ([]string, error) { return nil, errors.New("broken") })
	if _, err := ask(t, s, newCSR(t), "authorization", "Bearer good"); status.Code(err) != codes.Unknown {
		t.Errorf("got %v", err)
	}
	s.Answer(nil)
	if res, err := ask(t, s, newCSR(t), "authorization", "Bearer good"); err != nil || len(res.GetCertChain()) != 2 {
		t.Errorf("got %v, %v", res, err)
	}
}

func TestAway(t *testing.T) {
	s := start(t, identitytest.NewCA(td))
	s.Admit("good", me)
	address := s.Address()
	for range 2 {
		s.Stop()
		s.Stop()
		if _, err := ask(t, s, newCSR(t), "authorization", "Bearer good"); status.Code(err) != codes.Unavailable {
			t.Errorf("got %v", err)
		}
		for range 2 {
			if err := s.Start(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := ask(t, s, newCSR(t), "authorization", "Bearer good"); err != nil || s.Address() != address {
			t.Errorf("at %s, was %s: %v", s.Address(), address, err)
		}
	}
	s.Close()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
