package istioca_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	security "istio.io/api/security/v1alpha1"

	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/isthmus-mesh/isthmus/identity/identitytest/istiocatest"
	"github.com/isthmus-mesh/isthmus/identity/istioca"
)

// A node agent asks by its own token for another identity.
func TestImpersonate(t *testing.T) {
	w := newWorld(t)
	w.server.Admit("agent", spiffeid.RequireFromString("spiffe://cluster.local/ns/istio-system/sa/agent"))
	w.cfg.Token = func(context.Context) (string, error) { return "agent", nil }
	w.cfg.Impersonate = true
	s := w.start()
	if svid, err := s.GetX509SVID(); err != nil || svid.ID != me {
		t.Errorf("got %v, %v", svid, err)
	}
	if r := w.server.Requests()[0]; r.Impersonated != me || r.Token != "agent" {
		t.Errorf("asked %+v", r)
	}
}

// Istiod may say no; the token is of another account by design, so that is not what is wrong.
func TestImpersonateRefused(t *testing.T) {
	w := newWorld(t)
	token := jwt(t, map[string]any{"sub": "system:serviceaccount:istio-system:agent", "aud": []string{"istio-ca"}})
	w.server.Admit(token, spiffeid.RequireFromString("spiffe://cluster.local/ns/istio-system/sa/agent"))
	w.server.Answer(func(istiocatest.Request) ([]string, error) {
		return nil, status.Error(codes.PermissionDenied, "request impersonation authentication failure")
	})
	w.write(w.cfg.TokenFile, []byte(token))
	w.cfg.Impersonate = true
	_, err := istioca.New(t.Context(), w.cfg)
	if err == nil || !strings.Contains(err.Error(), "may not have that identity") || strings.Contains(err.Error(), "it is of") {
		t.Errorf("got %v", err)
	}
}

// One process has an identity for each of many service accounts, each with a token of its own.
func TestManyIdentities(t *testing.T) {
	w := newWorld(t)
	for i := range 20 {
		id := spiffeid.RequireFromPathf(td, "/ns/edge/sa/gateway-%d", i)
		token := fmt.Sprintf("token of %d", i)
		w.server.Admit(token, id)
		cfg := w.cfg
		cfg.ID, cfg.Token = id, func(context.Context) (string, error) { return token, nil }
		s, err := istioca.New(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if svid, err := s.GetX509SVID(); err != nil || svid.ID != id {
			t.Errorf("got %v, %v", svid, err)
		}
	}
}

// Trust and trace reach the Source.
func TestTrustAndTraceArePassedOn(t *testing.T) {
	w := newWorld(t)
	other := spiffeid.RequireTrustDomainFromString("other.example")
	told := 0
	w.cfg.Trust.Additional = []spiffeid.TrustDomain{other}
	w.cfg.Trace = &identity.Trace{Renewed: func(identity.TraceRenewal) { told++ }}
	if _, err := w.start().GetX509BundleForTrustDomain(other); err != nil || told != 1 {
		t.Errorf("told %d times, %v", told, err)
	}
}

// An authority whose clock is another one: the error says by how much.
func TestSkewBetweenTheClocks(t *testing.T) {
	for want, option := range map[string]identitytest.Option{
		"its certificate begins only in ": identitytest.ValidIn(10 * time.Minute),
		"its certificate ended 1h0m":      identitytest.Expired,
	} {
		w := newWorld(t)
		w.cfg.Addresses = []string{serveTLS(t, w.ca, option)}
		if err := w.refused(10 * time.Second); !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	// Its own clock is right, and what it issues begins too late.
	w := newWorld(t)
	w.server.Answer(func(r istiocatest.Request) ([]string, error) {
		return w.server.Sign(r, identitytest.ValidIn(5*time.Minute)), nil
	})
	if err := w.refused(10 * time.Second); !strings.Contains(err.Error(), "the clocks of this machine and of the authority disagree") {
		t.Errorf("got %v", err)
	}
	w = newWorld(t)
	w.server.Answer(func(r istiocatest.Request) ([]string, error) {
		return w.server.Sign(r, identitytest.ValidIn(110*time.Second)), nil
	})
	if _, err := w.start().GetX509SVID(); err != nil {
		t.Errorf("two minutes are borne: %v", err)
	}
}

// serveTLS is an authority with an odd certificate; nobody should come as far as to ask it.
func serveTLS(t *testing.T, ca *identitytest.CA, option identitytest.Option) string {
	t.Helper()
	svid := ca.SVID(spiffeid.RequireFromPath(td, "/ns/istio-system/sa/istiod"), func(c *x509.Certificate) { c.DNSNames = []string{istiocatest.ServerName} }, option)
	cert := tls.Certificate{PrivateKey: svid.PrivateKey}
	for _, c := range svid.Certificates {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}})))
	security.RegisterIstioCertificateServiceServer(server, security.UnimplementedIstioCertificateServiceServer{})
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(l) // it ends by Stop
	}()
	t.Cleanup(func() {
		server.Stop()
		<-served
	})
	return l.Addr().String()
}
