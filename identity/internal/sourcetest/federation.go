package sourcetest

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
)

// Federated fails when the source that begin gives, whose authority is ours and that is federated with theirs, lets the roots of one trust domain vouch for the
// other, also after turn has replaced both by others.
func Federated(t *testing.T, ours, theirs *identitytest.CA, begin func() *identity.Source, turn func(ours, theirs *identitytest.CA)) *identity.Source {
	t.Helper()
	s := begin()
	Believes(t, s, []*identitytest.CA{ours, theirs}, identitytest.NewCA(ours.TrustDomain), identitytest.NewCA(theirs.TrustDomain))
	next := []*identitytest.CA{identitytest.NewCA(ours.TrustDomain), identitytest.NewCA(theirs.TrustDomain)}
	turn(next[0], next[1])
	Until(t, s, "the roots of after", func() bool {
		return !slices.ContainsFunc(next, func(ca *identitytest.CA) bool {
			b, err := s.GetX509BundleForTrustDomain(ca.TrustDomain)
			return err != nil || !b.Equal(ca.Bundle())
		})
	})
	Believes(t, s, next, ours, theirs)
	return s
}

// Believes fails when s takes anybody for one of a trust domain whom not the root of that domain among vouch leads to, or refuses who leads there: in TLS, as a
// client and as a server, with a certificate of each root of vouch and of strangers, and of authorities below these.
func Believes(t *testing.T, s *identity.Source, vouch []*identitytest.CA, strangers ...*identitytest.CA) {
	t.Helper()
	own, err := s.GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	for _, domain := range vouch {
		id := spiffeid.RequireFromPath(domain.TrustDomain, "/ns/shop/sa/orders")
		for _, root := range append(slices.Clone(vouch), strangers...) {
			for below, ca := range map[string]*identitytest.CA{"": root, " and an intermediate": root.Intermediate()} {
				peer := ca.Source(id, vouch...)
				what := id.String() + " by " + root.Root.Subject.CommonName + below
				saw, err := tunnel(t, s, peer, id)
				refusal, refused := errors.AsType[*hbone.PeerError](err)
				switch {
				case root == domain && (err != nil || saw != own.ID):
					t.Errorf("%s serves: it saw %q, %v", what, saw, err)
				case root != domain && (!refused || refusal.Got != id || saw != spiffeid.ID{}):
					t.Errorf("%s serves: it saw %q, %v", what, saw, err)
				}
				saw, err = tunnel(t, peer, s, own.ID)
				if (root == domain) != (err == nil && saw == id) || root != domain && saw != (spiffeid.ID{}) {
					t.Errorf("%s dials: we saw %q, %v", what, saw, err)
				}
			}
		}
	}
}

// tunnel dials server, who is called id, and gives whom it saw: nobody when it let nobody in.
func tunnel(t *testing.T, client, server hbone.Identity, id spiffeid.ID) (saw spiffeid.ID, err error) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	admitted := make(chan spiffeid.ID, 1)
	srv := &hbone.Server{Identity: server, Admit: func(_ context.Context, r *hbone.ConnectRequest) error {
		admitted <- r.Peer
		return nil
	}}
	go func() { _ = srv.Serve(l) }() // it ends by Close
	defer srv.Close()
	go func() {
		if c, err := srv.Accept(); err == nil {
			c.Close()
		}
	}()
	d := &hbone.Dialer{Identity: client}
	defer d.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := d.DialRoute(ctx, hbone.Route{Hops: []hbone.Hop{{
		Addr: netip.MustParseAddrPort(l.Addr().String()), Authority: "10.0.0.7:80", Peers: []spiffeid.ID{id},
	}}})
	if err == nil {
		c.Close()
	}
	select {
	case saw = <-admitted:
	default:
	}
	return saw, err
}
