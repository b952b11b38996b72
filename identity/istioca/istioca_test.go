package istioca_test

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/isthmus-mesh/isthmus/identity/identitytest/istiocatest"
	"github.com/isthmus-mesh/isthmus/identity/istioca"
)

func TestCertificate(t *testing.T) {
	for name, intermediate := range map[string]bool{"by a root": false, "by an intermediate": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if intermediate {
				w.server.Rotate(w.ca.Intermediate())
			}
			w.cfg.TTL = 90 * time.Minute
			w.cfg.ClusterID = "west"
			s := w.start()
			svid, err := s.GetX509SVID()
			if err != nil {
				t.Fatal(err)
			}
			if id, _, err := x509svid.Verify(svid.Certificates, s); err != nil || id != me || svid.ID != me {
				t.Errorf("got %v, %v", id, err)
			}
			if want := map[bool]int{false: 1, true: 2}[intermediate]; len(svid.Certificates) != want {
				t.Errorf("%d certificates to show, want %d: the root stays at home", len(svid.Certificates), want)
			}
			bundle, err := s.GetX509BundleForTrustDomain(td)
			if err != nil || len(bundle.X509Authorities()) != 1 {
				t.Errorf("bundle %v, %v", bundle, err)
			}
			if left := time.Until(svid.Certificates[0].NotAfter); left < 89*time.Minute || left > 90*time.Minute {
				t.Errorf("lives %v", left)
			}
			reqs := w.server.Requests()
			if len(reqs) != 1 {
				t.Fatalf("%d requests", len(reqs))
			}
			r := reqs[0]
			if r.Token != "good" || r.ClusterID != "west" || r.TTL != 90*time.Minute || len(r.CSR.URIs) != 1 || r.CSR.URIs[0].String() != me.String() || r.CSR.PublicKeyAlgorithm.String() != "ECDSA" {
				t.Errorf("asked %+v", r)
			}
		})
	}
}

// Defaults are what istiod expects of a workload.
func TestDefaults(t *testing.T) {
	w := newWorld(t)
	w.start()
	if r := w.server.Requests()[0]; r.TTL != 24*time.Hour || r.ClusterID != "Kubernetes" {
		t.Errorf("asked %+v", r)
	}
}

func TestConfigThatCannotWork(t *testing.T) {
	for want, change := range map[string]func(*istioca.Config){
		"set Config.Addresses":           func(c *istioca.Config) { c.Addresses = nil },
		"it must be host:port":           func(c *istioca.Config) { c.Addresses = []string{"istiod.istio-system.svc"} },
		"set Config.ID":                  func(c *istioca.Config) { c.ID = zero },
		"set Config.RootsFile":           func(c *istioca.Config) { c.RootsFile = "" },
		"set Config.TokenFile":           func(c *istioca.Config) { c.TokenFile = "" },
		"set Config.TTL":                 func(c *istioca.Config) { c.TTL = -time.Hour },
		"set Config.TTL to a second or ": func(c *istioca.Config) { c.TTL = time.Millisecond },
	} {
		w := newWorld(t)
		change(&w.cfg)
		_, err := istioca.New(context.Background(), w.cfg)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// A token that the authority refuses ends New at once; the error says which token, what is wrong with it, and never what it is.
func TestRefusedToken(t *testing.T) {
	account := "system:serviceaccount:edge:gateway"
	for name, c := range map[string]struct {
		token string
		want  []string
	}{
		"no JWT":           {"rubbish", []string{"it is no service account token"}},
		"another account":  {jwt(t, map[string]any{"sub": "system:serviceaccount:shop:orders", "aud": []string{"istio-ca"}}), []string{`it is of "system:serviceaccount:shop:orders", not of ` + account}},
		"another audience": {jwt(t, map[string]any{"sub": account, "aud": "https://kubernetes.default.svc"}), []string{`its audience is "https://kubernetes.default.svc", not istio-ca`}},
		"no audience":      {jwt(t, map[string]any{"sub": account}), []string{`its audience is nobody, not istio-ca`}},
		"expired":          {jwt(t, map[string]any{"sub": account, "aud": []string{"istio-ca"}, "exp": 1e9}), []string{"it expired at 2001-09-09T01:46:40Z"}},
		"shouting":         {jwt(t, map[string]any{"sub": strings.Repeat("\x1b[31m", 100), "aud": []string{"istio-ca"}}), []string{`\x1b[31m`, "..."}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.write(w.cfg.TokenFile, []byte(c.token))
			_, err := istioca.New(t.Context(), w.cfg)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range append(c.want, "the token in "+w.cfg.TokenFile, "for audience istio-ca", w.server.Address(), me.String()) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in %v", want, err)
				}
			}
			if strings.Contains(err.Error(), c.token) || strings.Contains(err.Error(), "\x1b") {
				t.Errorf("the error has outside text as it is: %q", err)
			}
			if status.Code(errors.Unwrap(err)) != codes.Unauthenticated || w.server.Refused() != 1 {
				t.Errorf("%d calls: %v", w.server.Refused(), err)
			}
		})
	}
}

// A token that looks right may be refused because the authority cannot check it just now, so it is shown again.
func TestRefusedTokenThatLooksRight(t *testing.T) {
	w := newWorld(t)
	token := jwt(t, map[string]any{"sub": "system:serviceaccount:edge:gateway", "aud": []string{"istio-ca"}, "exp": time.Now().Add(time.Hour).Unix()})
	w.write(w.cfg.TokenFile, []byte(token))
	if err := w.refused(20 * time.Second); !strings.Contains(err.Error(), "can istiod not reach the API server?") || !strings.Contains(err.Error(), w.cfg.TokenFile) {
		t.Errorf("got %v", err)
	}
	w.server.Admit(token, me)
	w.start()
}

func TestPermissionDenied(t *testing.T) {
	w := newWorld(t)
	w.server.Answer(func(istiocatest.Request) ([]string, error) {
		return nil, status.Error(codes.PermissionDenied, "not here")
	})
	w.cfg.Token = func(context.Context) (string, error) { return "good", nil }
	if _, err := istioca.New(t.Context(), w.cfg); err == nil || !strings.Contains(err.Error(), "not here") || strings.Contains(err.Error(), w.cfg.TokenFile) {
		t.Errorf("got %v", err)
	}
}

func TestTokenAndRootsThatAreNotThere(t *testing.T) {
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		change func(*world)
		want   string
	}{
		"no token file":    {func(w *world) { w.cfg.TokenFile += ".x" }, "project a serviceAccountToken with audience istio-ca"},
		"empty token file": {func(w *world) { w.write(w.cfg.TokenFile, []byte("\n")) }, "istio-token is empty"},
		"no token":         {func(w *world) { w.cfg.Token = func(context.Context) (string, error) { return "", broken } }, "get token: broken"},
		"no roots file":    {func(w *world) { w.cfg.RootsFile += ".x" }, "mount ConfigMap istio-ca-root-cert"},
		"empty roots file": {func(w *world) { w.write(w.cfg.RootsFile, nil) }, "no certificate in the roots"},
		"no roots":         {func(w *world) { w.cfg.Roots = func() ([]byte, error) { return nil, broken } }, "get roots: broken"},
		"another root":     {func(w *world) { w.write(w.cfg.RootsFile, identitytest.PEM(identitytest.NewCA(td).Root)) }, "ConfigMap istio-ca-root-cert"},
		"another name":     {func(w *world) { w.cfg.ServerName = "elsewhere" }, "Config.ServerName"},
		"nobody there":     {func(w *world) { w.server.Stop() }, "is istiod running"},
		"not its TLS port": {func(w *world) { w.cfg.Addresses = []string{plainServer(w.t)} }, "is that the TLS port (15012)?"},
		"no connection": {func(w *world) {
			w.cfg.DialContext = func(context.Context, string, string) (net.Conn, error) { return nil, broken }
		}, "broken"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c.change(w)
			err := w.refused(20 * time.Second)
			if !strings.Contains(err.Error(), c.want) || !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if w.server.Refused()+len(w.server.Requests()) != 0 {
				t.Error("the token was shown")
			}
		})
	}
}

// Programs can tell what went wrong without reading the text.
func TestErrorsKeepTheirCauses(t *testing.T) {
	w := newWorld(t)
	w.write(w.cfg.RootsFile, identitytest.PEM(identitytest.NewCA(td).Root))
	err := w.refused(20 * time.Second)
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); !ok {
		t.Errorf("got %v", err)
	}
	var code interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &code) || code.GRPCStatus().Code() != codes.Unavailable {
		t.Errorf("got %v", err)
	}
}

// A token that no header can hold, such as a file of another kind that was named by mistake, is not told.
func TestTokensAreNotTold(t *testing.T) {
	for name, token := range map[string]string{
		"a key": string(identitytest.KeyPEM(identitytest.NewCA(td).SVID(me).PrivateKey)), "binary": "secret\x00\xff", "long": strings.Repeat("secret", 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.write(w.cfg.TokenFile, []byte(token))
			err := w.refused(20 * time.Second)
			if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "PRIVATE KEY") || len(err.Error()) > 4000 {
				t.Errorf("%.300v", err)
			}
		})
	}
}

func TestContextEndsInACall(t *testing.T) {
	w := newWorld(t)
	w.cfg.Addresses = []string{silentServer(t)}
	begin := time.Now()
	if err := w.refused(200 * time.Millisecond); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no answer") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := istioca.New(ctx, w.cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
