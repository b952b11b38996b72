package wds

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/authz"
	"github.com/isthmus-mesh/isthmus/hbone/route"
	"github.com/isthmus-mesh/isthmus/hbone/wds/wdstest"
)

// largeWorld is an istiod with some Services of Fill, and a client that has less patience with what is too large than others have.
type largeWorld struct {
	*testing.T
	istiod *wdstest.Istiod
	*Client
}

func newLarge(t *testing.T, services int, change func(*Config)) largeWorld {
	t.Helper()
	istiod := wdstest.New(t)
	istiod.Fill(services, 2)
	cfg := scaleConfig(istiod, false)
	cfg.largeTime, cfg.RefreshEvery = time.Second, -1
	if change != nil {
		change(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return largeWorld{t, istiod, c}
}

// oversized cannot be read, but nobody gets that far.
func oversized() []byte { return bytes.Repeat([]byte{0xff}, 64<<20) }

// grows makes Service n one whose answer is too large.
func (w largeWorld) grows(n int) {
	s := wdstest.FillService(n)
	w.istiod.SetRaw(wdstest.AddressType, s.Key(), oversized(), s.Addresses[0].Key())
}

func (w largeWorld) dial(n int) error {
	ctx, cancel := context.WithTimeout(w.Context(), 20*time.Second)
	defer cancel()
	_, err := w.Resolve(ctx, "tcp", addressOf(n))
	return err
}

func (w largeWorld) dials(services int) {
	w.Helper()
	for n := range services {
		if err := w.dial(n); err != nil {
			w.Fatal(err)
		}
	}
}

// target is the port of the pods that Service n leads to.
func (w largeWorld) target(n int) string {
	ctx, cancel := context.WithTimeout(w.Context(), 20*time.Second)
	defer cancel()
	r, err := w.Resolve(ctx, "tcp", addressOf(n))
	if err != nil {
		w.Fatal(err)
	}
	return r.Hops[0].Authority[strings.LastIndex(r.Hops[0].Authority, ":")+1:]
}

// moves gives Service n another port of its pods.
func (w largeWorld) moves(n int, target uint16) {
	s := wdstest.FillService(n)
	s.Ports[0].Target = target
	w.istiod.SetService(s)
}

func (w largeWorld) until(what string, ok func() bool) {
	w.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.Fatalf("never: %s: %+v", what, w.Stats())
		}
	}
}

// calm waits until nothing is asked for in groups any more.
func (w largeWorld) calm() {
	w.Helper()
	w.until("everybody was asked for", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !w.now.Load().online || w.apart.asking != nil || len(w.apart.groups) > 0 {
			return false
		}
		for _, a := range w.names {
			if !a.flight.IsZero() {
				return false
			}
		}
		return true
	})
}

// What is held grows beyond what is taken: that is one name's trouble. All else goes on, and is kept up to date; what has gone while it was looked for is gone;
// and the name itself leads where it led, until it is small again.
func TestWhatIsHeldGrowsTooLarge(t *testing.T) {
	for name, tt := range map[string]struct{ services, most int }{"a few names": {5, 3}, "many names": {400, 4}} {
		t.Run(name, func(t *testing.T) {
			w := newLarge(t, tt.services, func(c *Config) { c.largeTime = 3 * time.Second })
			w.dials(tt.services)
			w.grows(3)
			w.until("it is noticed", func() bool { return w.Stats().TooLarge > 0 })
			w.istiod.Remove(wdstest.AddressType, wdstest.FillWorkload(1, 0).UID)
			w.until("it is found out whose it is", func() bool {
				w.mu.Lock()
				defer w.mu.Unlock()
				for _, a := range w.names {
					if !a.large.since.IsZero() {
						return true
					}
				}
				return false
			})
			w.calm()
			if st := w.Stats(); st.TooLarge > uint64(tt.most) || st.Lost != st.TooLarge {
				t.Errorf("it took %d connections, of %d: %+v", st.TooLarge, tt.most, st)
			}
			for n := range tt.services {
				if n != 3 {
					w.moves(n, 9000)
				}
			}
			for n := range tt.services {
				if n != 3 {
					w.until("a change of another", func() bool { return w.target(n) == "9000" })
				}
			}
			if got := w.target(3); got != "8080" {
				t.Errorf("the name itself leads to port %s", got)
			}
			if eps := w.now.Load().table.Endpoints(wdstest.FillService(1).Key()); len(eps) != 1 {
				t.Errorf("%d pods are held of a Service that lost one of two", len(eps))
			}
			w.moves(3, 9001)
			w.until("it is small again", func() bool { return w.target(3) == "9001" })
		})
	}
}

// In wildcard all there is may be too large at the start, or grow so later. What is dialled is asked for then, and what is held stays; when it is small again
// all is asked for.
func TestAllThereIsIsTooLarge(t *testing.T) {
	const services = 20
	for name, later := range map[string]bool{"at the start": false, "later": true} {
		t.Run(name, func(t *testing.T) {
			w := newLarge(t, services, func(c *Config) { c.Wildcard, c.largeTime = true, 2*time.Second })
			entry := &route.Service{Name: "api", Namespace: "shop", Hostname: "api.example", Ports: []route.Port{{Service: 80, Target: 8080}}}
			pod := &route.Workload{UID: "api-1", Name: "api-1", Namespace: "shop", Addresses: []netip.Addr{netip.MustParseAddr("10.244.3.2")}, Tunnel: route.TunnelHBONE, Services: []route.Member{{Service: entry.Key()}}}
			w.istiod.SetService(entry)
			w.istiod.SetWorkload(pod)
			if later {
				w.until("the ServiceEntry", func() bool { _, err := w.Resolve(t.Context(), "tcp", "api.example:80"); return err == nil })
				w.dials(services)
				w.dial(services) // which is not there
			}
			huge := func() { w.istiod.SetRaw(wdstest.AddressType, "shop/huge", oversized(), "/192.0.2.66") }
			if !later { // or the first answer would have come
				w.Close()
				w.istiod.Stop()
				huge()
				w.istiod.Start(t)
				cfg := scaleConfig(w.istiod, true)
				cfg.largeTime = 2 * time.Second
				c, err := New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
				w.Client = c
			} else {
				huge()
			}
			w.until("it asks for what is dialled", func() bool { return w.Stats().Narrowed })
			w.dials(services)
			w.until("there is a connection", func() bool { return w.Stats().Online })
			w.moves(1, 9000)
			w.until("a change", func() bool { return w.target(1) == "9000" })
			ask, enough := context.WithTimeout(t.Context(), 20*time.Second)
			defer enough()
			if _, err := w.Resolve(ask, "tcp", "shop/api.example:80"); err != nil {
				t.Errorf("a ServiceEntry by its namespace: %v", err)
			}
			// By its name alone only where all there is was there once: else it would be known by what was dialled.
			if _, err := w.Resolve(ask, "tcp", "api.example:80"); (err == nil) != later || err != nil && !errors.As(err, new(*route.Error)) {
				t.Errorf("a ServiceEntry by its name alone: %v", err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if _, err := w.Resolve(ctx, "tcp", "192.0.2.66:80"); err == nil || !strings.Contains(err.Error(), "has more than 64 MiB") && !errors.As(err, new(*route.Error)) {
				t.Errorf("what is too large: %v", err)
			}
			if st := w.Stats(); st.TooLarge > 6 || st.Services < services {
				t.Errorf("%+v", st)
			}
			w.istiod.Remove(wdstest.AddressType, "shop/huge")
			w.until("it asks for all again", func() bool { st := w.Stats(); return !st.Narrowed && st.Online && st.Names == 1 })
			w.moves(2, 9002)
			w.until("a change after that", func() bool { return w.target(2) == "9002" })
			asked := len(w.istiod.Requests())
			if _, err := w.Resolve(ctx, "tcp", "192.0.2.67:80"); !errors.As(err, new(*route.Error)) {
				t.Errorf("what is not there: %v", err)
			}
			if more := w.istiod.Requests()[asked:]; slices.ContainsFunc(more, func(r wdstest.Request) bool { return len(r.Subscribe) > 0 }) {
				t.Errorf("it asks for names: %+v", more)
			}
		})
	}
}

// Policies that are too large end no more connections than it takes to find that out. Those that are held stay in force, without any nobody is let in, and
// addresses are answered all the while.
func TestPoliciesAreTooLarge(t *testing.T) {
	deny := &authz.Policy{Namespace: "edge", Name: "closed", Scope: authz.ScopeNamespace, Action: authz.Deny, Rules: []authz.Rule{{{authz.Match{DestinationPorts: []uint16{9090}}}}}}
	to := func(port string) authz.Conn { return authz.Conn{Dest: netip.MustParseAddrPort("10.244.9.9:" + port)} }
	for name, held := range map[string]bool{"at the start": false, "later": true} {
		t.Run(name, func(t *testing.T) {
			w := newLarge(t, 5, func(c *Config) { c.Policies = true })
			own := &route.Workload{UID: "own", Name: "edge-1", Namespace: "edge", Addresses: []netip.Addr{netip.MustParseAddr("10.244.9.9")}}
			w.istiod.SetWorkload(own)
			w.istiod.SetPolicy(deny)
			a := w.Authorizer(own.Addresses[0])
			if held {
				w.until("the policy", func() bool { return !a.Decide(t.Context(), to("9090")).Missing })
			} else {
				w.Close()
			}
			w.istiod.SetRaw(wdstest.PolicyType, "other/huge", oversized())
			if !held {
				cfg := w.cfg
				c, err := New(cfg)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
				w.Client, a = c, c.Authorizer(own.Addresses[0])
				a.Wait = -1
			}
			w.until("it is noticed", func() bool { return w.Stats().TooLarge > 0 })
			w.dials(5)
			w.until("it is found out", func() bool {
				w.mu.Lock()
				defer w.mu.Unlock()
				return !w.polsLarge.since.IsZero()
			})
			w.calm()
			w.moves(1, 9000)
			w.until("a change", func() bool { return w.target(1) == "9000" })
			if st := w.Stats(); st.TooLarge > 4 {
				t.Errorf("%+v", st)
			}
			if d := a.Decide(t.Context(), to("9090")); d.Allow || d.Missing == held {
				t.Errorf("what the policy denies: %+v", d)
			}
			if d := a.Decide(t.Context(), to("8080")); d.Allow != held {
				t.Errorf("what it does not deny: %+v", d)
			}
			w.istiod.Remove(wdstest.PolicyType, "other/huge")
			w.istiod.Remove(wdstest.PolicyType, deny.Key())
			w.until("they are small again", func() bool { return a.Decide(t.Context(), to("9090")).Allow })
		})
	}
}

// An istiod that only ever sends what is too large is asked less and less.
func TestAllIsTooLarge(t *testing.T) {
	w := newLarge(t, 3, nil)
	w.dials(3)
	w.istiod.SetRaw(wdstest.AddressType, "own", oversized(), w.own())
	for n := range 3 {
		w.grows(n)
	}
	time.Sleep(5 * time.Second)
	before := w.Stats()
	w.dials(3) // as before
	if before.TooLarge > 30 {
		t.Errorf("%d connections in 5 s", before.TooLarge)
	}
	w.istiod.Remove(wdstest.AddressType, "own")
	for n := range 3 {
		w.moves(n, 9000)
	}
	w.until("all is well again", func() bool { return w.target(0) == "9000" && w.target(1) == "9000" && w.target(2) == "9000" })
}
