package hbonetest

import (
	"crypto/tls"
	"net"
	"testing"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"golang.org/x/net/http2"
)

// AcceptTLS takes one connection from l as an HBONE server that shows id, and is the Server on it. It asks for a certificate and
// believes any. A connection must come within ten seconds.
func AcceptTLS(t testing.TB, l net.Listener, id x509svid.Source, list ...http2.Setting) *Peer {
	t.Helper()
	nc, err := Go(l.Accept).Wait()
	if err != nil {
		t.Fatalf("accept: %v", err)
	}
	tc := tls.Server(nc, &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{"h2"},
		ClientAuth:             tls.RequireAnyClientCert,
		Certificates:           []tls.Certificate{certificate(t, id)},
		SessionTicketsDisabled: true,
	})
	if err := tc.HandshakeContext(t.Context()); err != nil {
		nc.Close()
		t.Fatalf("TLS handshake as the server: %v", err)
	}
	return Server(t, tc, list...)
}

// DialTLS is an HBONE client on nc that shows id, and believes any certificate.
func DialTLS(t testing.TB, nc net.Conn, id x509svid.Source, list ...http2.Setting) *Peer {
	t.Helper()
	cert := certificate(t, id)
	tc := tls.Client(nc, &tls.Config{
		MinVersion:           tls.VersionTLS13,
		NextProtos:           []string{"h2"},
		InsecureSkipVerify:   true, // a test peer checks nobody
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil },
	})
	if err := tc.HandshakeContext(t.Context()); err != nil {
		nc.Close()
		t.Fatalf("TLS handshake as the client: %v", err)
	}
	return Client(t, tc, list...)
}

func certificate(t testing.TB, id x509svid.Source) tls.Certificate {
	t.Helper()
	svid, err := id.GetX509SVID()
	if err != nil {
		t.Fatalf("the peer's identity: %v", err)
	}
	cert := tls.Certificate{PrivateKey: svid.PrivateKey}
	for _, c := range svid.Certificates {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert
}
