package istioca

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

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
