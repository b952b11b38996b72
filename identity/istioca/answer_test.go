package istioca_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/isthmus-mesh/isthmus/identity/identitytest/istiocatest"
	"github.com/isthmus-mesh/isthmus/identity/internal/sourcetest"
	"github.com/isthmus-mesh/isthmus/identity/istioca"
)

// What an authority answers is looked at before anybody shows it.
func TestBadAnswers(t *testing.T) {
	other := identitytest.NewCA(td)
	elsewhere := spiffeid.RequireTrustDomainFromString("elsewhere.example")
	signed := func(opts ...identitytest.Option) func(*world, istiocatest.Request) []string {
		return func(w *world, r istiocatest.Request) []string { return w.server.Sign(r, opts...) }
	}
	as := func(id spiffeid.ID) func(*world, istiocatest.Request) []string {
		return func(w *world, r istiocatest.Request) []string {
			r.ID = id
			return w.server.Sign(r)
		}
	}
	for name, c := range map[string]struct {
		answer func(*world, istiocatest.Request) []string
		want   string
	}{
		"nothing": {func(*world, istiocatest.Request) []string { return nil }, "no certificate"},
		"no PEM":  {func(*world, istiocatest.Request) []string { return []string{"sorry"} }, "no certificate"},
		"no DER": {func(*world, istiocatest.Request) []string {
			return []string{"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}
		}, "x509"},
		"another key":          {func(w *world, _ istiocatest.Request) []string { return chain(w.ca.SVID(me).Certificates...) }, "for another key"},
		"another id":           {as(he), "got " + he.String()},
		"another trust domain": {as(spiffeid.RequireFromPath(elsewhere, me.Path())), "the trust domain differs"},
		"two names":            {signed(identitytest.TwoURIs), "more than one URI SAN"},
		"no name":              {signed(identitytest.NoURI), "no URI SAN"},
		"no SPIFFE id":         {signed(identitytest.NotSPIFFE), "scheme"},
		"expired":              {signed(identitytest.Expired), "expired at"},
		"not yet valid":        {signed(identitytest.NotYetValid), "clocks"},
		"a leaf of another authority under our root": {func(w *world, r istiocatest.Request) []string {
			return append(chain(other.IssueFor(me, r.CSR.PublicKey)...), string(identitytest.PEM(w.ca.Root)))
		}, "does not lead to the roots"},
		"a leaf of another authority alone": {func(_ *world, r istiocatest.Request) []string {
			return chain(other.IssueFor(me, r.CSR.PublicKey)...)
		}, "does not lead to the roots"},
		"another authority's intermediate, without its root": {func(_ *world, r istiocatest.Request) []string {
			return chain(other.Intermediate().IssueFor(me, r.CSR.PublicKey)...)
		}, "does not lead to the roots"},
		"an endless chain": {func(w *world, r istiocatest.Request) []string { return slices.Repeat(w.server.Sign(r), 20) }, "more than 16 certificates"},
		"a huge answer": {func(w *world, r istiocatest.Request) []string {
			return append(w.server.Sign(r), strings.Repeat("#", 2<<20))
		}, "too large"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.server.Answer(func(r istiocatest.Request) ([]string, error) { return c.answer(w, r), nil })
			if err := w.refused(20 * time.Second); !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// A configured intermediate may be the whole of what we trust the authority by.
func TestChainWithoutRoot(t *testing.T) {
	w := newWorld(t)
	w.server.Rotate(w.ca.Intermediate())
	w.server.Answer(func(r istiocatest.Request) ([]string, error) {
		full := w.server.Sign(r)
		return full[:len(full)-1], nil
	})
	svid, err := w.start().GetX509SVID()
	if err != nil || len(svid.Certificates) != 2 {
		t.Errorf("got %v, %v", svid, err)
	}
}

// Addresses are tried in turn, also when the first takes connections and never answers.
func TestSeveralAddresses(t *testing.T) {
	w := newWorld(t)
	second := w.another()
	for name, first := range map[string]string{"refuses": refusing(t), "is silent": silentServer(t), "talks no TLS": plainServer(t)} {
		t.Run(name, func(t *testing.T) {
			cfg := w.cfg
			cfg.Addresses = []string{first, second.Address()}
			before := len(second.Requests())
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second) // half of it for each
			defer cancel()
			s, err := istioca.New(ctx, cfg)
			if err != nil {
				t.Fatal(err)
			}
			s.Close()
			if n := len(second.Requests()) - before; n != 1 {
				t.Errorf("the second was asked %d times", n)
			}
		})
	}
	t.Run("all are away", func(t *testing.T) {
		w.cfg.Addresses = []string{refusing(t), plainServer(t)}
		err := w.refused(20 * time.Second)
		for _, a := range w.cfg.Addresses {
			if !strings.Contains(err.Error(), a) {
				t.Errorf("%s is not in %v", a, err)
			}
		}
	})
}

// An authority that cannot just now is asked again.
func TestAuthorityThatRecovers(t *testing.T) {
	w := newWorld(t)
	calls := 0
	w.server.Answer(func(r istiocatest.Request) ([]string, error) {
		if calls++; calls == 1 {
			return nil, status.Error(codes.Unavailable, "starting")
		}
		return w.server.Sign(r), nil
	})
	w.start()
	if calls != 2 {
		t.Errorf("%d calls", calls)
	}
}

// Every renewal reads the token again and makes a new key; refusals while running are no end.
func TestRenewal(t *testing.T) {
	w := newWorld(t)
	w.cfg.TTL = 3 * time.Second // renewed after 1.5 to 2.4 s
	s := w.start()
	first, err := s.GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	changed := s.Changed()
	w.server.Expel("good")
	w.write(w.cfg.TokenFile, []byte("better"))
	for s.Stats().Failures == 0 {
		time.Sleep(10 * time.Millisecond)
	}
	if svid, err := s.GetX509SVID(); err != nil || svid != first {
		t.Errorf("the old one: %v, %v", svid, err)
	}
	if st := s.Stats(); !strings.Contains(st.LastError.Error(), "refused") {
		t.Errorf("stats %+v", st)
	}
	w.server.Admit("better", me)
	w.wait(changed)
	second, err := s.GetX509SVID()
	if err != nil || first.PrivateKey == second.PrivateKey {
		t.Errorf("got %v, %v", second, err)
	}
	reqs := w.server.Requests()
	if last := reqs[len(reqs)-1]; last.Token != "better" || last.CSR.PublicKey == reqs[0].CSR.PublicKey {
		t.Errorf("asked %+v", last)
	}
}

// A new root is trusted beside the old one until the roots file has only the new; neither waits for the certificate's end.
func TestRootRotation(t *testing.T) {
	w := newWorld(t)
	w.cfg.RootsInterval = 5 * time.Millisecond
	s := w.start()
	next := identitytest.NewCA(td)
	trusted := func() (old, added bool) {
		t.Helper()
		b, err := s.GetX509BundleForTrustDomain(td)
		if err != nil {
			t.Fatal(err)
		}
		return b.HasX509Authority(w.ca.Root), b.HasX509Authority(next.Root)
	}
	if old, added := trusted(); !old || added {
		t.Fatalf("at first: %v %v", old, added)
	}

	changed := s.Changed()
	w.write(w.cfg.RootsFile, identitytest.PEM(w.ca.Root, next.Root))
	w.wait(changed)
	if old, added := trusted(); !old || !added {
		t.Errorf("in between: %v %v", old, added)
	}

	w.server.Rotate(next)
	for { // a file is not written in one go
		changed = s.Changed()
		w.write(w.cfg.RootsFile, identitytest.PEM(next.Root))
		w.wait(changed)
		if old, added := trusted(); !old && added {
			break
		}
	}
	svid, err := s.GetX509SVID()
	if err != nil || svid.Certificates[0].CheckSignatureFrom(next.Root) != nil {
		t.Errorf("got %v, %v", svid, err)
	}

	asked := len(w.server.Requests())
	if err := os.Remove(w.cfg.RootsFile); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond) // a real clock: ten looks at a file that is gone
	if _, err := s.GetX509SVID(); err != nil || len(w.server.Requests()) != asked {
		t.Errorf("without the file: %v", err)
	}
}

// Roots in use are not asked for again and again; a negative interval does not look at all.
func TestRootsAreLeftAlone(t *testing.T) {
	for name, interval := range map[string]time.Duration{"same": time.Millisecond, "never": -1} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.cfg.RootsInterval = interval
			s := w.start()
			if interval < 0 {
				w.write(w.cfg.RootsFile, identitytest.PEM(w.ca.Root, identitytest.NewCA(td).Root))
			}
			time.Sleep(30 * time.Millisecond) // a real clock: time for what must not happen
			if n := len(w.server.Requests()); n != 1 || s.Stats().Generation != 1 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// A root that the authority already issues by, and the file does not have yet, is trusted in addition.
func TestNewRootBeforeTheFileHasIt(t *testing.T) {
	w := newWorld(t)
	next := identitytest.NewCA(td)
	w.server.Answer(func(r istiocatest.Request) ([]string, error) {
		return append(chain(next.IssueFor(me, r.CSR.PublicKey)...), string(identitytest.PEM(next.Root))), nil
	})
	b, err := w.start().GetX509BundleForTrustDomain(td)
	if err != nil || !b.HasX509Authority(w.ca.Root) || !b.HasX509Authority(next.Root) {
		t.Errorf("got %v, %v", b, err)
	}
}

func TestCloseEndsACall(t *testing.T) {
	w := newWorld(t)
	w.cfg.TTL = time.Second
	inCall, answer := make(chan struct{}, 1), make(chan struct{})
	t.Cleanup(func() { close(answer) }) // before the server's end, which waits for its calls
	s := w.start()
	w.server.Answer(func(r istiocatest.Request) ([]string, error) {
		inCall <- struct{}{}
		<-answer
		return w.server.Sign(r), nil
	})
	<-inCall
	begin := time.Now()
	s.Close()
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	if _, err := s.GetX509SVID(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

// The roots of one trust domain vouch for nobody of another, also when the mesh's root and the other's are replaced.
func TestRootsVouchForTheirDomainAlone(t *testing.T) {
	other := spiffeid.RequireTrustDomainFromString("other.example")
	w, theirs := newWorld(t), identitytest.NewCA(other)
	path := filepath.Join(t.TempDir(), "other.pem")
	w.write(path, identitytest.PEM(theirs.Root))
	w.cfg.RootsInterval = 5 * time.Millisecond
	w.cfg.Trust = identity.Trust{Federated: map[spiffeid.TrustDomain]string{other: path}, Interval: 10 * time.Millisecond}
	sourcetest.Federated(t, w.ca, theirs, w.start, func(ours, theirs *identitytest.CA) {
		w.write(path, identitytest.PEM(theirs.Root))
		w.server.Rotate(ours)
		w.write(w.cfg.RootsFile, identitytest.PEM(ours.Root))
	})
}
