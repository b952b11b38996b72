package hbonetest_test

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/hbone/hbonetest"
	"golang.org/x/net/http2/hpack"
)

// FuzzConnectRequest: whatever authority and claims a peer writes, a request that reaches Connect has an authority of host and port as it was sent, a Target
// that says the same or nothing, and claims as they were sent; everything else is 400 or a reset of that stream, and the connection goes on.
func FuzzConnectRequest(f *testing.F) {
	f.Add("10.0.0.7:8080", "forwarded", `for="10.0.0.1:1"`)
	f.Add("[2001:db8::7]:80", "baggage", "k8s.cluster.name=x")
	f.Add("orders.shop.svc.cluster.local:80", "x-istio-source", "waypoint")
	f.Add("u@h:1", "traceparent", "")
	f.Add("[fe80::1%25eth0]:80", "x-forwarded-network", "n")
	f.Add("a:65536", "a", "\x00")
	f.Add(":1", "host", "other:2")
	f.Add("10.0.0.7:080", "connection", "close")
	f.Add("[::ffff:10.0.0.7]:1", "", "v")
	m := newMesh(f)
	l := m.listen(f, orders)
	var last atomic.Pointer[hbone.ConnectRequest]
	s := &hbone.Server{Identity: m.ca.Source(shop), Connect: func(_ context.Context, r *hbone.ConnectRequest) (net.Conn, error) {
		last.Store(r)
		return nil, &hbone.Refusal{Status: 418}
	}}
	go s.Serve(l)
	f.Cleanup(func() { s.Close() })
	f.Fuzz(func(t *testing.T, authority, name, value string) {
		if len(authority)+len(name)+len(value) > 10_000 {
			return
		}
		nc, err := m.network.DialContext(t.Context(), "tcp", orders.String())
		if err != nil {
			t.Fatal(err)
		}
		p := hbonetest.DialTLS(t, nc, m.ca.Source(edge))
		last.Store(nil)
		p.Send(hbonetest.Open(1, authority, hpack.HeaderField{Name: name, Value: value}))
		status := answer(t, p, 1)
		r := last.Load()
		if (status == "418") != (r != nil) {
			t.Fatalf("%q: status %q, and the request %+v", authority, status, r)
		}
		if r != nil {
			check(t, r, authority, name, value)
		} else if status != "400" && status != "reset" {
			t.Errorf("%q: status %s", authority, status)
		}
		last.Store(nil)
		p.Send(hbonetest.Open(3, app))
		if status := answer(t, p, 3); status != "418" {
			t.Errorf("the next request got %s", status)
		}
	})
}

func check(t *testing.T, r *hbone.ConnectRequest, authority, name, value string) {
	t.Helper()
	host, port, err := net.SplitHostPort(r.Authority)
	if r.Authority != authority || err != nil || host == "" || port == "" {
		t.Errorf("the authority %q became %q, %v", authority, r.Authority, err)
	}
	if a, err := netip.ParseAddr(host); (err == nil) != r.Target.IsValid() || err == nil && r.Target.Addr() != a {
		t.Errorf("the authority %q has the target %v", authority, r.Target)
	}
	if r.Target.IsValid() && r.Target.Port() == 0 {
		t.Errorf("%q: port 0", authority)
	}
	claims := map[string]string{"forwarded": r.Claims.Forwarded, "baggage": r.Claims.Baggage, "traceparent": r.Claims.Traceparent,
		"x-istio-source": r.Claims.Source, "x-forwarded-network": r.Claims.ForwardedNetwork}
	for n, got := range claims {
		if want := map[bool]string{true: value}[n == name]; got != want {
			t.Errorf("the claim %s is %q, want %q", n, got, want)
		}
	}
}

// answer is the status on a stream, or that it was reset.
func answer(t *testing.T, p *hbonetest.Peer, stream uint32) string {
	t.Helper()
	for {
		f, err := p.Next()
		if err != nil {
			t.Fatalf("stream %d: %v", stream, err)
		}
		switch f := f.(type) {
		case hbonetest.Headers:
			if f.Stream == stream {
				return hbonetest.Value(f.Fields, ":status")
			}
		case hbonetest.Reset:
			if f.Stream == stream {
				return "reset"
			}
		case hbonetest.GoAway:
			t.Fatalf("the connection ends: %+v", f)
		}
	}
}
