package identitytest

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/e2e/command"
	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/mesh/meshtest"
	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/isthmus-mesh/isthmus/identity/istioca"
)

// What a workload gets from istiod, what istiod refuses, and how it is to be without istiod.
func TestIstioCA(t *testing.T) {
	plugged := t.TempDir()
	m := meshtest.New(t, mesh.Options{Quick: true, IstiodEnv: []string{"ROOT_CA_DIR=" + plugged, "CA_TRUSTED_NODE_ACCOUNTS=istio-system/agent"}})
	sa := account(t, m, "edge", "gateway")
	good := token(t, m, sa, "istio-ca")

	isthmus := command.Build(t)

	t.Run("a workload", func(t *testing.T) { // beside the agent, which waits for most of its time
		t.Run("with Istio's agent", func(t *testing.T) {
			t.Parallel()
			istioAgent(t, m, isthmus, good)
		})
		t.Run("by itself", func(t *testing.T) {
			t.Parallel()
			byItself(t, m, isthmus, sa, good)
		})
	})
	t.Run("without istiod", func(t *testing.T) { withoutIstiod(t, m, good) })
	var issuer *identitytest.CA
	t.Run("another root", func(t *testing.T) { issuer = rotation(t, m, plugged, good) })
	if issuer != nil {
		t.Run("revoked", func(t *testing.T) { revoked(t, m, isthmus, plugged, issuer) })
	}
}

// byItself is how a workload, and whoever has several identities, asks istiod, and what it refuses.
func byItself(t *testing.T, m *mesh.Mesh, isthmus string, sa *corev1.ServiceAccount, good string) {
	t.Run("a certificate", func(t *testing.T) { certificate(t, m, good) })
	t.Run("from files", func(t *testing.T) { fromFiles(t, m, good) })
	t.Run("refused", func(t *testing.T) {
		foreign := token(t, m, account(t, m, "shop", "orders"), "istio-ca")
		wrongAudience := token(t, m, sa, "https://elsewhere.example")
		gone := account(t, m, "edge", "gone")
		late := token(t, m, gone, "istio-ca")
		if err := m.Client().Delete(t.Context(), gone); err != nil {
			t.Fatal(err)
		}
		stranger := identitytest.NewCA(gateway.TrustDomain())
		for name, c := range map[string]struct {
			change func(*istioca.Config)
			want   []string
			once   bool // New ends by itself
		}{
			"another audience": {func(c *istioca.Config) { *c = config(m, wrongAudience) }, []string{"refused", `its audience is "https://elsewhere.example", not istio-ca`}, true},
			"another service account": {func(c *istioca.Config) { *c = config(m, foreign) },
				[]string{"got spiffe://cluster.local/ns/shop/sa/orders", `it is of "system:serviceaccount:shop:orders"`}, true},
			"no token at all": {func(c *istioca.Config) { *c = config(m, "rubbish") }, []string{"refused", "it is no service account token"}, true},
			"another trust domain": {func(c *istioca.Config) {
				c.ID = spiffeid.RequireFromString("spiffe://other.example/ns/edge/sa/gateway")
			}, []string{"the trust domain differs"}, true},
			"a deleted account": {func(c *istioca.Config) {
				*c = config(m, late)
				c.ID = spiffeid.RequireFromString("spiffe://cluster.local/ns/edge/sa/gone")
			}, []string{"refused", "service account gone"}, false},
			"another root": {func(c *istioca.Config) {
				c.Roots = func() ([]byte, error) { return identitytest.PEM(stranger.Root), nil }
			}, []string{"ConfigMap istio-ca-root-cert"}, false},
			"another name": {func(c *istioca.Config) { c.ServerName = "istiod.elsewhere.svc" }, []string{"Config.ServerName", "istiod.elsewhere.svc"}, false},
			"another port": {func(c *istioca.Config) { c.Addresses = []string{m.Istiod.XDS.Addr().String() + ":15010"} }, []string{"is that the TLS port (15012)?"}, false},
		} {
			t.Run(name, func(t *testing.T) {
				cfg := config(m, good)
				c.change(&cfg)
				asked := 0
				cfg.Trace = &identity.Trace{RenewalFailed: func(identity.TraceRenewal) { asked++ }}
				err := once(t, cfg)
				if err == nil {
					t.Fatal("New gave a source")
				}
				if permanent := errors.Is(err, context.Canceled); permanent == c.once || asked != 1 {
					t.Errorf("it asked %d times, and gave up by itself: %v", asked, !permanent)
				}
				for _, want := range c.want {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%q is not in %v", want, err)
					}
				}
				if strings.Contains(err.Error(), good) || strings.Contains(err.Error(), wrongAudience) || strings.Contains(err.Error(), foreign) {
					t.Error("the error has the token")
				}
			})
		}
	})
	t.Run("the command", func(t *testing.T) { ofAnotherAuthority(t, m, isthmus, good) })
	t.Run("many identities", func(t *testing.T) { manyIdentities(t, m) })
	t.Run("a node agent", func(t *testing.T) { impersonate(t, m, isthmus) })
}

// certificate is of the life asked for, and leads to the mesh's root and no other.
func certificate(t *testing.T, m *mesh.Mesh, token string) {
	cfg := config(m, token)
	cfg.TTL = time.Hour
	begin := time.Now()
	s := start(t, cfg)
	t.Logf("the first certificate took %v", time.Since(begin).Round(time.Millisecond))
	svid, err := s.GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := x509bundle.Parse(gateway.TrustDomain(), m.RootPEM)
	if err != nil {
		t.Fatal(err)
	}
	if id, _, err := x509svid.Verify(svid.Certificates, bundle); err != nil || id != gateway || svid.ID != gateway {
		t.Errorf("got %v, %v", id, err)
	}
	if left := time.Until(svid.Certificates[0].NotAfter); left > time.Hour || left < 59*time.Minute {
		t.Errorf("lives %v", left)
	}
	trusted, err := s.GetX509BundleForTrustDomain(gateway.TrustDomain())
	if err != nil || !trusted.Equal(bundle) {
		t.Errorf("trusts %v, %v", trusted, err)
	}
}

// fromFiles is how a pod has it.
func fromFiles(t *testing.T, m *mesh.Mesh, token string) {
	cfg := config(m, "")
	cfg.Roots, cfg.Token = nil, nil
	cfg.RootsFile = filepath.Join(t.TempDir(), "root-cert.pem")
	cfg.TokenFile = filepath.Join(t.TempDir(), "istio-token")
	for path, text := range map[string]string{cfg.RootsFile: string(m.RootPEM), cfg.TokenFile: token + "\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := start(t, cfg).GetX509SVID(); err != nil {
		t.Error(err)
	}
}

// ofAnotherAuthority is the command where --istiod is not who signs, as with istio-csr.
func ofAnotherAuthority(t *testing.T, m *mesh.Mesh, isthmus, token string) {
	line := newCommandLine(t, m, isthmus)
	flags := append(line.istiod(token), "--istiod", "127.0.0.1:1", "--istiod-name", "elsewhere", "--ca", m.Istiod.CA.String(), "--ca-name", m.Istiod.ServerName, "--cert-ttl", "1h")
	line.is(line.run(flags...), gateway)
	r := line.run(append(flags, "--ca-name", "elsewhere")...)
	r.Want(t, 1, r.Stderr, "authority gave no certificate", "--ca-name is elsewhere")
}

// withoutIstiod the certificate in hand is served to its end; then nothing is, and the error says why; all is well when istiod is back, also for those
// who began in between.
func withoutIstiod(t *testing.T, m *mesh.Mesh, token string) {
	cfg := config(m, token)
	cfg.TTL = 8 * time.Second // renewed after 4 to 6.4 s
	s := start(t, cfg)
	first, err := s.GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.StopIstiod(); err != nil {
		t.Fatal(err)
	}
	late := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		defer cancel()
		late <- await(istioca.New(ctx, config(m, token)))
	}()

	served := 0
	var failed error
	for failed == nil && time.Until(first.Certificates[0].NotAfter) > -5*time.Second {
		var svid *x509svid.SVID
		if svid, failed = s.GetX509SVID(); failed == nil {
			served++
			if svid != first {
				t.Fatal("a new certificate without istiod")
			}
		}
		time.Sleep(50 * time.Millisecond) // a real clock: the certificate runs out
	}
	if left := time.Until(first.Certificates[0].NotAfter); left > 0 {
		t.Errorf("refused %v before its end: %v", left, failed)
	}
	if st := s.Stats(); served == 0 || st.Failures == 0 {
		t.Errorf("served %d times, %+v", served, st)
	}
	if failed == nil || !strings.Contains(failed.Error(), "expired at") || !strings.Contains(failed.Error(), "is istiod running") {
		t.Errorf("after its end: %v", failed)
	}

	changed := s.Changed()
	if err := m.StartIstiod(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	case <-time.After(60 * time.Second):
		t.Fatalf("no certificate with istiod: %+v", s.Stats())
	}
	if svid, err := s.GetX509SVID(); err != nil || svid == first {
		t.Errorf("got %v, %v", svid, err)
	}
	if err := <-late; err != nil {
		t.Errorf("one who began without istiod: %v", err)
	}
}

// await closes what was made.
func await(s *identity.Source, err error) error {
	if err != nil {
		return err
	}
	return s.Close()
}

// once is the error of New when it has one try.
func once(t *testing.T, cfg istioca.Config) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cfg.Logger = slog.New(ender{slog.DiscardHandler, cancel}) // when it says that it will try again
	return await(istioca.New(ctx, cfg))
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
