package wds

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/credentials"

	"github.com/isthmus-mesh/isthmus/identity/identitytest"
)

// TestAWriteTellsWhyTheCertificateWasRefused: istiod has refused our certificate and closed when we write, as we took the handshake for ended.
func TestAWriteTellsWhyTheCertificateWasRefused(t *testing.T) {
	id := spiffeid.RequireFromString("spiffe://cluster.local/ns/edge/sa/gateway")
	ours, istiods := identitytest.NewCA(id.TrustDomain()), identitytest.NewCA(id.TrustDomain())
	certificate := func(ca *identitytest.CA) tls.Certificate {
		svid := ca.SVID(id)
		return tls.Certificate{Certificate: [][]byte{svid.Certificates[0].Raw}, PrivateKey: svid.PrivateKey}
	}
	roots := x509.NewCertPool()
	for _, root := range istiods.Bundle().X509Authorities() {
		roots.AddCert(root)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	closed := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			closed <- err
			return
		}
		s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{certificate(istiods)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots, NextProtos: []string{"h2"}})
		if s.HandshakeContext(t.Context()) == nil {
			t.Error("our certificate was taken")
		}
		closed <- c.Close()
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	mine := certificate(ours)
	creds := refusals{credentials.NewTLS(&tls.Config{
		InsecureSkipVerify:   true, //nolint:gosec // whom we meet is not what this is about
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &mine, nil },
		NextProtos:           []string{"h2"},
	})}
	c, _, err := creds.ClientHandshake(t.Context(), "istiod", conn)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Second); err == nil && time.Now().Before(end); time.Sleep(time.Millisecond) {
		_, err = c.Write([]byte("x"))
	}
	if err == nil || !strings.Contains(err.Error(), "remote error: tls") {
		t.Errorf("a write says %v", err)
	}
}
