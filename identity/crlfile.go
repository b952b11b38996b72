package identity

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/isthmus-mesh/isthmus/identity/internal/pemtext"
)

const (
	maxCRLFile = 32 << 20 // bytes; some 500,000 entries
	maxCRLs    = 256      // lists in a file
)

// parseCRLs reads one DER list, or PEM lists and the certificates beside them. What is neither, or is damaged, is an error: a list that nobody reads revokes
// nobody.
func parseCRLs(text []byte) (lists []*x509.RevocationList, beside []*x509.Certificate, err error) {
	if !bytes.Contains(text, []byte("-----BEGIN ")) {
		list, err := parseCRL(text)
		if err != nil {
			return nil, nil, fmt.Errorf("it is neither PEM nor a DER list of revoked certificates: %w", err)
		}
		return []*x509.RevocationList{list}, nil, nil
	}
	err = pemtext.Each(text, func(block *pem.Block) error {
		switch block.Type {
		case "X509 CRL":
			list, err := parseCRL(block.Bytes)
			if err != nil {
				return err
			}
			lists = append(lists, list)
		case "CERTIFICATE":
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return err
			}
			beside = append(beside, cert)
		default:
			return fmt.Errorf("there is a PEM block %.40q in it, and only X509 CRL and CERTIFICATE are known", block.Type)
		}
		if len(lists) > maxCRLs || len(beside) > maxCRLs {
			return fmt.Errorf("there are more than %d lists or certificates in it", maxCRLs)
		}
		return nil
	})
	if err == nil && len(lists) == 0 {
		err = errors.New("there is no PEM block X509 CRL in it")
	}
	if err != nil {
		return nil, nil, err
	}
	return lists, beside, nil
}

// parseCRL reads a list that is all there is in der.
func parseCRL(der []byte) (*x509.RevocationList, error) {
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, err
	}
	if more := len(der) - len(list.Raw); more != 0 {
		return nil, fmt.Errorf("%d bytes follow on a list: several lists are written as PEM", more)
	}
	return list, nil
}

// verify finds who signed each list: a root that b believes, or an authority below one among candidates.
func (b *belief) verify(lists []*x509.RevocationList, candidates []*x509.Certificate, now time.Time) (*revocations, error) {
	var signers []*x509.Certificate
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, bundle := range b.bundles {
		for _, c := range bundle.X509Authorities() {
			signers = append(signers, c)
			roots.AddCert(c)
		}
	}
	for _, c := range candidates {
		between.AddCert(c)
	}
	for _, c := range candidates {
		if c.IsCA {
			if _, err := c.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err == nil {
				signers = append(signers, c)
			}
		}
	}
	r := &revocations{}
	for _, list := range lists {
		c, err := checkCRL(list, signers, now)
		if err != nil {
			return nil, err
		}
		r.lists = append(r.lists, c)
	}
	r.lists = newest(r.lists)
	for _, l := range r.lists {
		r.count += len(l.at)
	}
	return r, nil
}

// lost is those of the lists before of whose issuers there is none among next, though they are trusted.
func (b *belief) lost(before, next *revocations, now time.Time) []*crl {
	var lost []*crl
	for _, l := range before.all() {
		if !slices.ContainsFunc(next.lists, l.sameIssuer) && b.vouches(l.issuer, now) {
			lost = append(lost, l)
		}
	}
	return lost
}

// vouches reports whether an authority is a root that b believes, or leads to one.
func (b *belief) vouches(authority *x509.Certificate, now time.Time) bool {
	roots := x509.NewCertPool()
	for _, bundle := range b.bundles {
		for _, c := range bundle.X509Authorities() {
			roots.AddCert(c)
		}
	}
	_, err := authority.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err == nil
}

// checkCRL is a list that somebody among signers has signed, and that is of a kind that speaks about all its issuer has issued.
func checkCRL(list *x509.RevocationList, signers []*x509.Certificate, now time.Time) (*crl, error) {
	name := list.Issuer.String()
	for _, e := range list.Extensions {
		if e.Critical { // RFC 5280, section 5.2: a delta, or one for some certificates only
			return nil, fmt.Errorf("the list of %s has the critical extension %s: only complete lists are understood", name, e.Id)
		}
	}
	if ahead := list.ThisUpdate.Sub(now); ahead > graceSkew {
		return nil, fmt.Errorf("the list of %s begins only in %v: the clocks of this machine and of its issuer disagree", name, ahead.Round(time.Second))
	}
	var why error
	for _, s := range signers {
		if !bytes.Equal(s.RawSubject, list.RawIssuer) {
			continue
		}
		if why = list.CheckSignatureFrom(s); why != nil {
			continue
		}
		c := &crl{issuer: s, begin: list.ThisUpdate, end: list.NextUpdate, at: make(map[string]time.Time, len(list.RevokedCertificateEntries))}
		for _, entry := range list.RevokedCertificateEntries {
			for _, e := range entry.Extensions {
				if e.Critical { // RFC 5280, section 5.3: of another issuer
					return nil, fmt.Errorf("the list of %s has an entry with the critical extension %s: only lists of one issuer are understood", name, e.Id)
				}
			}
			if entry.SerialNumber != nil {
				c.at[string(entry.SerialNumber.Bytes())] = entry.RevocationTime
			}
		}
		return c, nil
	}
	if why != nil {
		return nil, fmt.Errorf("the signature of the list of %s does not hold: %w", name, why)
	}
	return nil, fmt.Errorf("nobody who is trusted here is called %s, who signed a list: an intermediate's certificate may stand in the same file", name)
}
