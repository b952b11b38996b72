package identitytest

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/identity"
)

// CRLOption changes a list of revoked certificates before it is signed.
type CRLOption func(*x509.RevocationList)

// CRL is a list that revokes certificates which ca has issued, as DER. It was made now and is good for a day.
func (ca *CA) CRL(revoked []*x509.Certificate, opts ...CRLOption) []byte {
	now := time.Now()
	list := &x509.RevocationList{Number: big.NewInt(now.UnixNano()), ThisUpdate: now, NextUpdate: now.Add(24 * time.Hour)}
	for _, c := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: now})
	}
	for _, o := range opts {
		o(list)
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, ca.issuer, ca.key)
	must(err)
	return der
}

// CRLPEM encodes a list.
func CRLPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

// Revoke takes trust in certificates back, for this source: those who show one are refused, and their open connections end. The error is an
// *identity.RevokedError.
func (s *Source) Revoke(certs ...*x509.Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revoked = append(s.revoked, certs...)
	if s.recheck != nil {
		close(s.recheck)
		s.recheck = nil
	}
}

// CheckPeer is an *identity.RevokedError when one of chain was given to Revoke.
func (s *Source) CheckPeer(chain []*x509.Certificate) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range chain {
		for _, r := range s.revoked {
			if !c.Equal(r) {
				continue
			}
			e := &identity.RevokedError{Subject: c.Subject.String(), Serial: c.SerialNumber, Issuer: c.Issuer.String(), At: time.Now()}
			if len(c.URIs) == 1 && !c.IsCA {
				e.ID, _ = spiffeid.FromURI(c.URIs[0]) // else the subject says it
			}
			return e
		}
	}
	return nil
}

// Rechecks is closed at the next Revoke.
func (s *Source) Rechecks() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.recheck == nil {
		s.recheck = make(chan struct{})
	}
	return s.recheck
}
