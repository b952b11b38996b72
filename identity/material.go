package identity

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// graceSkew is how far a certificate may be in the future before we say that the clocks disagree.
const graceSkew = 2 * time.Minute

// Material is one generation: a certificate with its key, and whom to trust.
type Material struct {
	SVID    *x509svid.SVID
	Bundles *x509bundle.Set
}

// validate refuses what could not be shown to anybody, and a certificate that does not lead to the roots that came with it: our own
// peers, who trust the same roots, would refuse it.
func (m *Material) validate(now time.Time) error {
	switch {
	case m == nil || m.SVID == nil || len(m.SVID.Certificates) == 0 || m.SVID.PrivateKey == nil:
		return errors.New("identity: the authority gave no certificate with a key")
	case m.Bundles == nil || m.Bundles.Len() == 0:
		return errors.New("identity: the authority gave nobody to trust")
	}
	id := m.SVID.ID
	for _, c := range m.SVID.Certificates {
		if ahead := c.NotBefore.Sub(now); ahead > graceSkew {
			return fmt.Errorf("identity: the certificate of %s is valid only in %v: the clocks of this machine and of the authority disagree",
				id, ahead.Round(time.Second))
		}
		if now.Before(c.NotBefore) {
			now = c.NotBefore // within the grace
		}
	}
	if end := m.expires(); now.After(end) {
		return fmt.Errorf("identity: the certificate of %s expired at %s (%v ago): its issuer is not renewing it, or this machine's clock is ahead",
			id, end.UTC().Format(time.RFC3339), now.Sub(end).Round(time.Second))
	}
	got, _, err := x509svid.Verify(m.SVID.Certificates, m.Bundles, x509svid.WithTime(now))
	if err != nil {
		return fmt.Errorf("identity: the certificate of %s does not lead to the roots that came with it: %w", id, err)
	}
	if got != id {
		return fmt.Errorf("identity: the certificate of %s is for %s", id, got)
	}
	return nil
}

// expires is when the first certificate of the chain ends.
func (m *Material) expires() time.Time {
	end := m.SVID.Certificates[0].NotAfter
	for _, c := range m.SVID.Certificates[1:] {
		if c.NotAfter.Before(end) {
			end = c.NotAfter
		}
	}
	return end
}

// equal reports whether o, which may be nil, shows the same and trusts the same.
func (m *Material) equal(o *Material) bool {
	if o == nil || !slices.EqualFunc(m.SVID.Certificates, o.SVID.Certificates, (*x509.Certificate).Equal) || m.Bundles.Len() != o.Bundles.Len() {
		return false
	}
	for _, b := range m.Bundles.Bundles() {
		other, ok := o.Bundles.Get(b.TrustDomain())
		if !ok || !b.Equal(other) {
			return false
		}
	}
	return true
}
