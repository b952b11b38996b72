package carrier

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/isthmus-mesh/isthmus/identity/identitytest"
)

// Credentials are a certificate chain, its key and the root of a trust domain, as PEM, so that another process can have them.
type Credentials struct{ Cert, Key, Root []byte }

var (
	domain   = spiffeid.RequireTrustDomainFromString("cluster.local")
	clientID = spiffeid.RequireFromString("spiffe://cluster.local/ns/edge/sa/gateway")
	serverID = spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/orders")
)

// NewCredentials makes an authority, and by it credentials for the two ends.
func NewCredentials() (ca *identitytest.CA, client, server Credentials) {
	ca = identitytest.NewCA(domain)
	issue := func(id spiffeid.ID) Credentials {
		svid := ca.SVID(id)
		return Credentials{
			Cert: identitytest.PEM(svid.Certificates...),
			Key:  identitytest.KeyPEM(svid.PrivateKey),
			Root: identitytest.PEM(ca.Root),
		}
	}
	return ca, issue(clientID), issue(serverID)
}

// identity is an hbone.Identity, and what crypto/tls wants of it.
type identity struct {
	*x509svid.SVID
	*x509bundle.Bundle
}

func (c Credentials) identity() (*identity, error) {
	svid, err := x509svid.Parse(c.Cert, c.Key)
	if err != nil {
		return nil, fmt.Errorf("read credentials: %w", err)
	}
	bundle, err := x509bundle.Parse(domain, c.Root)
	if err != nil {
		return nil, fmt.Errorf("read credentials: %w", err)
	}
	return &identity{svid, bundle}, nil
}

// tlsConfig is that of both ends of the peers: what hbone asks for too, without its check of names.
func (id *identity) tlsConfig() *tls.Config {
	cert := tls.Certificate{PrivateKey: id.PrivateKey, Leaf: id.Certificates[0]}
	for _, c := range id.Certificates {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	roots := x509.NewCertPool()
	for _, c := range id.X509Authorities() {
		roots.AddCert(c)
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{"h2"},
		Certificates:           []tls.Certificate{cert},
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, // VerifyConnection checks the chain
		SessionTicketsDisabled: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
			return err
		},
	}
}
