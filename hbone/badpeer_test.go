package hbone_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// badPeers are what a peer may show, and what is said about it: by who sees it, or by itself when it does not dare to show it.
func badPeers(t *testing.T, ca *identitytest.CA, id spiffeid.ID) map[string]badPeer {
	foreign := spiffeid.RequireFromString("spiffe://other.example/ns/shop/sa/orders")
	stranger := identitytest.NewCA(td)
	list := map[string]badPeer{
		"of another authority":       {svid: stranger.SVID(id), seen: "its chain does not hold"},
		"of another trust domain":    {svid: identitytest.NewCA(foreign.TrustDomain()).SVID(foreign), seen: "its trust domain is not trusted here"},
		"without its intermediate":   {svid: withoutChain(ca.Intermediate().SVID(id)), seen: "its chain does not hold"},
		"of a cross-signed stranger": {svid: stranger.CrossSign(identitytest.NewCA(td)).SVID(id), seen: "its chain does not hold"},
		"revoked":                    {svid: ca.SVID(id), revoke: true, seen: "it is not to be trusted, it is " + id.String()},
		"of a revoked authority": {svid: ca.Intermediate().SVID(id), revoked: 1, revoke: true,
			seen: "the certificate of authority CN=cluster.local intermediate"},
		"that ends too early": {svid: ca.Intermediate().SVID(id, identitytest.Lifetime(-time.Minute)),
			own: "own identity: the certificate of " + id.String() + " expired"},
	}
	said := map[string]badPeer{
		"TwoURIs": {seen: "it has 2 URI names"}, "NoURI": {seen: "it has 0 URI names"}, "NotSPIFFE": {seen: "is no SPIFFE id"},
		"WrongPath": {seen: "it is somebody else"}, "Expired": {own: "expired at"},
		"NotYetValid": {seen: "its chain does not hold yet: it begins in "}, "WrongUsage": {seen: "its chain does not hold"},
	}
	for name, option := range identitytest.Bad() {
		c, ok := said[name]
		if !ok {
			t.Errorf("nothing is expected of %s", name)
		}
		c.svid = ca.SVID(id, option)
		list[name] = c
	}
	return list
}

type badPeer struct {
	svid    *x509svid.SVID
	revoke  bool
	revoked int // of the chain
	seen    string
	own     string
}

func withoutChain(s *x509svid.SVID) *x509svid.SVID {
	s.Certificates = s.Certificates[:1]
	return s
}

// handshakes keeps how a server's handshakes went.
type handshakes struct {
	mu   sync.Mutex
	errs []error
}

func (h *handshakes) trace() *hbone.Trace {
	return &hbone.Trace{HandshakeDone: func(c hbone.TraceConn) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.errs = append(h.errs, c.Err)
	}}
}

// last waits for one and gives its error.
func (h *handshakes) last(t *testing.T) error {
	t.Helper()
	for range 500 {
		h.mu.Lock()
		n := len(h.errs)
		if n > 0 {
			defer h.mu.Unlock()
			return h.errs[n-1]
		}
		h.mu.Unlock()
		time.Sleep(10 * time.Millisecond) // a real clock: it is on its way
	}
	t.Fatal("no handshake has ended")
	return nil
}

// A server that shows a bad certificate is refused, and both ends say why.
func TestBadServers(t *testing.T) {
	ca := identitytest.NewCA(td)
	for name, c := range badPeers(t, ca, sa("shop", "orders")) {
		t.Run(name, func(t *testing.T) {
			h, id := &handshakes{}, ca.Source(sa("shop", "orders"))
			id.Set(c.svid)
			m := newMesh(t, echo, func(s *hbone.Server) { s.Identity, s.Trace = id, h.trace() })
			source := ca.Source(sa("edge", "gateway"))
			m.dialer.Identity = source
			if c.revoke {
				source.Revoke(c.svid.Certificates[c.revoked])
			}
			_, err := m.dialer.DialContext(t.Context(), "tcp", "orders:80")
			there := h.last(t)
			if err == nil || there == nil || !hbone.SafeToRetry(err) {
				t.Fatalf("here %v, there %v", err, there)
			}
			if c.own != "" {
				wantText(t, there, c.own)
				wantText(t, err, "broke TLS off")
				return
			}
			wantText(t, err, c.seen)
			if _, ok := errors.AsType[*hbone.PeerError](err); !ok {
				t.Errorf("no PeerError: %v", err)
			}
			wantText(t, there, "remote error")
		})
	}
}

// A client that shows a bad certificate is refused, and both ends say why.
func TestBadClients(t *testing.T) {
	ca := identitytest.NewCA(td)
	for name, c := range badPeers(t, ca, sa("edge", "gateway")) {
		if name == "WrongPath" {
			continue // a server takes everybody of its trust domain; policies do the rest
		}
		t.Run(name, func(t *testing.T) {
			h, id := &handshakes{}, ca.Source(sa("shop", "orders"))
			if c.revoke {
				id.Revoke(c.svid.Certificates[c.revoked])
			}
			m := newMesh(t, echo, func(s *hbone.Server) { s.Identity, s.Trace = id, h.trace() })
			source := ca.Source(sa("edge", "gateway"))
			source.Set(c.svid)
			m.dialer.Identity = source
			_, err := m.dialer.DialContext(t.Context(), "tcp", "orders:80")
			if err == nil || !hbone.SafeToRetry(err) {
				t.Fatalf("got %v", err)
			}
			if c.own != "" {
				wantText(t, err, c.own)
				return
			}
			there := h.last(t)
			if _, ok := errors.AsType[*hbone.PeerError](there); !ok {
				t.Errorf("no PeerError: %v", there)
			}
			wantText(t, there, c.seen)
			wantText(t, err, "broke TLS off")
		})
	}
}

func wantText(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}
