package identitytest

import (
	"crypto/x509"
	"errors"
	"sync"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// Source is an identity that a test changes by hand. It is an hbone.Identity, Rotator and Reviewer.
type Source struct {
	CA *CA

	mu      sync.Mutex
	svid    *x509svid.SVID
	bundles *x509bundle.Set
	changed chan struct{}
	revoked []*x509.Certificate
	recheck chan struct{}
}

// GetX509SVID returns the SVID set last.
func (s *Source) GetX509SVID() (*x509svid.SVID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.svid == nil {
		return nil, errors.New("identitytest: no SVID")
	}
	return s.svid, nil
}

// GetX509BundleForTrustDomain returns the bundle of td, where it is trusted.
func (s *Source) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	return s.bundles.GetX509BundleForTrustDomain(td)
}

// Changed is closed at the next Set or Trust.
func (s *Source) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.changed
}

// Set makes svid the identity; nil takes it away.
func (s *Source) Set(svid *x509svid.SVID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.svid = svid
	s.tell()
}

// Trust adds an authority, in place of another of its trust domain.
func (s *Source) Trust(ca *CA) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bundles.Add(ca.Bundle())
	s.tell()
}

// Bundles are whom the source trusts; the set follows Trust.
func (s *Source) Bundles() *x509bundle.Set { return s.bundles }

// tell wakes who waits for a change; mu is held.
func (s *Source) tell() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

var (
	_ x509svid.Source   = (*Source)(nil)
	_ x509bundle.Source = (*Source)(nil)
)
