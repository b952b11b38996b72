package hbone_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// wantRevoked checks that a tunnel has ended because a certificate is revoked.
func wantRevoked(t *testing.T, c net.Conn, peer spiffeid.ID) {
	t.Helper()
	_, err := c.Read(make([]byte, 1))
	revoked, ok := errors.AsType[*identity.RevokedError](err)
	refused, isPeer := errors.AsType[*hbone.PeerError](err)
	if !ok || !isPeer || refused.Got != peer || revoked.Serial == nil || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read gave %v", err)
	}
	if _, err := c.Write([]byte("x")); err == nil {
		t.Error("the tunnel takes bytes")
	}
}

func svidOf(t *testing.T, id hbone.Identity) *x509svid.SVID {
	t.Helper()
	svid, err := id.GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	return svid
}

// A server whose certificate is revoked loses its tunnels, also those on a connection that takes no more of them, and gets no new ones.
func TestRevokedServersLoseTheirTunnels(t *testing.T) {
	for name, drain := range map[string]bool{"in use": false, "retired": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newPipeMesh(t, nil)
				a, b := m.open(t), m.open(t)
				if drain {
					m.source.Set(m.ca.SVID(sa("edge", "gateway")))
					synctest.Wait()
				}
				m.source.Revoke(m.ca.SVID(sa("shop", "cart")).Certificates...) // somebody else
				synctest.Wait()
				works(t, a)
				m.source.Revoke(svidOf(t, m.server.Identity).Certificates[0])
				wantRevoked(t, a, sa("shop", "orders"))
				wantRevoked(t, b, sa("shop", "orders"))
				_, err := m.dialer.DialContext(t.Context(), "tcp", "orders:80")
				if _, ok := errors.AsType[*identity.RevokedError](err); !ok || !hbone.SafeToRetry(err) {
					t.Errorf("a new dial: %v", err)
				}
				synctest.Wait()
				if st := m.pool.Stats(); st.Conns != 0 || st.Tunnels != 0 {
					t.Errorf("left: %+v", st)
				}
				m.server.Identity.(*identitytest.Source).Set(m.ca.SVID(sa("shop", "orders")))
				works(t, m.open(t))
			})
		})
	}
}

// A client whose certificate, or its authority's, is revoked loses its tunnels, and both ends can read why.
func TestRevokedClientsLoseTheirTunnels(t *testing.T) {
	for name, of := range map[string]int{"its own": 0, "its authority's": 1} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan error, 1)
			m := newMesh(t, echo, func(s *hbone.Server) {
				s.Connect, s.Admit = nil, func(context.Context, *hbone.ConnectRequest) error { return nil }
				s.Trace = &hbone.Trace{ConnClosed: func(c hbone.TraceConn) { ended <- c.Err }}
			})
			m.source.Set(m.ca.Intermediate().SVID(sa("edge", "gateway")))
			tun := m.dial2(t)
			m.server.Identity.(*identitytest.Source).Revoke(svidOf(t, m.source).Certificates[of])
			wantRevoked(t, tun.far, sa("edge", "gateway"))
			_, err := tun.near.Read(make([]byte, 1))
			wantText(t, err, "your certificate is trusted no more")
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("got %v", err)
			}
			if _, ok := errors.AsType[*identity.RevokedError](<-ended); !ok {
				t.Error("the trace does not say why")
			}
			_, err = m.dialer.DialContext(t.Context(), "tcp", "orders:80")
			wantText(t, err, "broke TLS off")
		})
	}
}

// The second hop's certificate is revoked: the tunnel to it ends, the first hop's connection goes on.
func TestRevokedAtTheEndOfATunnelInATunnel(t *testing.T) {
	m := newMesh(t, echo, nil)
	inner := newMesh(t, echo, func(s *hbone.Server) { s.Identity = m.ca.Source(sa("shop", "cart")) })
	outer, last := m.hop(), inner.hop()
	outer.Authority, last.Peers = inner.addr.String(), []spiffeid.ID{sa("shop", "cart")}
	c, err := m.dialer.DialRoute(t.Context(), hbone.Route{Hops: []hbone.Hop{outer, last}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	works(t, c)
	beside := m.dial(t)
	defer beside.Close()
	works(t, beside)
	m.source.Revoke(svidOf(t, inner.server.Identity).Certificates[0])
	wantRevoked(t, c, sa("shop", "cart"))
	works(t, beside)
}

// given is an authority that gives what the test says.
type given struct {
	material *identity.Material
	notify   chan struct{}
}

func (g *given) Fetch(context.Context) (*identity.Material, error) { return g.material, nil }
func (g *given) Notify() <-chan struct{}                           { return g.notify }

// From the list in a file to the end of the tunnel.
func TestAListInAFileEndsTunnels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newPipeMesh(t, nil)
		path := filepath.Join(t.TempDir(), "crl.pem")
		revoke := func(list []byte) {
			if err := os.WriteFile(path, identitytest.CRLPEM(list), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		revoke(m.ca.CRL(nil))
		source, err := identity.New(t.Context(), &given{material: &identity.Material{SVID: m.ca.SVID(sa("edge", "gateway")), Bundles: x509bundle.NewSet(m.ca.Bundle())}},
			identity.Config{Trust: identity.Trust{CRLFile: path}})
		if err != nil {
			t.Fatal(err)
		}
		defer source.Close()
		m.dialer.Identity = source
		c := m.open(t)
		revoke(m.ca.CRL(svidOf(t, m.server.Identity).Certificates[:1]))
		begin := time.Now()
		wantRevoked(t, c, sa("shop", "orders"))
		if took := time.Since(begin); took > 6*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// A peer of a trust domain that is another name of ours is who the route expects; one of a domain that only shares our roots is not.
func TestPeersUnderOtherNames(t *testing.T) {
	old := spiffeid.RequireTrustDomainFromString("old.example")
	for name, c := range map[string]struct {
		trust identity.Trust
		want  string
	}{
		"an alias":             {identity.Trust{Aliases: [][]spiffeid.TrustDomain{{td, old}}}, ""},
		"an additional domain": {identity.Trust{Additional: []spiffeid.TrustDomain{old}}, "it is somebody else"},
		"neither":              {identity.Trust{}, "its trust domain is not trusted here"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newPipeMesh(t, nil)
				m.server.Identity.(*identitytest.Source).Set(m.ca.SVID(spiffeid.RequireFromPath(old, "/ns/shop/sa/orders")))
				source, err := identity.New(t.Context(), &given{material: &identity.Material{SVID: m.ca.SVID(sa("edge", "gateway")), Bundles: x509bundle.NewSet(m.ca.Bundle())}},
					identity.Config{Trust: c.trust})
				if err != nil {
					t.Fatal(err)
				}
				defer source.Close()
				m.dialer.Identity = source
				conn, err := m.dialer.DialContext(t.Context(), "tcp", "orders:80")
				if c.want != "" {
					wantText(t, err, c.want)
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				works(t, conn)
				if got := conn.(*hbone.Conn).PeerIdentity(); got.TrustDomain() != old {
					t.Errorf("the peer is called %s", got)
				}
			})
		})
	}
}
