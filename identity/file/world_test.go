package file_test

import (
	"bytes"
	"crypto/x509"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/file"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
)

var (
	td = spiffeid.RequireTrustDomainFromString("cluster.local")
	me = spiffeid.RequireFromString("spiffe://cluster.local/ns/edge/sa/gateway")
)

// TestMain fails when the package leaves goroutines.
func TestMain(m *testing.M) {
	code := m.Run()
	buf := make([]byte, 1<<20)
	for range 200 {
		stacks := buf[:runtime.Stack(buf, true)]
		if !bytes.Contains(stacks, []byte("identity.(*")) && !bytes.Contains(stacks, []byte("file.(*")) && !bytes.Contains(stacks, []byte("fsnotify.(*")) {
			os.Exit(code)
		}
		time.Sleep(10 * time.Millisecond) // a real clock: the watch is on its way out
	}
	os.Stderr.Write(buf[:runtime.Stack(buf, true)])
	os.Exit(1)
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// pair puts svid and the roots into dir, one after the other, and says where.
func pair(t *testing.T, dir string, svid *x509svid.SVID, roots ...*x509.Certificate) file.Config {
	t.Helper()
	cfg := file.Config{
		Chain: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key"), Roots: filepath.Join(dir, "ca.crt"),
		Interval: -1, // changes are told
	}
	write(t, cfg.Chain, identitytest.PEM(svid.Certificates...))
	write(t, cfg.Key, identitytest.KeyPEM(svid.PrivateKey))
	write(t, cfg.Roots, identitytest.PEM(roots...))
	return cfg
}

// mount puts svid and the roots into dir as Kubernetes mounts volumes: files are links through ..data to a folder that is replaced in one go.
func mount(t *testing.T, dir, version string, svid *x509svid.SVID, roots ...*x509.Certificate) file.Config {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	old, _ := os.Readlink(filepath.Join(dir, "..data"))
	must(os.Mkdir(filepath.Join(dir, version), 0o700))
	pair(t, filepath.Join(dir, version), svid, roots...)
	must(os.Symlink(version, filepath.Join(dir, "..data_tmp")))
	must(os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	cfg := file.Config{Interval: -1}
	for name, path := range map[string]*string{"tls.crt": &cfg.Chain, "tls.key": &cfg.Key, "ca.crt": &cfg.Roots} {
		*path = filepath.Join(dir, name)
		if old == "" {
			must(os.Symlink(filepath.Join("..data", name), *path))
		}
	}
	if old != "" {
		must(os.RemoveAll(filepath.Join(dir, old)))
	}
	return cfg
}

// start is a Source that ends with the test.
func start(t *testing.T, cfg file.Config) *identity.Source {
	t.Helper()
	s, err := file.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// becomes waits until s shows want.
func becomes(t *testing.T, s *identity.Source, want *x509svid.SVID) {
	t.Helper()
	end := time.After(10 * time.Second)
	for {
		changed := s.Changed()
		got, err := s.GetX509SVID()
		if err != nil {
			t.Fatal(err)
		}
		if got.Certificates[0].Equal(want.Certificates[0]) {
			return
		}
		select {
		case <-changed:
		case <-end:
			t.Fatalf("it does not change: %+v", s.Stats())
		}
	}
}

// reports waits until s reports an error with want in it.
func reports(t *testing.T, s *identity.Source, want string) {
	t.Helper()
	var st identity.Stats
	for range 1000 {
		if st = s.Stats(); st.LastError != nil && strings.Contains(st.LastError.Error(), want) {
			return
		}
		time.Sleep(10 * time.Millisecond) // a real clock: the kernel tells of the change
	}
	t.Fatalf("got %v, want %q", st.LastError, want)
}
