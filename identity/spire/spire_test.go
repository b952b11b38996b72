package spire_test

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/isthmus-mesh/isthmus/identity/internal/sourcetest"
	"github.com/isthmus-mesh/isthmus/identity/spire"
)

// Own and federated bundles come with the certificate, and what changes is pushed.
func TestWhatTheAgentBrings(t *testing.T) {
	a := newAgent(t)
	theirs := identitytest.NewCA(other)
	a.change(func() { a.roots[other] = append(a.roots[other], theirs.Root) })
	s := a.begin(nil)
	svid, err := s.GetX509SVID()
	if err != nil || svid.ID != me {
		t.Fatalf("got %v, %v", svid, err)
	}
	if id, _, err := x509svid.Verify(svid.Certificates, s); err != nil || id != me {
		t.Errorf("verify: %v, %v", id, err)
	}
	if b, err := s.GetX509BundleForTrustDomain(other); err != nil || !b.HasX509Authority(theirs.Root) {
		t.Errorf("federated: %v, %v", b, err)
	}

	changed := s.Changed()
	next := a.ca.SVID(me)
	a.change(func() { a.entries = []entry{{svid: next}} })
	<-changed
	if svid, err := s.GetX509SVID(); err != nil || !svid.Certificates[0].Equal(next.Certificates[0]) {
		t.Errorf("the next certificate: %v, %v", svid, err)
	}
	changed = s.Changed()
	a.change(func() { delete(a.roots, other) })
	<-changed
	if _, err := s.GetX509BundleForTrustDomain(other); err == nil {
		t.Error("a domain that is federated no more is trusted")
	}
	if st := s.Stats(); st.Generation != 3 || st.Failures != 0 {
		t.Errorf("stats %+v", st)
	}
}

// Of several identities one is chosen.
func TestChoice(t *testing.T) {
	a := newAgent(t)
	cart := a.ca.SVID(he)
	a.change(func() {
		a.entries = []entry{{svid: a.ca.SVID(me), hint: "internal"}, {svid: cart, hint: "external"}, {svid: a.ca.SVID(me), hint: "public"}}
	})
	for name, c := range map[string]struct {
		cfg  spire.Config
		want string // id, or error
	}{
		"the first":                 {spire.Config{}, me.String()},
		"by id":                     {spire.Config{ID: he}, he.String()},
		"by hint":                   {spire.Config{Hint: "external"}, he.String()},
		"by both":                   {spire.Config{ID: me, Hint: "public"}, me.String()},
		"nobody of that name":       {spire.Config{ID: td.ID()}, "does not have spiffe://cluster.local for this process, but " + me.String() + ` (hint "internal")`},
		"nobody with that hint":     {spire.Config{Hint: "none"}, `does not have hint "none"`},
		"nobody with both together": {spire.Config{ID: he, Hint: "public"}, he.String() + ` with hint "public"`},
	} {
		t.Run(name, func(t *testing.T) {
			c.cfg.Socket = a.socket // a plain path
			if !strings.HasPrefix(c.want, "spiffe://") || strings.Contains(c.want, " ") {
				if err := a.refused(c.cfg); !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %q", err, c.want)
				}
				return
			}
			s := a.begin(func(cfg *spire.Config) { *cfg = c.cfg })
			if svid, err := s.GetX509SVID(); err != nil || svid.ID.String() != c.want {
				t.Errorf("got %v, %v", svid, err)
			}
		})
	}
}

// An agent that goes away, however it ends its calls, is missed and found again; the certificate is shown meanwhile.
func TestTheAgentRestarts(t *testing.T) {
	for name, end := range map[string]error{"away": nil, "cancelled": status.Error(codes.Canceled, "stopping"), "not serving": status.Error(codes.InvalidArgument, "odd")} {
		t.Run(name, func(t *testing.T) {
			a := newAgent(t)
			s := a.begin(nil)
			if end == nil {
				a.stop()
			} else {
				a.change(func() { a.end = end })
			}
			sourcetest.Until(t, s, "an error", func() bool { return s.Stats().LastError != nil })
			if _, err := s.GetX509SVID(); err != nil {
				t.Error(err)
			}
			if end == nil && !strings.Contains(s.Stats().LastError.Error(), "is it running, and is its socket mounted here?") {
				t.Errorf("got %v", s.Stats().LastError)
			}
			next := a.ca.SVID(me)
			a.change(func() { a.entries, a.end = []entry{{svid: next}}, nil })
			if end == nil {
				a.start()
			}
			begin := time.Now()
			sourcetest.Until(t, s, "the next certificate", func() bool {
				svid, err := s.GetX509SVID()
				return err == nil && svid.Certificates[0].Equal(next.Certificates[0])
			})
			t.Logf("found again after %v", time.Since(begin).Round(time.Millisecond))
			if st := s.Stats(); st.LastError != nil || st.Generation != 2 {
				t.Errorf("stats %+v", st)
			}
		})
	}
}

// New says why there is nothing, and waits for it until its context ends.
func TestNothingYet(t *testing.T) {
	a := newAgent(t)
	a.change(func() { a.entries = nil })
	if err := a.refused(spire.Config{Socket: a.socket}); status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "is there a registration entry") {
		t.Errorf("got %v", err)
	}
	if err := a.refused(spire.Config{Socket: a.socket + ".not"}); !strings.Contains(err.Error(), "is it running") {
		t.Errorf("got %v", err)
	}
	go func() {
		time.Sleep(300 * time.Millisecond) // a real clock: New has been refused by then
		a.change(func() { a.entries = []entry{{svid: a.ca.SVID(me)}} })
	}()
	if _, err := a.begin(nil).GetX509SVID(); err != nil {
		t.Error(err)
	}
}

// What the agent sends is checked; nonsense is an error and changes nothing.
func TestNonsenseFromTheAgent(t *testing.T) {
	a := newAgent(t)
	s := a.begin(nil)
	first, err := s.GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	stranger := identitytest.NewCA(td)
	for name, f := range map[string]func(){
		"no identities": func() { a.odd = &workload.X509SVIDResponse{} },
		"rubbish": func() {
			a.odd = &workload.X509SVIDResponse{Svids: []*workload.X509SVID{{SpiffeId: me.String(), X509Svid: []byte("x")}}}
		},
		"a foreign root": func() { a.entries = []entry{{svid: stranger.SVID(me)}} },
		"expired":        func() { a.entries = []entry{{svid: a.ca.SVID(me, identitytest.Expired)}} },
	} {
		failures := s.Stats().Failures
		a.change(f)
		sourcetest.Until(t, s, name, func() bool { return s.Stats().Failures > failures })
		if svid, err := s.GetX509SVID(); err != nil || svid != first {
			t.Errorf("%s: got %v, %v", name, svid, err)
		}
		a.change(func() { a.odd, a.entries = nil, []entry{{svid: first}} })
		sourcetest.Until(t, s, "good again", func() bool { return s.Stats().LastError == nil })
	}
}

func TestSockets(t *testing.T) {
	t.Setenv("SPIFFE_ENDPOINT_SOCKET", "")
	for socket, want := range map[string]string{
		"": "set Config.Socket or SPIFFE_ENDPOINT_SOCKET", "agent.sock": "it must be a path", "http://127.0.0.1:80": "it must be a path", "unix://rel/ative": "it must be a path",
	} {
		if _, err := spire.New(t.Context(), spire.Config{Socket: socket}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", socket, err, want)
		}
	}
	a := newAgent(t)
	t.Setenv("SPIFFE_ENDPOINT_SOCKET", "unix://"+a.socket)
	if _, err := a.begin(func(c *spire.Config) { c.Socket = "" }).GetX509SVID(); err != nil {
		t.Error(err)
	}
}

// A list of revoked certificates counts for what the agent brings, too.
func TestTrustIsPassedOn(t *testing.T) {
	a := newAgent(t)
	s := a.begin(func(c *spire.Config) { c.Trust = identity.Trust{Additional: append(c.Trust.Additional, other)} })
	if _, err := s.GetX509BundleForTrustDomain(other); err != nil {
		t.Error(err)
	}
}

// The roots of one trust domain vouch for nobody of another, whatever the agent brings and when; what makes no sense changes nothing.
func TestRootsVouchForTheirDomainAlone(t *testing.T) {
	a := newAgent(t)
	theirs := identitytest.NewCA(other)
	bring := func(svid *x509svid.SVID, ours, theirs *x509.Certificate) {
		a.change(func() {
			a.entries, a.roots = []entry{{svid: svid}}, map[spiffeid.TrustDomain][]*x509.Certificate{td: {ours}, other: {theirs}}
		})
	}
	first := a.ca.SVID(me)
	bring(first, a.ca.Root, theirs.Root)
	var last *identitytest.CA
	s := sourcetest.Federated(t, a.ca, theirs, func() *identity.Source { return a.begin(nil) }, func(ours, theirs *identitytest.CA) {
		last = theirs
		bring(ours.SVID(me), ours.Root, theirs.Root)
	})
	bundle, err := s.GetX509BundleForTrustDomain(td)
	if err != nil {
		t.Fatal(err)
	}
	svid, err := s.GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	bring(svid, last.Root, bundle.X509Authorities()[0]) // each under the other's name
	sourcetest.Until(t, s, "an error", func() bool {
		err := s.Stats().LastError
		return err != nil && strings.Contains(err.Error(), "does not lead to the roots")
	})
	if b, err := s.GetX509BundleForTrustDomain(other); err != nil || !b.Equal(last.Bundle()) {
		t.Errorf("roots that were mixed up are believed: %v, %v", b, err)
	}
}
