package hbone

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// ownSVID is a certificate that can be shown now.
func ownSVID(id Identity) (*x509svid.SVID, error) {
	svid, err := id.GetX509SVID()
	if err != nil {
		return nil, fmt.Errorf("own identity: %w", err)
	}
	if len(svid.Certificates) == 0 {
		return nil, errors.New("own identity: it has no certificate")
	}
	if end := svid.Certificates[0].NotAfter; time.Now().After(end) {
		return nil, fmt.Errorf("own identity: the certificate of %s expired at %s; its source brings no new one",
			svid.ID, end.UTC().Format(time.RFC3339))
	}
	return svid, nil
}

func certificate(svid *x509svid.SVID) *tls.Certificate {
	cert := &tls.Certificate{PrivateKey: svid.PrivateKey, Leaf: svid.Certificates[0]}
	for _, c := range svid.Certificates {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert
}

// clientTLS verifies that the peer is one of peers. No SNI is sent and no session resumed; the certificate is given by
// function, since a list of CAs in the server's request would make crypto/tls send none in silence.
func clientTLS(id Identity, svid *x509svid.SVID, peers []spiffeid.ID) *tls.Config {
	cert := certificate(svid)
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2"},
		// Records of 1 KiB for the first 128 KiB would only cost: HBONE's peers read ahead.
		DynamicRecordSizingDisabled: true,
		InsecureSkipVerify:          true, // names play no part: VerifyConnection checks chain and SPIFFE id
		SessionTicketsDisabled:      true,
		GetClientCertificate:        func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil },
		VerifyConnection: func(cs tls.ConnectionState) error {
			_, err := verifyPeer(id, cs, peers, x509.ExtKeyUsageServerAuth)
			return err
		},
	}
}

// serverTLS takes any peer whose chain leads to the bundle of its trust domain. Like ztunnel it speaks h2 with a client that
// offers no protocol at all.
func serverTLS(id Identity) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2"},
		// Records of 1 KiB for the first 128 KiB would only cost: HBONE's peers read ahead.
		DynamicRecordSizingDisabled: true,
		ClientAuth:                  tls.RequireAnyClientCert, // VerifyConnection checks chain and SPIFFE id
		SessionTicketsDisabled:      true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			svid, err := ownSVID(id)
			if err != nil {
				return nil, err
			}
			return certificate(svid), nil
		},
		VerifyConnection: func(cs tls.ConnectionState) error {
			_, err := verifyPeer(id, cs, nil, x509.ExtKeyUsageClientAuth)
			return err
		},
	}
}

// verifyPeer checks a chain against the bundle of its trust domain and returns the one SPIFFE id in it. A non-empty want must
// hold that id.
func verifyPeer(id Identity, cs tls.ConnectionState, want []spiffeid.ID, usage x509.ExtKeyUsage) (spiffeid.ID, error) {
	if len(cs.PeerCertificates) == 0 {
		return spiffeid.ID{}, &PeerError{Want: want, Reason: "there is none"}
	}
	leaf := cs.PeerCertificates[0]
	if len(leaf.URIs) != 1 {
		return spiffeid.ID{}, &PeerError{Want: want, Reason: fmt.Sprintf("it has %d URI names where a SPIFFE certificate has one", len(leaf.URIs))}
	}
	got, err := spiffeid.FromURI(leaf.URIs[0])
	if err != nil {
		return spiffeid.ID{}, &PeerError{Want: want, Reason: fmt.Sprintf("its name %q is no SPIFFE id", leaf.URIs[0]), Err: err}
	}
	bundle, err := id.GetX509BundleForTrustDomain(got.TrustDomain())
	if err != nil {
		return spiffeid.ID{}, &PeerError{Got: got, Want: want, Reason: "its trust domain is not trusted here", Err: err}
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range bundle.X509Authorities() {
		roots.AddCert(c)
	}
	for _, c := range cs.PeerCertificates[1:] {
		intermediates.AddCert(c)
	}
	now := time.Now()
	_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}})
	if err != nil {
		return spiffeid.ID{}, &PeerError{Got: got, Want: want, Reason: "its chain does not hold" + ill(err, now), Err: err}
	}
	if r, ok := id.(Reviewer); ok {
		if err := r.CheckPeer(cs.PeerCertificates); err != nil {
			return spiffeid.ID{}, &PeerError{Got: got, Want: want, Reason: notTrusted, Err: err}
		}
	}
	if len(want) > 0 && !expected(id, want, got) {
		return spiffeid.ID{}, &PeerError{Got: got, Want: want, Reason: "it is somebody else"}
	}
	return got, nil
}

// expected reports whether got is in want, maybe under another name.
func expected(id Identity, want []spiffeid.ID, got spiffeid.ID) bool {
	if slices.Contains(want, got) {
		return true
	}
	a, ok := id.(Aliaser)
	return ok && slices.ContainsFunc(want, func(w spiffeid.ID) bool { return a.SameID(w, got) })
}

// ill says about a certificate that is not of now by how much the clocks, or its issuer, are off; else "".
func ill(err error, now time.Time) string {
	invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
	if !ok || invalid.Reason != x509.Expired || invalid.Cert == nil {
		return ""
	}
	if ahead := invalid.Cert.NotBefore.Sub(now); ahead > 0 {
		return fmt.Sprintf(" yet: it begins in %v by this machine's clock, so the clocks of both ends disagree", ahead.Round(time.Second))
	}
	return fmt.Sprintf(" any more: it ended %v ago by this machine's clock", now.Sub(invalid.Cert.NotAfter).Round(time.Second))
}
