package identitytest

import (
	"crypto/x509"
	"net/url"
	"time"
)

// Option changes a certificate before it is signed. TwoURIs, NoURI, NotSPIFFE, WrongPath, Expired, NotYetValid and WrongUsage are Options that make
// certificates which nobody should accept.
type Option func(*x509.Certificate)

// Bad are the Options that make a certificate which no peer should accept, by their names. WrongPath is among them for peers that expect
// a service account. Revoked and foreign certificates are made by others means: CA.CRL or Source.Revoke, and another CA.
func Bad() map[string]Option {
	return map[string]Option{
		"TwoURIs": TwoURIs, "NoURI": NoURI, "NotSPIFFE": NotSPIFFE, "WrongPath": WrongPath,
		"Expired": Expired, "NotYetValid": NotYetValid, "WrongUsage": WrongUsage,
	}
}

// TwoURIs gives a certificate a second identity.
func TwoURIs(c *x509.Certificate) {
	c.URIs = append(c.URIs, &url.URL{Scheme: "spiffe", Host: "cluster.local", Path: "/ns/other/sa/other"})
}

// NoURI leaves the identity out.
func NoURI(c *x509.Certificate) { c.URIs = nil }

// NotSPIFFE makes the identity a web address.
func NotSPIFFE(c *x509.Certificate) {
	c.URIs = []*url.URL{{Scheme: "https", Host: "example.com"}}
}

// WrongPath makes the identity one that is no service account's.
func WrongPath(c *x509.Certificate) {
	c.URIs = []*url.URL{{Scheme: "spiffe", Host: "cluster.local", Path: "/somebody/else"}}
}

// Expired makes a certificate that ended an hour ago.
func Expired(c *x509.Certificate) { c.NotBefore, c.NotAfter = ago(2*time.Hour), ago(time.Hour) }

// NotYetValid makes a certificate that begins in an hour.
func NotYetValid(c *x509.Certificate) { c.NotBefore, c.NotAfter = ago(-time.Hour), ago(-2*time.Hour) }

// WrongUsage makes a certificate that may sign code and nothing else.
func WrongUsage(c *x509.Certificate) {
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
}

// ValidIn makes a certificate that begins after d.
func ValidIn(d time.Duration) Option {
	return func(c *x509.Certificate) { c.NotBefore = time.Now().Add(d) }
}

// Lifetime makes a certificate that ends after d.
func Lifetime(d time.Duration) Option {
	return func(c *x509.Certificate) { c.NotAfter = time.Now().Add(d) }
}

func ago(d time.Duration) time.Time { return time.Now().Add(-d) }
