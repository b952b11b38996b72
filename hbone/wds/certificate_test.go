package wds_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/wds"
	"github.com/isthmus-mesh/isthmus/hbone/wds/wdstest"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

var edgeGateway = spiffeid.RequireFromString("spiffe://cluster.local/ns/edge/sa/gateway")

// A certificate does in place of a token; each connection shows the one of its time, and istiod is known by the roots that came with it.
func TestACertificateInPlaceOfAToken(t *testing.T) {
	istiod := wdstest.New(t)
	istiod.SetService(cart())
	istiod.SetWorkload(pod("cart-1", "10.244.1.1", cartKey))
	istiod.SetToken("nobody has it")
	id := istiod.Identity(edgeGateway)
	for name, byFile := range map[string]bool{"istiod is known by the identity's roots": false, "by roots of its own": true} {
		t.Run(name, func(t *testing.T) {
			c := client(t, istiod, func(c *wds.Config) {
				c.Token, c.Identity = nil, id
				if !byFile {
					c.Roots = nil
				}
			})
			if r := resolve(t, c, "10.96.0.1:80"); r.Hops[0].Name != "shop/cart-1" {
				t.Errorf("it leads to %+v", r)
			}
		})
	}
	for _, r := range istiod.Requests() {
		if r.Peer != edgeGateway {
			t.Errorf("istiod was shown %q", r.Peer)
		}
	}
	t.Run("it is replaced", func(t *testing.T) {
		c := client(t, istiod, func(c *wds.Config) { c.Token, c.Roots, c.Identity = nil, nil, id })
		resolve(t, c, "10.96.0.1:80")
		next := spiffeid.RequireFromString("spiffe://cluster.local/ns/edge/sa/renamed")
		id.Set(id.CA.SVID(next))
		istiod.Disconnect()
		istiod.Wait(t, "the new one", func(r wdstest.Request) bool { return r.Peer == next })
	})
}

// A certificate of istiod that is not of now: the error says by how much, with a token as well as with a certificate. When it is of now the client goes on.
func TestTheClocksDisagree(t *testing.T) {
	for want, option := range map[string]identitytest.Option{
		"its certificate begins only in 10m": identitytest.ValidIn(10*time.Minute + 30*time.Second),
		"its certificate ended 1h0m":         identitytest.Expired,
	} {
		for shown, change := range map[string]func(*wdstest.Istiod) func(*wds.Config){
			"token": func(*wdstest.Istiod) func(*wds.Config) { return func(*wds.Config) {} },
			"certificate": func(i *wdstest.Istiod) func(*wds.Config) {
				return func(c *wds.Config) { c.Token, c.Identity = nil, i.Identity(edgeGateway) }
			},
		} {
			t.Run(want+", "+shown, func(t *testing.T) {
				t.Parallel() // each mostly waits
				istiod := wdstest.New(t)
				istiod.SetCertificate(option)
				c := client(t, istiod, change(istiod))
				if err := c.Ready(within(t, 700*time.Millisecond)); err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q", err, want)
				}
				istiod.SetCertificate()
				if err := c.Ready(within(t, 20*time.Second)); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestCertificatesThatIstiodDoesNotTake(t *testing.T) {
	td := edgeGateway.TrustDomain()
	for name, tt := range map[string]struct {
		id   func(*wdstest.Istiod) *identitytest.Source
		want string
	}{
		"an issuer that it does not believe": {func(i *wdstest.Istiod) *identitytest.Source {
			s := i.Identity(edgeGateway)
			s.Set(identitytest.NewCA(td).SVID(edgeGateway))
			return s
		}, "it does not accept our certificate: is it of service account edge/gateway, and does istiod believe its issuer?"},
		"one that has expired": {func(i *wdstest.Istiod) *identitytest.Source {
			s := i.Identity(edgeGateway)
			s.Set(s.CA.SVID(edgeGateway, identitytest.Expired))
			return s
		}, "our certificate for istiod: that of spiffe://cluster.local/ns/edge/sa/gateway expired at"},
		"none at all": {func(i *wdstest.Istiod) *identitytest.Source {
			s := i.Identity(edgeGateway)
			s.Set(nil)
			return s
		}, "our certificate for istiod: identitytest: no SVID"},
		"an istiod of other roots": {func(*wdstest.Istiod) *identitytest.Source {
			return identitytest.NewCA(td).Source(edgeGateway)
		}, "its certificate leads to none of the roots"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // each mostly waits
			istiod := wdstest.New(t)
			c := client(t, istiod, func(c *wds.Config) { c.Token, c.Roots, c.Identity = nil, nil, tt.id(istiod) })
			if err := c.Ready(within(t, 700*time.Millisecond)); err == nil || !strings.Contains(err.Error(), tt.want) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
