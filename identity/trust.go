package identity

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Trust says whom a Source believes beyond what its authority brings, and whom no more. The zero value changes nothing. It is copied.
type Trust struct {
	// Aliases are sets of trust domains that are one, such as Istio's trustDomain with its trustDomainAliases: the roots of each are those of all,
	// and the same path in two of them is the same identity. No domain may be in two sets.
	Aliases [][]spiffeid.TrustDomain
	// Additional are trust domains that the roots of our own domain vouch for as well, as where clusters share an authority. Their identities
	// are not ours.
	Additional []spiffeid.TrustDomain
	// Federated are PEM files with roots of trust domains, in addition to those that the authority brings. They are followed.
	Federated map[spiffeid.TrustDomain]string
	// CRLFile holds certificate revocation lists, one as DER or several as PEM. It is followed. A list counts when a root of a trusted domain has
	// signed it, or an intermediate of our own chain, or one whose certificate stands in the file (PEM). One that the file has no more stays
	// in force while its issuer is trusted, which is told. Empty: there is no list.
	CRLFile string
	// ExpiredCRL says what to do when a list is past its next update. Zero keeps it and raises the alarm.
	ExpiredCRL ExpiredCRL
	// Interval is how often the files are looked at. Zero means 5 s; negative means when the certificate is renewed only.
	Interval time.Duration
}

// ExpiredCRL is a policy for a list of revoked certificates that its issuer has not renewed in time.
type ExpiredCRL int

// The policies. Either way Stats, Trace and Logger tell.
const (
	// ExpiredCRLKeep goes on with the list: what is in it stays revoked.
	ExpiredCRLKeep ExpiredCRL = iota
	// ExpiredCRLRefuse believes no further peer whose certificate that issuer has signed. Open connections go on.
	ExpiredCRLRefuse
)

func (t *Trust) interval() time.Duration { return cmp.Or(t.Interval, 5*time.Second) }

// watched reports whether there are files to follow.
func (t *Trust) watched() bool {
	return t.interval() > 0 && (len(t.Federated) > 0 || t.CRLFile != "")
}

// clone takes it in.
func (t Trust) clone() Trust {
	t.Aliases = slices.Clone(t.Aliases)
	for i := range t.Aliases {
		t.Aliases[i] = slices.Clone(t.Aliases[i])
	}
	t.Additional = slices.Clone(t.Additional)
	t.Federated = maps.Clone(t.Federated)
	return t
}

// check finds what makes no sense.
func (t *Trust) check() error {
	in := map[spiffeid.TrustDomain]bool{}
	for _, set := range t.Aliases {
		for _, td := range set {
			if in[td] {
				return fmt.Errorf("identity: Trust.Aliases names %s twice: put all its names into one set", td)
			}
			in[td] = true
		}
	}
	for td := range t.Federated {
		in[td] = true
	}
	for _, td := range t.Additional {
		in[td] = true
	}
	if in[spiffeid.TrustDomain{}] {
		return errors.New("identity: Trust has a trust domain without a name")
	}
	if t.ExpiredCRL != ExpiredCRLKeep && t.ExpiredCRL != ExpiredCRLRefuse {
		return fmt.Errorf("identity: Trust.ExpiredCRL is %d, which is no policy", t.ExpiredCRL)
	}
	return nil
}

// belief is whom a Source believes at a moment. It does not change.
type belief struct {
	bundles map[spiffeid.TrustDomain]*x509bundle.Bundle
	first   map[spiffeid.TrustDomain]spiffeid.TrustDomain // of its set; absent: of itself
	lists   *revocations                                  // nil: there are none
}

// believe puts together what the authority of own brought and what files say.
func (t *Trust) believe(own spiffeid.TrustDomain, brought *x509bundle.Set, files map[spiffeid.TrustDomain]*x509bundle.Bundle) *belief {
	b := &belief{bundles: map[spiffeid.TrustDomain]*x509bundle.Bundle{}, first: map[spiffeid.TrustDomain]spiffeid.TrustDomain{}}
	for _, set := range t.Aliases {
		for _, td := range set {
			b.first[td] = set[0]
		}
	}
	roots := map[spiffeid.TrustDomain]*x509bundle.Bundle{} // by the first of a set
	add := func(td spiffeid.TrustDomain, from *x509bundle.Bundle) {
		td = b.canonical(td)
		if from == nil {
			return
		}
		if roots[td] == nil {
			roots[td] = x509bundle.New(td)
		}
		for _, c := range from.X509Authorities() {
			roots[td].AddX509Authority(c)
		}
	}
	for _, from := range brought.Bundles() {
		add(from.TrustDomain(), from)
	}
	for td, from := range files {
		add(td, from)
	}
	ours := roots[b.canonical(own)]
	if ours != nil {
		ours = ours.Clone() // one domain's additions are not the next one's
	}
	for _, td := range t.Additional {
		add(td, ours)
	}
	give := func(td spiffeid.TrustDomain) {
		if from := roots[b.canonical(td)]; from != nil {
			b.bundles[td] = x509bundle.FromX509Authorities(td, from.X509Authorities())
		}
	}
	for td := range roots {
		give(td)
	}
	for td := range b.first {
		give(td)
	}
	return b
}

// canonical is the first of the set that td is in.
func (b *belief) canonical(td spiffeid.TrustDomain) spiffeid.TrustDomain {
	if first, ok := b.first[td]; ok {
		return first
	}
	return td
}

// trusts reports whether b has the same bundles as o.
func (b *belief) trusts(o *belief) bool {
	return o != nil && maps.EqualFunc(b.bundles, o.bundles, (*x509bundle.Bundle).Equal)
}

// bundle is whom to believe about td.
func (b *belief) bundle(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	if got, ok := b.bundles[td]; ok {
		return got, nil
	}
	return nil, fmt.Errorf("identity: nobody vouches for trust domain %s: it is neither the authority's nor named in Trust", td)
}
