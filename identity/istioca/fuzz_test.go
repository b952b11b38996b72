package istioca

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/identity/identitytest"
)

// What an authority answers, and what is in the roots, becomes a certificate of ours for our key with somebody to trust, or an error.
func FuzzAnswer(f *testing.F) {
	id := spiffeid.RequireFromString("spiffe://cluster.local/ns/edge/sa/gateway")
	key, _, err := newRequest(id)
	if err != nil {
		f.Fatal(err)
	}
	ca := identitytest.NewCA(id.TrustDomain())
	root := identitytest.PEM(ca.Root)
	for _, by := range []*identitytest.CA{ca, ca.Intermediate()} {
		chain := identitytest.PEM(by.Issue(id, key)...)
		f.Add(string(chain), string(root), root)
		f.Add(string(chain), "", root)
		f.Add(string(root), string(chain), root)
	}
	f.Add("", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", []byte("\x00"))
	c := &client{cfg: Config{ID: id}}
	f.Fuzz(func(t *testing.T, first, second string, roots []byte) {
		m, err := c.material("istiod:15012", "token", key, []string{first, second}, roots)
		if err != nil {
			if m != nil || len(err.Error()) > 5000 {
				t.Errorf("%+v and an error of %d bytes", m, len(err.Error()))
			}
			return
		}
		b, ok := m.Bundles.Get(id.TrustDomain())
		if m.SVID.ID != id || len(m.SVID.Certificates) == 0 || !key.PublicKey.Equal(m.SVID.Certificates[0].PublicKey) || !ok || b.Empty() || m.Bundles.Len() != 1 {
			t.Errorf("got %+v", m)
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
