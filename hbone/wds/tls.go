package wds

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// tls is for one connection: by whom istiod is known, and the certificate that is shown to it, if there is one.
func (c *Config) tls() (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: cmp.Or(c.ServerName, "istiod.istio-system.svc")}
	var svid *x509svid.SVID
	if c.Identity != nil {
		var err error
		if svid, err = c.Identity.GetX509SVID(); err != nil {
			return nil, fmt.Errorf("our certificate for istiod: %w", err)
		}
		if len(svid.Certificates) == 0 {
			return nil, errors.New("our certificate for istiod: Config.Identity has none")
		}
		if end := svid.Certificates[0].NotAfter; time.Now().After(end) {
			return nil, fmt.Errorf("our certificate for istiod: that of %s expired at %s; its source brings no new one", svid.ID, end.UTC().Format(time.RFC3339))
		}
		cert := &tls.Certificate{PrivateKey: svid.PrivateKey, Leaf: svid.Certificates[0]}
		for _, x := range svid.Certificates {
			cert.Certificate = append(cert.Certificate, x.Raw)
		}
		// By function: else none is shown, in silence, where istiod does not name its issuer among those that it takes.
		t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	var err error
	t.RootCAs, err = c.roots(svid)
	return t, err
}

// roots are those that istiod's certificate leads to; svid is our own, where there is one.
func (c *Config) roots(svid *x509svid.SVID) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if c.Roots == nil && c.RootsFile == "" {
		bundle, err := c.Identity.GetX509BundleForTrustDomain(svid.ID.TrustDomain())
		if err != nil {
			return nil, fmt.Errorf("roots of istiod: %w", err)
		}
		for _, root := range bundle.X509Authorities() {
			pool.AddCert(root)
		}
		return pool, nil
	}
	read := c.Roots
	if read == nil {
		read = c.readRoots
	}
	pem, err := read()
	if err != nil {
		return nil, fmt.Errorf("roots of istiod: %w", err)
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("the roots hold no certificate")
	}
	return pool, nil
}

// explain adds what to do to errors that have a usual cause.
func (c *Config) explain(err error) error {
	s, _ := status.FromError(err)
	text := s.Message()
	refused := s.Code() == codes.Unauthenticated || s.Code() == codes.PermissionDenied
	account := c.Node.Namespace + "/" + cmp.Or(c.Node.ServiceAccount, "default")
	switch {
	case c.Identity != nil && (refused || strings.Contains(text, "remote error: tls")):
		return fmt.Errorf("it does not accept our certificate: is it of service account %s, and does istiod believe its issuer? %w", account, err)
	case refused:
		return fmt.Errorf("it does not accept the token: is it of service account %s, for audience istio-ca and not expired? %w", account, err)
	case strings.Contains(text, "certificate is valid for") || strings.Contains(text, "doesn't contain any"):
		return fmt.Errorf("its certificate has another name: set Config.ServerName: %w", err)
	case strings.Contains(text, "signed by unknown authority"):
		return fmt.Errorf("its certificate leads to none of the roots: is Config.RootsFile of this mesh? %w", err)
	}
	return err
}
