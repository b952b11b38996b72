package istioca

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/identity/identitytest"
)

// What an authority sends becomes certificates, at most so many, or an error.
func FuzzParseCertificates(f *testing.F) {
	ca := identitytest.NewCA(spiffeid.RequireTrustDomainFromString("cluster.local"))
	one := identitytest.PEM(ca.Root)
	f.Add(one)
	f.Add([]byte(strings.Repeat(string(one), 4)))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		certs, err := parseCertificates(text, 3)
		if (err == nil) != (len(certs) > 0) || len(certs) > 3 {
			t.Errorf("%d certificates and %v", len(certs), err)
		}
		for _, c := range certs {
			isRoot(c)
		}
	})
}

// What is said about a token is short, printable, and not the token.
func FuzzDescribe(f *testing.F) {
	id := spiffeid.RequireFromString("spiffe://cluster.local/ns/edge/sa/gateway")
	f.Add(`{"sub":"system:serviceaccount:edge:gateway","aud":["istio-ca"],"exp":1e9}`)
	f.Add(`{"aud":"x","exp":-1e300}`)
	f.Add(`{"aud":[["x"]]}`)
	f.Add(`null`)
	f.Fuzz(func(t *testing.T, body string) {
		encoded := base64.RawURLEncoding.EncodeToString([]byte(body))
		for _, token := range []string{body, "e30." + encoded + ".c2ln"} {
			said := describe(token, id)
			if len(said) > 4*(2*maxClaim+100) || strings.ContainsFunc(said, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Errorf("said %q", said)
			}
			if len(encoded) > 20 && strings.Contains(said, encoded) {
				t.Errorf("said the token: %q", said)
			}
		}
	})
}
