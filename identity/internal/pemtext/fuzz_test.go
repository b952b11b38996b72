package pemtext_test

import (
	"bytes"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/isthmus-mesh/isthmus/identity/internal/pemtext"
)

// What stands in the files becomes certificates and a key that signs, or an error.
func FuzzParse(f *testing.F) {
	ca := identitytest.NewCA(spiffeid.RequireTrustDomainFromString("cluster.local"))
	svid := ca.SVID(spiffeid.RequireFromString("spiffe://cluster.local/ns/edge/sa/gateway"))
	chain, key := identitytest.PEM(svid.Certificates...), identitytest.KeyPEM(svid.PrivateKey)
	f.Add(chain)
	f.Add(key)
	f.Add(append(key, chain...))
	f.Add(bytes.Repeat(chain, 4))
	f.Add([]byte("-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n"))
	f.Add([]byte("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		certs, err := pemtext.Certificates(text, 3)
		if (err == nil) != (len(certs) > 0) || len(certs) > 3 {
			t.Errorf("%d certificates and %v", len(certs), err)
		}
		signer, err := pemtext.Key(text)
		if (err == nil) != (signer != nil) {
			t.Errorf("key %v and %v", signer != nil, err)
		}
		if signer != nil && signer.Public() == nil {
			t.Error("a key without a public half")
		}
	})
}
