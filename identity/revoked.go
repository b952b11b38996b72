package identity

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// RevokedError is a certificate that its issuer has taken back.
type RevokedError struct {
	// ID is the SPIFFE id of the certificate; zero when it is an authority's.
	ID spiffeid.ID
	// Subject names an authority.
	Subject string
	Serial  *big.Int
	// Issuer is who revoked it.
	Issuer string
	// At is when, as the list says.
	At time.Time
}

func (e *RevokedError) Error() string {
	whose := "the certificate of authority " + e.Subject
	if !e.ID.IsZero() {
		whose = "the certificate of " + e.ID.String()
	}
	return fmt.Sprintf("%s (serial %X) was revoked by %s at %s", whose, e.Serial, e.Issuer, e.At.UTC().Format(time.RFC3339))
}

// expiredListError is a peer that an expired list should speak about.
type expiredListError struct {
	issuer string
	end    time.Time
}

func (e *expiredListError) Error() string {
	return fmt.Sprintf("the list of what %s has revoked expired at %s, and Trust.ExpiredCRL refuses to go on without: see that a new one is written",
		e.issuer, e.end.UTC().Format(time.RFC3339))
}

// crl is a list whose signature holds.
type crl struct {
	issuer *x509.Certificate // who signed it
	begin  time.Time
	end    time.Time // zero: it does not say
	at     map[string]time.Time
}

// sameIssuer reports whether c and o are of one key and name.
func (c *crl) sameIssuer(o *crl) bool {
	return bytes.Equal(c.issuer.RawSubject, o.issuer.RawSubject) && bytes.Equal(c.issuer.RawSubjectPublicKeyInfo, o.issuer.RawSubjectPublicKeyInfo)
}

// issued reports whether the list speaks about cert.
func (c *crl) issued(cert *x509.Certificate) bool {
	return bytes.Equal(c.issuer.RawSubject, cert.RawIssuer) && cert.CheckSignatureFrom(c.issuer) == nil
}

func (c *crl) expired(now time.Time) bool { return !c.end.IsZero() && now.After(c.end) }

// revocations are the lists in force. They do not change.
type revocations struct {
	lists []*crl
	count int // of serial numbers
}

// check looks for every certificate of a chain, also for what a peer shows without need.
func (r *revocations) check(chain []*x509.Certificate, now time.Time, policy ExpiredCRL) error {
	if r == nil {
		return nil
	}
	for _, cert := range chain {
		for _, list := range r.lists {
			at, ok := list.at[string(cert.SerialNumber.Bytes())]
			strict := policy == ExpiredCRLRefuse && list.expired(now)
			if !ok && !strict || !list.issued(cert) {
				continue
			}
			if !ok {
				return &expiredListError{issuer: list.issuer.Subject.String(), end: list.end}
			}
			e := &RevokedError{Subject: cert.Subject.String(), Serial: cert.SerialNumber, Issuer: list.issuer.Subject.String(), At: at}
			if len(cert.URIs) == 1 && !cert.IsCA {
				e.ID, _ = spiffeid.FromURI(cert.URIs[0]) // what is no SPIFFE id is named by its subject
			}
			return e
		}
	}
	return nil
}

// nextUpdate is when the first list ends; zero when none does.
func (r *revocations) nextUpdate() time.Time {
	var first time.Time
	for _, l := range r.all() {
		if !l.end.IsZero() && (first.IsZero() || l.end.Before(first)) {
			first = l.end
		}
	}
	return first
}

func (r *revocations) all() []*crl {
	if r == nil {
		return nil
	}
	return r.lists
}

// size is how many serial numbers there are.
func (r *revocations) size() int {
	if r == nil {
		return 0
	}
	return r.count
}

// stale is an error that names the first list that has expired.
func (r *revocations) stale(now time.Time) error {
	for _, l := range r.all() {
		if l.expired(now) {
			return fmt.Errorf("the list of what %s has revoked expired at %s: nobody writes a new one", l.issuer.Subject, l.end.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// older is an error when a list of r was made before the one that o has of the same issuer.
func (r *revocations) older(o *revocations) error {
	for _, l := range r.lists {
		for _, held := range o.all() {
			if l.sameIssuer(held) && l.begin.Before(held.begin) {
				return fmt.Errorf("the list of %s is of %s, older than the one in force, of %s", l.issuer.Subject,
					l.begin.UTC().Format(time.RFC3339), held.begin.UTC().Format(time.RFC3339))
			}
		}
	}
	return nil
}

// newest leaves one list an issuer.
func newest(lists []*crl) []*crl {
	slices.SortStableFunc(lists, func(a, b *crl) int { return b.begin.Compare(a.begin) })
	var out []*crl
	for _, l := range lists {
		if !slices.ContainsFunc(out, l.sameIssuer) {
			out = append(out, l)
		}
	}
	return out
}
