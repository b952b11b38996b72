package istioca_test

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/isthmus-mesh/isthmus/identity/identitytest/istiocatest"
	"github.com/isthmus-mesh/isthmus/identity/internal/sourcetest"
	"github.com/isthmus-mesh/isthmus/identity/istioca"
)

var (
	td = spiffeid.RequireTrustDomainFromString("cluster.local")
	me = spiffeid.RequireFromString("spiffe://cluster.local/ns/edge/sa/gateway")
	he = spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/orders")
)

// TestMain fails when the package leaves goroutines.
func TestMain(m *testing.M) { sourcetest.Main(m, "istioca") }

// world is an authority, and the files of one who may ask it.
type world struct {
	t      *testing.T
	ca     *identitytest.CA
	server *istiocatest.Server
	cfg    istioca.Config
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, ca: identitytest.NewCA(td)}
	w.server = w.another()
	dir := t.TempDir()
	w.cfg = istioca.Config{
		Addresses: []string{w.server.Address()},
		RootsFile: filepath.Join(dir, "root-cert.pem"),
		TokenFile: filepath.Join(dir, "istio-token"),
		ID:        me,
	}
	w.write(w.cfg.RootsFile, w.server.RootPEM())
	w.write(w.cfg.TokenFile, []byte("good\n"))
	return w
}

// another is one more server of the same authority.
func (w *world) another() *istiocatest.Server {
	w.t.Helper()
	s, err := istiocatest.New(w.ca)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { s.Close() })
	s.Admit("good", me)
	return s
}

func (w *world) write(path string, data []byte) {
	w.t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// start is a Source that ends with the test.
func (w *world) start() *identity.Source {
	w.t.Helper()
	s, err := istioca.New(w.t.Context(), w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { s.Close() })
	return s
}

// refused is the error of New, which has one try, and so long.
func (w *world) refused(timeout time.Duration) error {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), timeout)
	defer cancel()
	w.cfg.Logger = slog.New(ender{slog.DiscardHandler, cancel})
	s, err := istioca.New(ctx, w.cfg)
	if err == nil {
		s.Close()
		w.t.Fatal("New gave a source")
	}
	return err
}

// ender ends something when there is something to log.
type ender struct {
	slog.Handler
	end func()
}

func (ender) Enabled(context.Context, slog.Level) bool { return true }

func (e ender) Handle(context.Context, slog.Record) error {
	e.end()
	return nil
}

// wait is for the next generation of s.
func (w *world) wait(changed <-chan struct{}) {
	w.t.Helper()
	select {
	case <-changed:
	case <-time.After(10 * time.Second):
		w.t.Fatal("no new generation")
	}
}

// jwt is a token with these claims and no signature worth the name.
func jwt(t *testing.T, claims map[string]any) string {
	t.Helper()
	body, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(`{"alg":"RS256"}`)) + "." + enc(body) + "." + enc([]byte("signature"))
}

var zero spiffeid.ID

// plainServer talks, but no TLS.
func plainServer(t *testing.T) string {
	return listen(t, func(c net.Conn) { c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) })
}

// silentServer takes connections and says nothing.
func silentServer(t *testing.T) string { return listen(t, func(net.Conn) {}) }

func listen(t *testing.T, talk func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			talk(c)
			wg.Go(func() {
				io.Copy(io.Discard, c)
				c.Close()
			})
		}
	})
	return l.Addr().String()
}

// refusing is an address where nobody listens.
func refusing(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// chain is PEM as an authority answers.
func chain(certs ...*x509.Certificate) []string {
	var out []string
	for _, c := range certs {
		out = append(out, string(identitytest.PEM(c)))
	}
	return out
}
