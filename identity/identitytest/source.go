package identitytest

import (
	"errors"
	"sync"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// Source is an identity that a test changes by hand. It is an hbone.Identity and an hbone.Rotator.
type Source struct {
	CA *CA

	mu      sync.Mutex
	svid    *x509svid.SVID
	bundles *x509bundle.Set
	changed chan struct{}
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

// Changed is closed at the next Set.
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
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// Trust adds an authority.
func (s *Source) Trust(ca *CA) { s.bundles.Add(ca.Bundle()) }

var (
	_ x509svid.Source   = (*Source)(nil)
	_ x509bundle.Source = (*Source)(nil)
)
