package identitytest_test

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
)

func TestCRL(t *testing.T) {
	ca := identitytest.NewCA(td)
	between := ca.Intermediate()
	certs, _ := between.Issuer()
	for name, c := range map[string]struct {
		by     *identitytest.CA
		issuer *x509.Certificate
	}{"by the root": {ca, ca.Root}, "by an intermediate": {between, certs[0]}} {
		bad := c.by.SVID(me).Certificates[0]
		block, rest := pem.Decode(identitytest.CRLPEM(c.by.CRL([]*x509.Certificate{bad}, func(l *x509.RevocationList) { l.NextUpdate = l.ThisUpdate.Add(time.Minute) })))
		if block == nil || block.Type != "X509 CRL" || len(rest) > 0 {
			t.Fatalf("%s: no PEM", name)
		}
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if err := list.CheckSignatureFrom(c.issuer); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if n := list.RevokedCertificateEntries; len(n) != 1 || n[0].SerialNumber.Cmp(bad.SerialNumber) != 0 || list.NextUpdate.Sub(list.ThisUpdate) != time.Minute {
			t.Errorf("%s: %+v", name, list)
		}
	}
}

func TestRevoke(t *testing.T) {
	ca := identitytest.NewCA(td)
	s, peer, beside := ca.Source(me), ca.Intermediate().SVID(he).Certificates, ca.SVID(he).Certificates
	for of, cert := range map[string]*x509.Certificate{"leaf": peer[0], "authority": peer[1]} {
		again := s.Rechecks()
		s.Revoke(cert)
		select {
		case <-again:
		default:
			t.Errorf("%s: not told", of)
		}
		r, ok := errors.AsType[*identity.RevokedError](s.CheckPeer(peer))
		if !ok || r.Serial == nil {
			t.Errorf("%s: got %v", of, s.CheckPeer(peer))
		}
		if err := s.CheckPeer(beside); err != nil {
			t.Errorf("%s: another is revoked too: %v", of, err)
		}
	}
}
