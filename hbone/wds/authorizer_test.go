package wds_test

import (
	"context"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/authz"
	"github.com/isthmus-mesh/isthmus/hbone/wds"
	"github.com/isthmus-mesh/isthmus/hbone/wds/wdstest"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

var (
	own     = netip.MustParseAddr("10.244.1.1")
	gateway = authz.Conn{
		Source:     spiffeid.RequireFromString("spiffe://cluster.local/ns/edge/sa/gateway"),
		SourceAddr: netip.MustParseAddr("10.244.9.9"), Dest: netip.MustParseAddrPort("10.244.1.1:8080"),
	}
	stranger = authz.Conn{SourceAddr: netip.MustParseAddr("10.244.9.8"), Dest: gateway.Dest}
)

func policies(c *wds.Config) { c.Policies = true }

// allowGateway is an ALLOW for the gateway alone.
func allowGateway(scope authz.Scope) *authz.Policy {
	return &authz.Policy{Namespace: "shop", Name: "gateway", Scope: scope, Rules: []authz.Rule{{{{
		Principals: []authz.StringMatch{{Kind: authz.Exact, Value: "cluster.local/ns/edge/sa/gateway"}}}}}}}
}

func decide(t *testing.T, a *wds.Authorizer, conn authz.Conn) authz.Decision {
	t.Helper()
	return a.Decide(within(t, 10*time.Second), conn)
}

// listing makes the pod list policies.
func listing(istiod *wdstest.Istiod, names ...string) {
	w := pod("cart-1", "10.244.1.1", cartKey)
	w.Policies = names
	istiod.SetWorkload(w)
}

// With a source's other names a policy that has one of them is about the source.
func TestAuthorizerWithNames(t *testing.T) {
	istiod, c := start(t, policies)
	istiod.SetPolicy(allowGateway(authz.ScopeNamespace))
	old := gateway
	old.Source = spiffeid.RequireFromString("spiffe://old.example/ns/edge/sa/gateway")
	a, named := c.Authorizer(own), c.Authorizer(own)
	named.Names = func(id spiffeid.ID) []spiffeid.ID {
		return []spiffeid.ID{spiffeid.RequireFromPath(spiffeid.RequireTrustDomainFromString("cluster.local"), id.Path())}
	}
	eventually(t, c, "the policy", func() bool { return !decide(t, a, stranger).Allow })
	if d := decide(t, a, old); d.Allow {
		t.Errorf("as ztunnel does: %+v", d)
	}
	if d := decide(t, named, old); !d.Allow {
		t.Errorf("with names: %+v", d)
	}
	if d := decide(t, named, stranger); d.Allow {
		t.Errorf("nobody has other names: %+v", d)
	}
}

func TestAuthorizer(t *testing.T) {
	istiod, c := start(t, policies)
	a := c.Authorizer(own)
	if d := decide(t, a, stranger); !d.Allow {
		t.Errorf("without policies: %+v", d)
	}
	changed := a.Changed()
	istiod.SetPolicy(allowGateway(authz.ScopeNamespace))
	<-changed
	eventually(t, c, "the policy", func() bool { return !decide(t, a, stranger).Allow })
	if d := decide(t, a, gateway); !d.Allow || d.Policy != "shop/gateway" {
		t.Errorf("whom it allows: %+v", d)
	}
	changed = a.Changed()
	istiod.Remove(wdstest.PolicyType, "shop/gateway")
	<-changed
	eventually(t, c, "its removal", func() bool { return decide(t, a, stranger).Allow })
}

func TestAuthorizerWaitsForAListedPolicy(t *testing.T) {
	istiod, c := start(t, policies)
	listing(istiod, "shop/gateway")
	a := c.Authorizer(own)
	done := make(chan authz.Decision)
	go func() { done <- a.Decide(t.Context(), gateway) }()
	istiod.Wait(t, "the workload", asksFor("/10.244.1.1"))
	select {
	case d := <-done:
		t.Fatalf("it did not wait: %+v", d)
	case <-time.After(200 * time.Millisecond):
	}
	istiod.SetPolicy(allowGateway(authz.ScopeWorkload))
	if d := <-done; !d.Allow || d.Policy != "shop/gateway" {
		t.Errorf("when it came: %+v", d)
	}
	if d := decide(t, a, stranger); d.Allow {
		t.Errorf("a stranger: %+v", d)
	}
}

func TestAuthorizerDeniesWhatItDoesNotKnow(t *testing.T) {
	for name, tt := range map[string]struct {
		prepare func(*wdstest.Istiod)
		want    string
	}{
		"a listed policy":   {func(i *wdstest.Istiod) { listing(i, "shop/late") }, "policy shop/late"},
		"a silent istiod":   {func(i *wdstest.Istiod) { i.SetSilent(true) }, "the workload itself"},
		"no such workload":  {func(i *wdstest.Istiod) { i.Remove(wdstest.AddressType, "Kubernetes//Pod/shop/cart-1") }, "the workload itself"},
		"an unread policy":  {func(i *wdstest.Istiod) { i.SetRaw(wdstest.PolicyType, "shop/bad", []byte{0xff}) }, "shop/bad (it cannot be read"},
		"a scope of future": {func(i *wdstest.Istiod) { i.SetRaw(wdstest.PolicyType, "other/bad", []byte{0x18, 9}) }, "other/bad (it cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			istiod, c := start(t, policies)
			tt.prepare(istiod)
			a := c.Authorizer(own)
			a.Wait = 300 * time.Millisecond
			begin := time.Now()
			d := decide(t, a, gateway)
			if d.Allow || !d.Missing || !strings.Contains(d.Reason, tt.want) {
				t.Errorf("%+v, want a denial that names %q", d, tt.want)
			}
			if took := time.Since(begin); took < a.Wait || took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
			a.Wait = -1
			if d := decide(t, a, gateway); d.Allow || !d.Missing {
				t.Errorf("without waiting: %+v", d)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			a.Wait = time.Hour
			if d := a.Decide(ctx, gateway); d.Allow {
				t.Errorf("with a context that ended: %+v", d)
			}
			c.Close()
			if d := a.Decide(t.Context(), gateway); d.Allow {
				t.Errorf("of a closed client: %+v", d)
			}
		})
	}
}

func TestAnUnreadPolicyOfOthersIsNotMissed(t *testing.T) {
	istiod, c := start(t, policies)
	istiod.SetRaw(wdstest.PolicyType, "other/bad", []byte{0x18, 1, 0x20, 9}) // scope namespace, an action that is not known
	istiod.SetRaw(wdstest.PolicyType, "shop/bad", []byte{0x18, 2, 0x20, 9})  // scope workload, listed by nobody
	if d := decide(t, c.Authorizer(own), gateway); !d.Allow {
		t.Errorf("%+v", d)
	}
	// After a reconnection those that went meanwhile are forgotten.
	istiod.SetRaw(wdstest.PolicyType, "shop/worse", []byte{0xff})
	a := c.Authorizer(own)
	a.Wait = -1
	eventually(t, c, "the denial", func() bool { return !decide(t, a, gateway).Allow })
	istiod.Stop()
	istiod.Remove(wdstest.PolicyType, "shop/worse")
	istiod.Start(t)
	eventually(t, c, "the end of it", func() bool { return decide(t, a, gateway).Allow })
}

func TestABadPolicyKeepsTheOldValue(t *testing.T) {
	istiod, c := start(t, policies)
	istiod.SetPolicy(allowGateway(authz.ScopeNamespace))
	a := c.Authorizer(own)
	eventually(t, c, "the policy", func() bool { return decide(t, a, gateway).Policy == "shop/gateway" })
	istiod.SetRaw(wdstest.PolicyType, "shop/gateway", []byte{0xff})
	istiod.Wait(t, "a NACK", func(r wdstest.Request) bool {
		return r.Type == wdstest.PolicyType && strings.Contains(r.Error, "shop/gateway")
	})
	if d := decide(t, a, gateway); !d.Allow || d.Policy != "shop/gateway" {
		t.Errorf("whom it allowed: %+v", d)
	}
	if d := decide(t, a, stranger); d.Allow {
		t.Errorf("a stranger: %+v", d)
	}
}

func TestAuthorizerOfAClientWithoutPolicies(t *testing.T) {
	_, c := start(t)
	if d := decide(t, c.Authorizer(own), gateway); d.Allow || !strings.Contains(d.Reason, "Config.Policies") {
		t.Errorf("%+v", d)
	}
}

// A policy holds from the moment on that it and its listing are there, however the changes and the decisions interleave.
func TestDecisionsAmidChanges(t *testing.T) {
	istiod, c := start(t, policies)
	a := c.Authorizer(own)
	istiod.SetPolicy(allowGateway(authz.ScopeWorkload))
	stop := make(chan struct{})
	var deciders sync.WaitGroup
	defer deciders.Wait()
	defer close(stop)
	for range 4 {
		deciders.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					a.Decide(t.Context(), stranger)
				}
			}
		})
	}
	for range 100 {
		for _, names := range [][]string{{"shop/gateway"}, nil} {
			listing(istiod, names...)
			for { // until the client has it
				changed := c.Changed()
				w, err := c.Workload(t.Context(), own)
				if err != nil {
					t.Fatal(err)
				}
				if len(w.Policies) == len(names) {
					break
				}
				<-changed
			}
			if d := a.Decide(t.Context(), stranger); d.Allow != (names == nil) {
				t.Fatalf("with %v listed: %+v", names, d)
			}
		}
	}
}

func BenchmarkAuthorizer(b *testing.B) {
	istiod := wdstest.New(b)
	istiod.SetWorkload(pod("cart-1", "10.244.1.1", cartKey))
	for i := range 1000 {
		p := allowGateway(authz.ScopeNamespace)
		p.Name, p.Namespace = strconv.Itoa(i), "other"
		istiod.SetPolicy(p)
	}
	a := client(b, istiod, policies).Authorizer(own)
	b.ReportAllocs()
	for b.Loop() {
		if d := a.Decide(b.Context(), stranger); !d.Allow {
			b.Fatal(d)
		}
	}
}

func TestLenient(t *testing.T) {
	istiod, c := start(t, policies)
	listing(istiod, "shop/late")
	istiod.SetRaw(wdstest.PolicyType, "shop/bad", []byte{0xff})
	a := c.Authorizer(own)
	a.Lenient = true
	if d := decide(t, a, stranger); !d.Allow {
		t.Errorf("%+v", d)
	}
}

// Policies decide while istiod is away, and those removed meanwhile go.
func TestAuthorizerWhileIstiodIsAway(t *testing.T) {
	istiod, c := start(t, policies)
	istiod.SetPolicy(allowGateway(authz.ScopeNamespace))
	a := c.Authorizer(own)
	eventually(t, c, "the policy", func() bool { return !decide(t, a, stranger).Allow })
	istiod.Stop()
	if d := decide(t, a, stranger); d.Allow || d.Missing {
		t.Errorf("a stranger: %+v", d)
	}
	if d := decide(t, a, gateway); !d.Allow {
		t.Errorf("whom it allows: %+v", d)
	}
	istiod.Remove(wdstest.PolicyType, "shop/gateway")
	istiod.Start(t)
	eventually(t, c, "its removal", func() bool { return decide(t, a, stranger).Allow })
	istiod.Wait(t, "what it holds", func(r wdstest.Request) bool { return r.Type == wdstest.PolicyType && r.Initial["shop/gateway"] != "" })
}
