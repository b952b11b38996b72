package wdstest

import (
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/hbone/wds"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
)

// Istiod takes a certificate in place of a token: one that it has issued, of the account that the node says it is, also after that was replaced. It does not
// take one of somebody else, or of another issuer.
func TestByCertificate(t *testing.T) {
	t.Parallel()
	m := shared.Get(t)
	for _, yaml := range []string{namespace("certificate"), entry("certificate", "held", "10.96.86.1", "10.244.86.1")} {
		if err := m.Apply(t.Context(), yaml); err != nil {
			t.Fatal(err)
		}
	}
	id := account(t, m, "certificate", "gateway")
	l := &lines{m: m}
	by := func(change func(*wds.Config)) client {
		return newClient(t, m, "certificate", func(c *wds.Config) {
			c.Token, c.Roots, c.Identity, c.DialContext = nil, nil, id, l.dial
			if change != nil {
				change(c)
			}
		})
	}
	c := by(nil)
	c.leads("10.96.86.1:80", "10.244.86.1:8080")
	l.setCut(true)
	for end := time.Now().Add(30 * time.Second); c.Stats().Online; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the line is not cut")
		}
	}
	l.setCut(false)
	if err := m.Apply(t.Context(), entry("certificate", "held", "10.96.86.1", "10.244.86.2")); err != nil {
		t.Fatal(err)
	}
	c.leads("10.96.86.1:80", "10.244.86.2:8080")

	t.Run("somebody else's name", func(t *testing.T) {
		c := by(func(c *wds.Config) { c.Node.ServiceAccount = "other" })
		client{t, c.Client}.refused("certificate/other")
	})
	t.Run("another issuer", func(t *testing.T) {
		gateway := spiffeid.RequireFromString("spiffe://cluster.local/ns/certificate/sa/gateway")
		c := by(func(c *wds.Config) {
			c.Identity = identitytest.NewCA(gateway.TrustDomain()).Source(gateway)
			c.Roots = func() ([]byte, error) { return m.RootPEM, nil }
		})
		// In TLS 1.3 istiod refuses after our side of the handshake is done: what we write may find the connection closed before its word is read.
		// So it is asked again and again.
		client{t, c.Client}.refused("it does not accept our certificate")
	})
}
