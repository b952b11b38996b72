package wdstest

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/mesh/meshtest"
	"github.com/isthmus-mesh/isthmus/hbone/authz"
	"github.com/isthmus-mesh/isthmus/hbone/wds"
)

// policies are one of every kind that istiod converts: by principal, by address and port, and STRICT for one workload.
const policies = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: gateway-only, namespace: edge}
spec:
  selector: {matchLabels: {app: held}}
  action: ALLOW
  rules: [{from: [{source: {principals: [cluster.local/ns/edge/sa/gateway]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-debug, namespace: edge}
spec:
  action: DENY
  rules:
  - from: [{source: {ipBlocks: [10.244.66.0/24]}}]
    to: [{operation: {ports: ["9090"]}}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: edge}
spec: {selector: {matchLabels: {app: strict}}, mtls: {mode: STRICT}}
`

// lines dials for a client and can cut what it dialled.
type lines struct {
	m  *mesh.Mesh
	mu sync.Mutex // guards the fields below
	// cut refuses new connections.
	cut   bool
	conns []net.Conn
}

func (l *lines) dial(ctx context.Context, network, address string) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return nil, net.ErrClosed
	}
	c, err := l.m.NS.DialContext(ctx, network, address)
	if err == nil {
		l.conns = append(l.conns, c)
	}
	return c, err
}

func (l *lines) setCut(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = cut
	for _, c := range l.conns {
		c.Close()
	}
	l.conns = nil
}

func TestPolicies(t *testing.T) {
	m := meshtest.New(t, mesh.Options{})
	kubectl := func(args ...string) {
		t.Helper()
		if _, err := m.Run(t.Context(), "kubectl", args...); err != nil {
			t.Fatal(err)
		}
	}
	for _, yaml := range []string{namespace, entry("held", "10.96.77.1", "10.244.77.1"), entry("strict", "10.96.77.2", "10.244.77.2")} {
		if err := m.Apply(t.Context(), yaml); err != nil {
			t.Fatal(err)
		}
	}
	l := &lines{m: m}
	c := newClient(t, m, func(c *wds.Config) { c.Policies, c.DialContext = true, l.dial })
	held, strict := c.Authorizer(netip.MustParseAddr("10.244.77.1")), c.Authorizer(netip.MustParseAddr("10.244.77.2"))
	conn := func(account, from, to string) authz.Conn {
		in := authz.Conn{SourceAddr: netip.MustParseAddr(from), Dest: netip.MustParseAddrPort(to)}
		if account != "" {
			in.Source = spiffeid.RequireFromString("spiffe://cluster.local/ns/edge/sa/" + account)
		}
		return in
	}
	// until waits for the decision; policies take a moment to arrive.
	until := func(what string, a *wds.Authorizer, in authz.Conn, allow bool, policy string) {
		t.Helper()
		var d authz.Decision
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if d = a.Decide(t.Context(), in); d.Allow == allow && d.Policy == policy && !d.Missing {
				return
			}
		}
		t.Errorf("%s: %+v, want allow=%v by %q", what, d, allow, policy)
	}
	until("no policy", held, conn("other", "10.244.9.9", "10.244.77.1:8080"), true, "")
	if err := m.Apply(t.Context(), policies); err != nil {
		t.Fatal(err)
	}
	until("another account", held, conn("other", "10.244.9.9", "10.244.77.1:8080"), false, "edge/gateway-only")
	until("the account", held, conn("gateway", "10.244.9.9", "10.244.77.1:8080"), true, "edge/gateway-only")
	until("plaintext", held, conn("", "10.244.9.9", "10.244.77.1:8080"), false, "edge/gateway-only")
	until("the port, from the block", held, conn("gateway", "10.244.66.1", "10.244.77.1:9090"), false, "edge/no-debug")
	until("the port, from elsewhere", held, conn("gateway", "10.244.67.1", "10.244.77.1:9090"), true, "edge/gateway-only")
	until("plaintext to STRICT", strict, conn("", "10.244.9.9", "10.244.77.2:8080"), false, "istio-system/istio_converted_static_strict")
	until("the mesh to STRICT", strict, conn("other", "10.244.9.9", "10.244.77.2:8080"), true, "")

	// While istiod is out of reach what is held decides; afterwards what went is gone and what came is there.
	c.leads("10.96.77.1:80", "10.244.77.1:8080")
	l.setCut(true)
	kubectl("delete", "-n", "edge", "authorizationpolicy/gateway-only", "peerauthentication/strict", "serviceentry/strict")
	if err := m.Apply(t.Context(), entry("held", "10.96.77.1", "10.244.77.9")); err != nil {
		t.Fatal(err)
	}
	until("another account, cut off", held, conn("other", "10.244.9.9", "10.244.77.1:8080"), false, "edge/gateway-only")
	c.leads("10.96.77.1:80", "10.244.77.1:8080")
	l.setCut(false)
	c.leads("10.96.77.1:80", "10.244.77.9:8080")
	moved := c.Authorizer(netip.MustParseAddr("10.244.77.9"))
	until("without the ALLOW", moved, conn("other", "10.244.9.9", "10.244.77.9:8080"), true, "")
	until("the DENY is still there", moved, conn("other", "10.244.66.1", "10.244.77.9:9090"), false, "edge/no-debug")
	until("without STRICT", strict, conn("", "10.244.9.9", "10.244.77.2:8080"), true, "")
}
