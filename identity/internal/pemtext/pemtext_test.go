package pemtext_test

import (
	"bytes"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/isthmus-mesh/isthmus/identity/internal/pemtext"
)

// A block that is damaged is not as if it were not there.
func TestDamagedBlocks(t *testing.T) {
	ca := identitytest.NewCA(spiffeid.RequireTrustDomainFromString("cluster.local"))
	one := identitytest.PEM(ca.Root)
	replace := func(a, b string) []byte { return bytes.Replace(one, []byte(a), []byte(b), 1) }
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for name, tt := range map[string]struct {
		text []byte
		n    int    // certificates
		want string // in the error; "": there is none
	}{
		"two":                        {join(one, one), 2, ""},
		"words around them":          {join([]byte("# the roots\n"), one, []byte("and\n"), one, []byte("-- end")), 2, ""},
		"lines of another system":    {bytes.ReplaceAll(one, []byte("\n"), []byte("\r\n")), 1, ""},
		"a key beside it":            {join(identitytest.KeyPEM(ca.SVID(spiffeid.RequireFromString("spiffe://cluster.local/a")).PrivateKey), one), 1, ""},
		"commented out":              {join(one, []byte("#-----BEGIN CERTIFICATE-----\n")), 1, ""},
		"what is no base64":          {join(one, replace("MII", "M!I")), 0, "block 2 is damaged"},
		"that before another":        {join(replace("MII", "M!I"), one), 0, "block 1 is damaged"},
		"that between others":        {join(one, replace("MII", "M!I"), one), 0, "block 2 is damaged"},
		"no beginning":               {join(replace("-----BEGIN", "----BEGIN"), one), 0, "block 1 is damaged"},
		"no end":                     {join(one, one[:len(one)-30]), 0, "block 2 is damaged"},
		"the end of another":         {join(replace("END CERT", "END X"), one), 0, "block 1 is damaged"},
		"indented":                   {join(one, []byte("  "), one), 0, "block 2 is damaged"},
		"each line indented":         {join(one, []byte("  "), bytes.ReplaceAll(one, []byte("\n"), []byte("\n  "))), 0, "block 2 is damaged"},
		"a mark of byte order":       {join([]byte("\ufeff"), one, one), 0, "block 1 is damaged"},
		"all in one line":            {bytes.ReplaceAll(one, []byte("\n"), []byte(`\n`)), 0, "block 1 is damaged"},
		"nothing":                    {nil, 0, "no PEM certificate"},
		"certificate that is damage": {join(one, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1}})), 0, "x509: "},
	} {
		certs, err := pemtext.Certificates(tt.text, 0)
		if len(certs) != tt.n || (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %d certificates, %v", name, len(certs), err)
		}
	}
}
