package wdstest

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/hbone/authz"
	"github.com/isthmus-mesh/isthmus/hbone/wds"
	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
)

// policies are one of every kind that istiod converts: by principal, by address and port, and STRICT for one workload.
const policies = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: gateway-only, namespace: policies}
spec:
  selector: {matchLabels: {app: held}}
  action: ALLOW
  rules: [{from: [{source: {principals: [cluster.local/ns/policies/sa/gateway]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-debug, namespace: policies}
spec:
  action: DENY
  rules:
  - from: [{source: {ipBlocks: [10.244.66.0/24]}}]
    to: [{operation: {ports: ["9090"]}}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: policies}
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
	t.Parallel()
	m := shared.Get(t)
	kubectl := func(args ...string) {
		t.Helper()
		if _, err := m.Run(t.Context(), "kubectl", args...); err != nil {
			t.Fatal(err)
		}
	}
	for _, yaml := range []string{namespace("policies"), entry("policies", "held", "10.96.79.1", "10.244.79.1"), entry("policies", "strict", "10.96.79.2", "10.244.79.2")} {
		if err := m.Apply(t.Context(), yaml); err != nil {
			t.Fatal(err)
		}
	}
	l := &lines{m: m}
	c := newClient(t, m, "policies", func(c *wds.Config) { c.Policies, c.DialContext = true, l.dial })
	held, strict := c.Authorizer(netip.MustParseAddr("10.244.79.1")), c.Authorizer(netip.MustParseAddr("10.244.79.2"))
	conn := func(account, from, to string) authz.Conn {
		in := authz.Conn{SourceAddr: netip.MustParseAddr(from), Dest: netip.MustParseAddrPort(to)}
		if account != "" {
			in.Source = spiffeid.RequireFromString("spiffe://cluster.local/ns/policies/sa/" + account)
		}
		return in
	}
	// until waits for the decision; policies take a moment to arrive.
	until := func(what string, a *wds.Authorizer, in authz.Conn, allow bool, policy string) {
		t.Helper()
		var d authz.Decision
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if d = a.Decide(t.Context(), in); d.Allow == allow && d.Policy == policy && !d.Missing {
				return
			}
		}
		t.Errorf("%s: %+v, want allow=%v by %q", what, d, allow, policy)
	}
	until("no policy", held, conn("other", "10.244.9.9", "10.244.79.1:8080"), true, "")
	if err := m.Apply(t.Context(), policies); err != nil {
		t.Fatal(err)
	}
	until("another account", held, conn("other", "10.244.9.9", "10.244.79.1:8080"), false, "policies/gateway-only")
	until("the account", held, conn("gateway", "10.244.9.9", "10.244.79.1:8080"), true, "policies/gateway-only")
	until("plaintext", held, conn("", "10.244.9.9", "10.244.79.1:8080"), false, "policies/gateway-only")
	until("the port, from the block", held, conn("gateway", "10.244.66.1", "10.244.79.1:9090"), false, "policies/no-debug")
	until("the port, from elsewhere", held, conn("gateway", "10.244.67.1", "10.244.79.1:9090"), true, "policies/gateway-only")
	until("plaintext to STRICT", strict, conn("", "10.244.9.9", "10.244.79.2:8080"), false, "istio-system/istio_converted_static_strict")
	until("the mesh to STRICT", strict, conn("other", "10.244.9.9", "10.244.79.2:8080"), true, "")

	// While istiod is out of reach what is held decides; afterwards what went is gone and what came is there.
	c.leads("10.96.79.1:80", "10.244.79.1:8080")
	l.setCut(true)
	kubectl("delete", "-n", "policies", "authorizationpolicy/gateway-only", "peerauthentication/strict", "serviceentry/strict")
	if err := m.Apply(t.Context(), entry("policies", "held", "10.96.79.1", "10.244.79.9")); err != nil {
		t.Fatal(err)
	}
	until("another account, cut off", held, conn("other", "10.244.9.9", "10.244.79.1:8080"), false, "policies/gateway-only")
	c.leads("10.96.79.1:80", "10.244.79.1:8080")
	l.setCut(false)
	c.leads("10.96.79.1:80", "10.244.79.9:8080")
	moved := c.Authorizer(netip.MustParseAddr("10.244.79.9"))
	until("without the ALLOW", moved, conn("other", "10.244.9.9", "10.244.79.9:8080"), true, "")
	until("the DENY is still there", moved, conn("other", "10.244.66.1", "10.244.79.9:9090"), false, "policies/no-debug")
	until("without STRICT", strict, conn("", "10.244.9.9", "10.244.79.2:8080"), true, "")
}

// A principal of a policy is what istiod was told, also where the mesh has aliases: it makes none of them at L4, as it does at a waypoint, and neither does
// ztunnel. With the other names of a peer all of them count.
func TestAliasesInPolicies(t *testing.T) {
	t.Parallel()
	m := shared.Get(t)
	const pod = "10.244.85.1"
	for _, yaml := range []string{namespace("aliases"), entry("aliases", "held", "10.96.85.1", pod), `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: not-by-its-new-name, namespace: aliases}
spec: {action: DENY, rules: [{from: [{source: {principals: [cluster.local/ns/aliases/sa/thief]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: by-its-old-name, namespace: aliases}
spec: {action: ALLOW, rules: [{from: [{source: {principals: [old.example/ns/aliases/sa/gateway, old.example/ns/aliases/sa/thief]}}]}]}
`} {
		if err := m.Apply(t.Context(), yaml); err != nil {
			t.Fatal(err)
		}
	}
	c := newClient(t, m, "aliases", func(c *wds.Config) { c.Policies = true })
	ca := identitytest.NewCA(spiffeid.RequireTrustDomainFromString("cluster.local"))
	id := func(td, account string) spiffeid.ID {
		return spiffeid.RequireFromString("spiffe://" + td + "/ns/aliases/sa/" + account)
	}
	source, err := identity.New(t.Context(), aliased{ca, id("cluster.local", "held")}, identity.Config{Trust: identity.Trust{
		Aliases: [][]spiffeid.TrustDomain{{ca.TrustDomain, spiffeid.RequireTrustDomainFromString("old.example")}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { source.Close() })
	literal, named := c.Authorizer(netip.MustParseAddr(pod)), c.Authorizer(netip.MustParseAddr(pod))
	named.Names = source.Names
	for _, tt := range []struct {
		what, td, account     string
		literally, byAllNames bool
	}{
		{"the name that the ALLOW has", "old.example", "gateway", true, true},
		{"its alias", "cluster.local", "gateway", false, true},
		{"the name that the DENY has", "cluster.local", "thief", false, false},
		{"its alias, which ztunnel does not deny", "old.example", "thief", true, false},
		{"a domain that is no alias", "other.example", "gateway", false, false},
		{"somebody else", "old.example", "other", false, false},
	} {
		in := authz.Conn{Source: id(tt.td, tt.account), SourceAddr: netip.MustParseAddr("10.244.9.9"), Dest: netip.MustParseAddrPort(pod + ":8080")}
		for a, want := range map[*wds.Authorizer]bool{literal: tt.literally, named: tt.byAllNames} {
			var d authz.Decision
			for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) { // policies take a moment to arrive
				if d = a.Decide(t.Context(), in); d.Allow == want && !d.Missing && d.Policy != "" {
					break
				}
			}
			if d.Allow != want || d.Missing || d.Policy == "" {
				t.Errorf("%s, with other names: %v: %+v, want %v", tt.what, a == named, d, want)
			}
		}
	}
}

// aliased is an authority in memory.
type aliased struct {
	ca *identitytest.CA
	id spiffeid.ID
}

func (a aliased) Fetch(context.Context) (*identity.Material, error) {
	return &identity.Material{SVID: a.ca.SVID(a.id), Bundles: x509bundle.NewSet(a.ca.Bundle())}, nil
}
