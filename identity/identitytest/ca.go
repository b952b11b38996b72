package identitytest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// CA is a certificate authority of one trust domain.
type CA struct {
	TrustDomain spiffeid.TrustDomain
	Root        *x509.Certificate
	chain       []*x509.Certificate // intermediates, the issuer first
	issuer      *x509.Certificate
	key         crypto.Signer
}

// NewCA makes an authority with a root of its own.
func NewCA(td spiffeid.TrustDomain) *CA {
	key := newKey()
	root := sign(authority(td, "root"), nil, key, key)
	return &CA{TrustDomain: td, Root: root, issuer: root, key: key}
}

// Intermediate makes an authority below ca; the chains it issues have one certificate more.
func (ca *CA) Intermediate() *CA {
	key := newKey()
	cert := sign(authority(ca.TrustDomain, "intermediate"), ca.issuer, ca.key, key)
	return &CA{TrustDomain: ca.TrustDomain, Root: ca.Root, issuer: cert, key: key, chain: append([]*x509.Certificate{cert}, ca.chain...)}
}

// CrossSign makes an authority that has the name and key of other and is vouched for by ca: who trusts only ca accepts what it issues, as does who
// trusts only other.
func (ca *CA) CrossSign(other *CA) *CA {
	cert := signPublic(authority(other.TrustDomain, "root"), ca.issuer, ca.key, other.key.Public())
	return &CA{TrustDomain: other.TrustDomain, Root: other.Root, issuer: cert, key: other.key, chain: append([]*x509.Certificate{cert}, ca.chain...)}
}

func authority(td spiffeid.TrustDomain, name string) *x509.Certificate {
	return &x509.Certificate{
		Subject:               pkix.Name{CommonName: td.Name() + " " + name},
		URIs:                  []*url.URL{td.ID().URL()},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

// SVID issues a certificate for id.
func (ca *CA) SVID(id spiffeid.ID, opts ...Option) *x509svid.SVID {
	key := newKey()
	return &x509svid.SVID{ID: id, Certificates: ca.Issue(id, key, opts...), PrivateKey: key}
}

// Issue signs a certificate for id with the key's public half; the chain has the leaf first and leaves the root out.
func (ca *CA) Issue(id spiffeid.ID, key crypto.Signer, opts ...Option) []*x509.Certificate {
	return ca.IssueFor(id, key.Public(), opts...)
}

// IssueFor is Issue for a public key.
func (ca *CA) IssueFor(id spiffeid.ID, key crypto.PublicKey, opts ...Option) []*x509.Certificate {
	c := &x509.Certificate{
		URIs:        []*url.URL{id.URL()},
		NotBefore:   time.Now().Add(-2 * time.Minute), // as istiod does
		NotAfter:    time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, o := range opts {
		o(c)
	}
	return append([]*x509.Certificate{signPublic(c, ca.issuer, ca.key, key)}, ca.chain...)
}

// Issuer is what a program needs to issue by ca itself, as istiod does with a plugged-in authority: the issuer's certificate and those above it without
// the root, or the root where that is the issuer, and the issuer's key.
func (ca *CA) Issuer() ([]*x509.Certificate, crypto.Signer) {
	if len(ca.chain) == 0 {
		return []*x509.Certificate{ca.issuer}, ca.key
	}
	return slices.Clone(ca.chain), ca.key
}

// Bundle is the authority's trust bundle.
func (ca *CA) Bundle() *x509bundle.Bundle {
	return x509bundle.FromX509Authorities(ca.TrustDomain, []*x509.Certificate{ca.Root})
}

// Source is a fixed identity: id's SVID, trusting ca and the authorities in also.
func (ca *CA) Source(id spiffeid.ID, also ...*CA) *Source {
	s := &Source{CA: ca, bundles: x509bundle.NewSet(ca.Bundle())}
	for _, o := range also {
		s.bundles.Add(o.Bundle())
	}
	s.svid = ca.SVID(id)
	return s
}

// PEM encodes certificates.
func PEM(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

// KeyPEM encodes a key as PKCS #8.
func KeyPEM(key crypto.Signer) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	must(err)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func newKey() crypto.Signer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	return key
}

func sign(c, parent *x509.Certificate, signer crypto.Signer, key crypto.Signer) *x509.Certificate {
	if parent == nil {
		parent = c
	}
	return signPublic(c, parent, signer, key.Public())
}

func signPublic(c, parent *x509.Certificate, signer crypto.Signer, key crypto.PublicKey) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	must(err)
	c.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key, signer)
	must(err)
	cert, err := x509.ParseCertificate(der)
	must(err)
	return cert
}

func must(err error) {
	if err != nil {
		panic("identitytest: " + err.Error())
	}
}
