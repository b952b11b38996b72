package file_test

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/file"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/isthmus-mesh/isthmus/identity/internal/sourcetest"
)

// Volumes of Kubernetes are replaced by one rename of a link, time and again.
func TestMountIsReplaced(t *testing.T) {
	ca, dir := identitytest.NewCA(td), t.TempDir()
	first := ca.SVID(me)
	s := start(t, mount(t, dir, "..1", first, ca.Root))
	becomes(t, s, first)
	for i := range 5 {
		next := ca.SVID(me)
		mount(t, dir, "..next"+strconv.Itoa(i), next, ca.Root)
		becomes(t, s, next)
	}
	if st := s.Stats(); st.Generation != 6 || st.LastError != nil {
		t.Errorf("stats %+v", st)
	}
}

// csi-driver-spiffe of cert-manager, and many others, write the files one after the other in place, or by renaming new ones over them.
func TestFilesAreWrittenOver(t *testing.T) {
	ca, dir := identitytest.NewCA(td), t.TempDir()
	s := start(t, pair(t, dir, ca.Intermediate().SVID(me), ca.Root))
	next := ca.SVID(me)
	pair(t, dir, next, ca.Root)
	becomes(t, s, next)

	last, other := ca.SVID(me), t.TempDir()
	pair(t, other, last, ca.Root)
	for _, name := range []string{"tls.key", "tls.crt", "ca.crt"} {
		if err := os.Rename(filepath.Join(other, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	becomes(t, s, last)
}

// While the files do not fit together the old pair is served, and Stats say so; the other half brings the new pair.
func TestHalfWrittenPair(t *testing.T) {
	ca, dir := identitytest.NewCA(td), t.TempDir()
	old, next := ca.SVID(me), ca.SVID(me)
	cfg := pair(t, dir, old, ca.Root)
	s := start(t, cfg)
	for want, half := range map[string]func(){
		"do not belong together":               func() { write(t, cfg.Chain, identitytest.PEM(next.Certificates...)) },
		"tls.crt: there is no PEM certificate": func() { write(t, cfg.Chain, nil) },
		"tls.key: there is no PEM key":         func() { write(t, cfg.Key, []byte("-----BEGIN PRIV")) },
		"tls.crt: no such file":                func() { os.Remove(cfg.Chain) },
		"ca.crt: there is no PEM certificate":  func() { write(t, cfg.Roots, nil) },
		"does not lead to the roots":           func() { write(t, cfg.Roots, identitytest.PEM(identitytest.NewCA(td).Root)) },
		"expired at":                           func() { pair(t, dir, ca.SVID(me, identitytest.Expired), ca.Root) },
	} {
		pair(t, dir, old, ca.Root)
		half()
		reports(t, s, want)
		if svid, err := s.GetX509SVID(); err != nil || !svid.Certificates[0].Equal(old.Certificates[0]) {
			t.Errorf("%s: got %v, %v", want, svid, err)
		}
		if b, err := s.GetX509BundleForTrustDomain(td); err != nil || !b.HasX509Authority(ca.Root) {
			t.Errorf("%s: got %v, %v", want, b, err)
		}
	}
	pair(t, dir, next, ca.Root)
	becomes(t, s, next)
}

// Roots come and go while the certificate stays.
func TestRootsChange(t *testing.T) {
	ca, other, dir := identitytest.NewCA(td), identitytest.NewCA(td), t.TempDir()
	svid := ca.SVID(me)
	cfg := pair(t, dir, svid, ca.Root)
	s := start(t, cfg)
	changed := s.Changed()
	write(t, cfg.Roots, identitytest.PEM(ca.Root, other.Root))
	<-changed
	becomes(t, s, svid)
	b, err := s.GetX509BundleForTrustDomain(td)
	if err != nil || !b.HasX509Authority(other.Root) || !b.HasX509Authority(ca.Root) {
		t.Errorf("got %v, %v", b, err)
	}
}

// Files may be links to files elsewhere, which change there.
func TestLinksToFilesElsewhere(t *testing.T) {
	ca, there, here := identitytest.NewCA(td), t.TempDir(), t.TempDir()
	cfg := pair(t, there, ca.SVID(me), ca.Root)
	for _, path := range []*string{&cfg.Chain, &cfg.Key, &cfg.Roots} {
		link := filepath.Join(here, filepath.Base(*path))
		if err := os.Symlink(*path, link); err != nil {
			t.Fatal(err)
		}
		*path = link
	}
	s := start(t, cfg)
	next := ca.SVID(me)
	pair(t, there, next, ca.Root)
	becomes(t, s, next)
}

// A link above the files is replaced, of which no folder of the files tells: the interval finds it.
func TestNobodyTells(t *testing.T) {
	ca, dir := identitytest.NewCA(td), t.TempDir()
	for _, v := range []string{"v1", "v2"} {
		if err := os.Mkdir(filepath.Join(dir, v), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	current := filepath.Join(dir, "current")
	if err := os.Symlink("v1", current); err != nil {
		t.Fatal(err)
	}
	cfg := pair(t, current, ca.SVID(me), ca.Root)
	cfg.Interval = 20 * time.Millisecond
	next := ca.SVID(me)
	pair(t, filepath.Join(dir, "v2"), next, ca.Root)
	s := start(t, cfg)
	if err := os.Symlink("v2", current+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(current+".new", current); err != nil {
		t.Fatal(err)
	}
	becomes(t, s, next)
	third := ca.SVID(me)
	pair(t, filepath.Join(dir, "v2"), third, ca.Root)
	becomes(t, s, third)
	generation := s.Stats().Generation
	time.Sleep(100 * time.Millisecond) // a real clock: five looks at the same files
	if g := s.Stats().Generation; g != generation {
		t.Errorf("%d generations of the same files", g-generation)
	}
}

func TestNewRefuses(t *testing.T) {
	ca := identitytest.NewCA(td)
	for name, c := range map[string]struct {
		change func(*file.Config)
		want   string
	}{
		"no chain":      {func(c *file.Config) { c.Chain = "" }, "set Config.Chain"},
		"no key":        {func(c *file.Config) { c.Key = "" }, "set Config.Key"},
		"no roots":      {func(c *file.Config) { c.Roots = "" }, "set Config.Roots"},
		"missing chain": {func(c *file.Config) { c.Chain += ".x" }, "tls.crt.x: no such file"},
		"missing key":   {func(c *file.Config) { c.Key += ".x" }, "tls.key.x: no such file"},
		"missing roots": {func(c *file.Config) { c.Roots = "/nowhere/at/all" }, "/nowhere/at/all: no such file"},
		"a folder":      {func(c *file.Config) { c.Roots = filepath.Dir(c.Roots) }, "is a directory"},
		"expired":       {func(c *file.Config) { *c = pair(t, t.TempDir(), ca.SVID(me, identitytest.Expired), ca.Root) }, "expired at"},
		"not yet valid": {func(c *file.Config) { *c = pair(t, t.TempDir(), ca.SVID(me, identitytest.NotYetValid), ca.Root) }, "clocks"},
		"no identity":   {func(c *file.Config) { *c = pair(t, t.TempDir(), ca.SVID(me, identitytest.NoURI), ca.Root) }, "tls.crt: "},
		"other roots":   {func(c *file.Config) { write(t, c.Roots, identitytest.PEM(identitytest.NewCA(td).Root)) }, "does not lead to the roots"},
		"other key":     {func(c *file.Config) { write(t, c.Key, identitytest.KeyPEM(ca.SVID(me).PrivateKey)) }, "do not belong together"},
		"huge":          {func(c *file.Config) { write(t, c.Roots, make([]byte, 5<<20)) }, "has more than"},
		"encrypted key": {func(c *file.Config) { write(t, c.Key, block("ENCRYPTED PRIVATE KEY", []byte{1})) }, "is encrypted"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := pair(t, t.TempDir(), ca.SVID(me), ca.Root)
			c.change(&cfg)
			begin := time.Now()
			_, err := file.New(t.Context(), cfg)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if strings.HasPrefix(name, "missing") && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("got %v", err)
			}
			if took := time.Since(begin); took > 5*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestKindsOfKeys(t *testing.T) {
	ca := identitytest.NewCA(td)
	ec, err1 := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	rs, err2 := rsa.GenerateKey(rand.Reader, 2048)
	_, ed, err3 := ed25519.GenerateKey(rand.Reader)
	dh, err4 := ecdh.X25519().GenerateKey(rand.Reader)
	sec1, err5 := x509.MarshalECPrivateKey(ec)
	agree, err6 := x509.MarshalPKCS8PrivateKey(dh)
	if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		key  crypto.Signer
		text []byte
		want string // error
	}{
		"SEC 1":                              {ec, block("EC PRIVATE KEY", sec1), ""},
		"PKCS 1":                             {rs, block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rs)), ""},
		"PKCS 8, RSA":                        {rs, identitytest.KeyPEM(rs), ""},
		"PKCS 8, Ed25519":                    {ed, identitytest.KeyPEM(ed), ""},
		"after parameters and a certificate": {ec, append(append(block("EC PARAMETERS", []byte{5, 0}), identitytest.PEM(ca.Root)...), block("EC PRIVATE KEY", sec1)...), ""},
		"cannot sign":                        {ec, block("PRIVATE KEY", agree), "cannot sign"},
		"broken PKCS 8":                      {ec, block("PRIVATE KEY", sec1), "tls.key: "},
		"broken SEC 1":                       {ec, block("EC PRIVATE KEY", agree), "tls.key: "},
		"broken PKCS 1":                      {rs, block("RSA PRIVATE KEY", sec1), "tls.key: "},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := pair(t, t.TempDir(), &x509svid.SVID{ID: me, Certificates: ca.Issue(me, c.key), PrivateKey: c.key}, ca.Root)
			write(t, cfg.Key, c.text)
			s, err := file.New(t.Context(), cfg)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			s.Close()
		})
	}
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// The roots of one trust domain vouch for nobody of another, however the files change.
func TestRootsVouchForTheirDomainAlone(t *testing.T) {
	other := spiffeid.RequireTrustDomainFromString("other.example")
	ours, theirs, dir := identitytest.NewCA(td), identitytest.NewCA(other), t.TempDir()
	path := filepath.Join(dir, "other.pem")
	write(t, path, identitytest.PEM(theirs.Root))
	cfg := mount(t, dir, "..1", ours.SVID(me), ours.Root)
	cfg.Trust = identity.Trust{Federated: map[spiffeid.TrustDomain]string{other: path}, Interval: 10 * time.Millisecond}
	sourcetest.Federated(t, ours, theirs, func() *identity.Source { return start(t, cfg) }, func(ours, theirs *identitytest.CA) {
		write(t, path, identitytest.PEM(theirs.Root))
		mount(t, dir, "..2", ours.SVID(me), ours.Root)
	})
}
