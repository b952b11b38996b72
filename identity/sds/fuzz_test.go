package sds

import (
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// What an agent sends becomes a certificate with its key, or roots, or an error.
func FuzzSecret(f *testing.F) {
	f.Add([]byte{})
	f.Add(protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), []byte("default")))
	f.Add(protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), []byte{0x0a, 0x02, 0x12, 0x00}))
	f.Add(protowire.AppendBytes(protowire.AppendTag(nil, 4, protowire.BytesType), []byte{0x62, 0x04, 0x12, 0x02, 0x12, 0x00}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if svid, err := parseCertificate(b, ""); err == nil && (svid.ID.IsZero() || len(svid.Certificates) == 0 || svid.PrivateKey == nil) {
			t.Errorf("got %+v", svid)
		}
		r, err := parseRoots(b, "")
		if err != nil {
			return
		}
		if r.own == nil && r.domains.Len() == 0 {
			t.Error("there is nobody to trust")
		}
	})
}
