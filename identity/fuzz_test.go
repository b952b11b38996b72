package identity

import (
	"testing"
	"time"
)

// What stands in a file of lists becomes lists, or an error; nobody has signed them here, so none is in force.
func FuzzParseCRLs(f *testing.F) {
	f.Add([]byte("-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n"))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"))
	f.Add([]byte{0x30, 0x00})
	f.Fuzz(func(t *testing.T, text []byte) {
		lists, beside, err := parseCRLs(text)
		if (err == nil) != (len(lists) > 0) {
			t.Errorf("%d lists and %v", len(lists), err)
		}
		b := &belief{}
		if r, err := b.verify(lists, beside, time.Now()); len(lists) > 0 && err == nil {
			t.Errorf("%d lists are in force", len(r.lists))
		}
	})
}
