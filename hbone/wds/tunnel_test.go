package wds_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/hbone/authz"
	"github.com/isthmus-mesh/isthmus/hbone/route"
	"github.com/isthmus-mesh/isthmus/hbone/wds/wdstest"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// A Dialer, a Server and an Authorizer together: what istiod says decides where a tunnel leads, whom it must meet and who may open it.
func TestTunnelsByWhatIstiodSays(t *testing.T) {
	ca := identitytest.NewCA(spiffeid.RequireTrustDomainFromString("cluster.local"))
	id := func(path string) spiffeid.ID { return spiffeid.RequireFromString("spiffe://cluster.local" + path) }
	istiod, mesh := start(t)
	pods := client(t, istiod, policies)
	guard := pods.Authorizer(own)
	server := &hbone.Server{Identity: ca.Source(id("/ns/shop/sa/cart")), Connect: func(ctx context.Context, r *hbone.ConnectRequest) (net.Conn, error) {
		if d := guard.Decide(ctx, authz.Conn{Source: r.Peer, SourceAddr: r.Remote.Addr(), Dest: r.Target}); !d.Allow {
			return nil, &hbone.Refusal{Status: http.StatusUnauthorized, Err: errors.New(d.Reason)}
		}
		app, here := net.Pipe()
		go func() {
			_, _ = io.WriteString(app, r.Authority)
			app.Close()
		}()
		return here, nil
	}}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(ln) }()
	t.Cleanup(func() { server.Close() })
	dialer := func(account string) *hbone.Dialer {
		d := &hbone.Dialer{Identity: ca.Source(id("/ns/edge/sa/" + account)), Resolver: mesh, NetDial: func(ctx context.Context, _, address string) (net.Conn, error) {
			if address != "10.244.1.1:15008" {
				t.Errorf("dialled %s", address)
			}
			return new(net.Dialer).DialContext(ctx, "tcp", ln.Addr().String())
		}}
		t.Cleanup(func() { d.Close() })
		return d
	}
	const cartAddress = "cart.shop.svc.cluster.local:80"
	dial := func(d *hbone.Dialer) (string, error) {
		c, err := d.DialContext(t.Context(), "tcp", cartAddress)
		if err != nil {
			return "", err
		}
		defer c.Close()
		b, err := io.ReadAll(c)
		return string(b), err
	}
	gw, other := dialer("gateway"), dialer("other")
	for _, d := range []*hbone.Dialer{gw, other} {
		if got, err := dial(d); err != nil || got != "10.244.1.1:8080" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	istiod.SetPolicy(allowGateway(authz.ScopeNamespace))
	eventually(t, pods, "the policy", func() bool {
		_, err := dial(other)
		e, ok := errors.AsType[*hbone.DialError](err)
		return ok && e.Status == http.StatusUnauthorized
	})
	if got, err := dial(gw); err != nil || got != "10.244.1.1:8080" {
		t.Errorf("whom the policy allows: %q, %v", got, err)
	}
	// The pod is another's now: whoever answers at its address with the old identity is not spoken to.
	w := pod("cart-1", "10.244.1.1", cartKey)
	w.ServiceAccount = "another"
	istiod.SetWorkload(w)
	eventually(t, mesh, "the other identity", func() bool {
		r, err := mesh.Resolve(t.Context(), "tcp", cartAddress)
		return err == nil && r.Hops[0].Peers[0] == id("/ns/shop/sa/another")
	})
	if got, err := dial(gw); err == nil {
		t.Errorf("a tunnel to the wrong peer says %q", got)
	}
	// With a waypoint that is not there nothing is dialled.
	guarded := cart()
	guarded.Waypoint = &route.Gateway{Host: route.Host{Namespace: "edge", Hostname: "waypoint.edge.svc.cluster.local"}, Port: 15008}
	istiod.SetService(guarded)
	eventually(t, mesh, "the waypoint", func() bool {
		_, err := dial(gw)
		return err != nil && strings.Contains(err.Error(), "waypoint")
	})
	istiod.Remove(wdstest.AddressType, cartKey)
	eventually(t, mesh, "the end of the Service", func() bool {
		_, err := dial(gw)
		return err != nil && strings.Contains(err.Error(), "no Service of that name")
	})
}
