package identity

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// SameID reports whether a and b are one identity: equal, or of trust domains that Trust.Aliases makes one. It does not block.
func (s *Source) SameID(a, b spiffeid.ID) bool {
	if a == b {
		return true
	}
	s.mu.Lock()
	held := s.belief
	s.mu.Unlock()
	return a.Path() == b.Path() && held.canonical(a.TrustDomain()) == held.canonical(b.TrustDomain())
}

// Names gives the other names that id has by Trust.Aliases, nil when it has none. It does not block.
func (s *Source) Names(id spiffeid.ID) []spiffeid.ID {
	var names []spiffeid.ID
	for _, set := range s.cfg.Trust.Aliases {
		if !slices.Contains(set, id.TrustDomain()) {
			continue
		}
		for _, td := range set {
			if td == id.TrustDomain() {
				continue
			}
			if other, err := spiffeid.FromPath(td, id.Path()); err == nil {
				names = append(names, other)
			}
		}
	}
	return names
}

// CheckPeer says why a peer that showed chain, leaf first, is not to be believed although the chain's signatures held: nobody vouches for its
// trust domain any more, or a certificate in the chain is revoked (*RevokedError). It does not verify the chain, and does not block.
func (s *Source) CheckPeer(chain []*x509.Certificate) error {
	if len(chain) == 0 || len(chain[0].URIs) != 1 {
		return errors.New("identity: the peer's certificate has no SPIFFE id")
	}
	id, err := spiffeid.FromURI(chain[0].URIs[0])
	if err != nil {
		return fmt.Errorf("identity: the peer's certificate: %w", err)
	}
	s.mu.Lock()
	held := s.belief
	s.mu.Unlock()
	if _, err := held.bundle(id.TrustDomain()); err != nil {
		return err
	}
	if err := held.lists.check(chain, time.Now(), s.cfg.Trust.ExpiredCRL); err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	return nil
}

// Rechecks returns a channel that is closed when CheckPeer may say something else about peers that it was asked about. Call it again for
// the next time.
func (s *Source) Rechecks() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.recheck
}
