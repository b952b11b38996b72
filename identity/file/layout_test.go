package file_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/isthmus-mesh/isthmus/identity/file"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
)

// volume is a folder that is written as kubelet and csi-lib do it: a folder of its own for each version, a link to it that is replaced by a rename, and
// links through that link for what is seen.
type volume struct {
	t     *testing.T
	dir   string
	count int
}

func newVolume(t *testing.T) *volume { return &volume{t: t, dir: t.TempDir()} }

func (v *volume) path(name string) string { return filepath.Join(v.dir, name) }

// write replaces all files.
func (v *volume) write(files map[string][]byte) {
	v.t.Helper()
	must := func(err error) {
		v.t.Helper()
		if err != nil {
			v.t.Fatal(err)
		}
	}
	v.count++
	version := fmt.Sprintf("..2026_11_29_02_00_%02d.%09d", v.count, 1000*v.count)
	old, _ := os.Readlink(v.path("..data")) // none at first
	must(os.Mkdir(v.path(version), 0o755))
	for name, data := range files {
		must(os.WriteFile(filepath.Join(v.dir, version, name), data, 0o444))
	}
	must(os.Symlink(version, v.path("..data_tmp")))
	must(os.Rename(v.path("..data_tmp"), v.path("..data")))
	for name := range files {
		if _, err := os.Lstat(v.path(name)); err != nil {
			must(os.Symlink(filepath.Join("..data", name), v.path(name)))
		}
	}
	if old != "" {
		must(os.RemoveAll(v.path(old)))
	}
}

// secret is what cert-manager keeps in a Secret: the chain without the root, the key, and the root.
func secret(svid *x509svid.SVID, ca *identitytest.CA) map[string][]byte {
	return map[string][]byte{
		"tls.crt": identitytest.PEM(svid.Certificates...), "tls.key": identitytest.KeyPEM(svid.PrivateKey), "ca.crt": identitytest.PEM(ca.Root),
	}
}

// Each way in which others lay files down, through five renewals and a rotation of the root: the new root is trusted first.
func TestLayouts(t *testing.T) {
	for name, layout := range map[string]func(t *testing.T) (file.Config, func(*x509svid.SVID, ...*identitytest.CA)){
		"a Secret of cert-manager, and csi-driver-spiffe": func(t *testing.T) (file.Config, func(*x509svid.SVID, ...*identitytest.CA)) {
			v := newVolume(t)
			return file.Config{Chain: v.path("tls.crt"), Key: v.path("tls.key"), Roots: v.path("ca.crt")}, func(s *x509svid.SVID, cas ...*identitytest.CA) {
				files := secret(s, cas[0])
				for _, ca := range cas[1:] {
					files["ca.crt"] = append(files["ca.crt"], identitytest.PEM(ca.Root)...)
				}
				v.write(files)
			}
		},
		"cert-manager's combined PEM": func(t *testing.T) (file.Config, func(*x509svid.SVID, ...*identitytest.CA)) {
			v := newVolume(t)
			return file.Config{Chain: v.path("tls-combined.pem"), Key: v.path("tls-combined.pem"), Roots: v.path("ca.crt")}, func(s *x509svid.SVID, cas ...*identitytest.CA) {
				files := secret(s, cas[0])
				files["tls-combined.pem"] = append(identitytest.KeyPEM(s.PrivateKey), files["tls.crt"]...)
				for _, ca := range cas[1:] {
					files["ca.crt"] = append(files["ca.crt"], identitytest.PEM(ca.Root)...)
				}
				v.write(files)
			}
		},
		"roots in a ConfigMap of trust-manager or Istio": func(t *testing.T) (file.Config, func(*x509svid.SVID, ...*identitytest.CA)) {
			v, roots := newVolume(t), newVolume(t)
			return file.Config{Chain: v.path("tls.crt"), Key: v.path("tls.key"), Roots: roots.path("root-cert.pem")}, func(s *x509svid.SVID, cas ...*identitytest.CA) {
				var pem []byte
				for _, ca := range cas {
					pem = append(pem, identitytest.PEM(ca.Root)...)
				}
				roots.write(map[string][]byte{"root-cert.pem": pem})
				v.write(secret(s, cas[0]))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			ca, next := identitytest.NewCA(td), identitytest.NewCA(td)
			cfg, put := layout(t)
			cfg.Interval = -1 // changes are told
			first := ca.Intermediate().SVID(me)
			put(first, ca)
			s := start(t, cfg)
			becomes(t, s, first)
			for range 5 {
				svid := ca.Intermediate().SVID(me)
				put(svid, ca)
				becomes(t, s, svid)
			}
			both := ca.SVID(me)
			put(both, ca, next)
			becomes(t, s, both)
			trusts(t, s, ca, next)
			turned := next.SVID(me)
			put(turned, next, ca)
			becomes(t, s, turned)
			last := next.SVID(me)
			put(last, next)
			becomes(t, s, last)
			trusts(t, s, next)
			if st := s.Stats(); st.LastError != nil {
				t.Errorf("stats %+v", st)
			}
		})
	}
}

// trusts waits until s trusts those authorities and no others.
func trusts(t *testing.T, s x509bundle.Source, cas ...*identitytest.CA) {
	t.Helper()
	var n int
	for range 1000 {
		b, err := s.GetX509BundleForTrustDomain(td)
		if err != nil {
			t.Fatal(err)
		}
		n = len(b.X509Authorities())
		all := n == len(cas)
		for _, ca := range cas {
			all = all && b.HasX509Authority(ca.Root)
		}
		if all {
			return
		}
		time.Sleep(10 * time.Millisecond) // a real clock: the kernel tells of the change
	}
	t.Errorf("it trusts %d authorities", n)
}
