package wds_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/authz"
	"github.com/isthmus-mesh/isthmus/hbone/route"
	"github.com/isthmus-mesh/isthmus/hbone/wds"
	"github.com/isthmus-mesh/isthmus/hbone/wds/wdstest"
)

// What is wrong with one resource is said where it is dialled, and nothing else suffers. Those that cannot even be read are in
// TestBadResourceKeepsTheOldValue.
func TestBadResourcesHurtNobodyElse(t *testing.T) {
	service := func(name, vip string, edit func(*route.Service)) *route.Service {
		s := cart()
		s.Name, s.Hostname = name, name+".shop.svc.cluster.local"
		s.Addresses = []route.NetAddr{{IP: netip.MustParseAddr(vip)}}
		edit(s)
		return s
	}
	through := func(name string) func(*route.Service) {
		return func(s *route.Service) {
			s.Waypoint = &route.Gateway{Host: route.Host{Namespace: "shop", Hostname: name + ".shop.svc.cluster.local"}, Port: 80}
		}
	}
	workload := func(name, ip, svc string, edit func(*route.Workload)) *route.Workload {
		w := pod(name, ip, "shop/"+svc+".shop.svc.cluster.local")
		edit(w)
		return w
	}
	for name, tt := range map[string]struct {
		services  []*route.Service
		workloads []*route.Workload
		dial      string
		want      string // in the error; "": it leads somewhere
	}{
		"a waypoint behind a waypoint": {
			services:  []*route.Service{service("a", "10.96.1.1", through("b")), service("b", "10.96.1.2", through("c")), service("c", "10.96.1.3", through("b"))},
			workloads: []*route.Workload{workload("b-1", "10.244.2.1", "b", func(*route.Workload) {})}, dial: "10.96.1.1:80",
		},
		"a waypoint that is its own": {
			services: []*route.Service{service("a", "10.96.1.1", through("a"))}, dial: "10.96.1.1:80", want: "has no ready pod; going around it would skip its policies",
		},
		"a Service without ports": {
			services: []*route.Service{service("a", "10.96.1.1", func(s *route.Service) { s.Ports = nil })}, dial: "10.96.1.1:80", want: "has no ports",
		},
		"another network without gateway": {
			services:  []*route.Service{service("a", "10.96.1.1", func(*route.Service) {})},
			workloads: []*route.Workload{workload("a-1", "10.244.2.1", "a", func(w *route.Workload) { w.Network = "far" })},
			dial:      "10.96.1.1:80", want: "without a gateway",
		},
		"a gateway that nobody knows": {
			services: []*route.Service{service("a", "10.96.1.1", func(*route.Service) {})},
			workloads: []*route.Workload{workload("a-1", "10.244.2.1", "a", func(w *route.Workload) {
				w.Network, w.NetworkGateway = "far", &route.Gateway{Addr: route.NetAddr{Network: "far", IP: netip.MustParseAddr("192.0.2.9")}, Port: 15008}
			})},
			dial: "10.96.1.1:80", want: "where istiod knows nobody",
		},
		"two Services on one VIP": {
			services:  []*route.Service{service("a", "10.96.1.1", func(*route.Service) {}), service("b", "10.96.1.1", func(*route.Service) {})},
			workloads: []*route.Workload{workload("a-1", "10.244.2.1", "a", func(*route.Workload) {}), workload("b-1", "10.244.2.2", "b", func(*route.Workload) {})},
			dial:      "10.96.1.1:80",
		},
		"a tunnel of the future": {
			services:  []*route.Service{service("a", "10.96.1.1", func(*route.Service) {})},
			workloads: []*route.Workload{workload("a-1", "10.244.2.1", "a", func(w *route.Workload) { w.Tunnel = 9 })},
			dial:      "10.96.1.1:80", want: "tunnel protocol (9)",
		},
		"an impossible trust domain": {
			services:  []*route.Service{service("a", "10.96.1.1", func(*route.Service) {})},
			workloads: []*route.Workload{workload("a-1", "10.244.2.1", "a", func(w *route.Workload) { w.TrustDomain = "../etc" })},
			dial:      "10.96.1.1:80", want: "identity of workload shop/a-1 makes no sense",
		},
	} {
		t.Run(name, func(t *testing.T) {
			istiod, c := start(t)
			for _, s := range tt.services {
				istiod.SetService(s)
			}
			for _, w := range tt.workloads {
				istiod.SetWorkload(w)
			}
			r, err := c.Resolve(within(t, 10*time.Second), "tcp", tt.dial)
			switch {
			case tt.want == "" && (err != nil || len(r.Hops) != 1):
				t.Errorf("it leads to %+v, %v", r, err)
			case tt.want != "" && (!isFinal(err) || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("%v, want %q", err, tt.want)
			}
			if r := resolve(t, c, "10.96.0.1:80"); len(r.Hops) != 1 {
				t.Errorf("what is right leads to %+v", r)
			}
		})
	}
}

// A response of more than 64 MiB is not taken; that is said, what is held goes on, and it heals.
func TestAnOversizedResponse(t *testing.T) {
	istiod, c := start(t)
	resolve(t, c, "10.96.0.1:80")
	istiod.SetRaw(wdstest.AddressType, "shop/huge", bytes.Repeat([]byte{0xff}, 65<<20), "/10.96.0.66")
	_, err := c.Resolve(within(t, 10*time.Second), "tcp", "10.96.0.66:80")
	if err == nil || !strings.Contains(err.Error(), "larger than max") || !strings.Contains(err.Error(), istiod.Addr()) {
		t.Errorf("got %v", err)
	}
	if r := resolve(t, c, "10.96.0.1:80"); r.Hops[0].Name != "shop/cart-1" {
		t.Errorf("what is held leads to %+v", r)
	}
	if st := c.Stats(); st.LastError == nil || st.Lost == 0 {
		t.Errorf("%+v", st)
	}
	istiod.Remove(wdstest.AddressType, "shop/huge")
	istiod.SetWorkload(pod("cart-1", "10.244.1.55", cartKey))
	eventually(t, c, "the change after it", func() bool {
		r, err := c.Resolve(within(t, 10*time.Second), "tcp", "10.96.0.1:80")
		return err == nil && r.Hops[0].Addr.Addr().String() == "10.244.1.55"
	})
}

// While an answer is too large, also for ever, all else that is asked for is answered and kept up to date; the name itself is refused, and not asked for all
// the time.
func TestAnOversizedAnswerIsOneNames(t *testing.T) {
	for name, refresh := range map[string]time.Duration{"nothing is asked for anew": -1, "what is held is asked for anew all the time": 20 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			istiod, c := start(t, func(c *wds.Config) { c.RefreshEvery = refresh })
			istiod.Fill(20, 2)
			resolve(t, c, "10.96.0.1:80")
			istiod.SetRaw(wdstest.AddressType, "shop/huge", bytes.Repeat([]byte{0xff}, 65<<20), "/10.96.0.66")
			var wg sync.WaitGroup
			for i := range 20 { // at once, so that one answer is for them and for it
				wg.Go(func() {
					if _, err := c.Resolve(within(t, 20*time.Second), "tcp", wdstest.FillService(i).Hostname+":80"); err != nil {
						t.Error(err)
					}
				})
			}
			_, err := c.Resolve(within(t, 20*time.Second), "tcp", "10.96.0.66:80")
			if err == nil || !strings.Contains(err.Error(), "answer for /10.96.0.66 has more than 64 MiB") || !strings.Contains(err.Error(), istiod.Addr()) {
				t.Errorf("got %v", err)
			}
			wg.Wait()
			asked := func() (n int) {
				for _, r := range istiod.Requests() {
					if slices.Contains(r.Subscribe, "/10.96.0.66") {
						n++
					}
				}
				return n
			}
			before := asked()
			istiod.SetWorkload(pod("cart-1", "10.244.1.55", cartKey))
			eventually(t, c, "a change elsewhere", func() bool {
				r, err := c.Resolve(within(t, 10*time.Second), "tcp", "10.96.0.1:80")
				return err == nil && r.Hops[0].Addr.Addr().String() == "10.244.1.55"
			})
			begin := time.Now()
			if _, err := c.Resolve(within(t, 10*time.Second), "tcp", "10.96.0.66:80"); err == nil || time.Since(begin) > 5*time.Second {
				t.Errorf("after %v: %v", time.Since(begin), err)
			}
			if n := asked(); n != before || n > 6 {
				t.Errorf("it was asked for %d times, then %d times", before, n)
			}
			if st := c.Stats(); !st.Online || st.Lost > 4 {
				t.Errorf("%+v", st)
			}
		})
	}
}

// What somebody dials, a stranger's Host header at a gateway say, or what istiod names as a waypoint cannot make requests that no message can hold: the
// connection would end by each of them.
func TestNamesThatNoMessageHolds(t *testing.T) {
	istiod, c := start(t)
	resolve(t, c, "10.96.0.1:80")
	guarded := cart()
	guarded.Hostname, guarded.Addresses = "guarded.shop.svc.cluster.local", []route.NetAddr{{IP: netip.MustParseAddr("10.96.0.2")}}
	guarded.Waypoint = &route.Gateway{Host: route.Host{Namespace: "shop", Hostname: "\xff"}, Port: 15008}
	istiod.SetService(guarded)
	for _, address := range []string{"\xff.example:80", "shop/\xff.example:80", "[fe80::1%\xff]:80", strings.Repeat("x", 1<<20) + ".example:80", "10.96.0.2:80"} {
		if _, err := c.Resolve(within(t, 10*time.Second), "tcp", address); !isFinal(err) || len(err.Error()) > 1000 {
			t.Errorf("%.20q: %.200v", address, err)
		}
	}
	istiod.SetWorkload(pod("cart-1", "10.244.1.55", cartKey))
	eventually(t, c, "a change after it", func() bool {
		r, err := c.Resolve(within(t, 10*time.Second), "tcp", "10.96.0.1:80")
		return err == nil && r.Hops[0].Addr.Addr().String() == "10.244.1.55"
	})
	if st := c.Stats(); st.Lost != 0 || !st.Online {
		t.Errorf("%+v", st)
	}
}

// A token that no header can hold is not shown, and not told of either.
func TestTokensAreNotTold(t *testing.T) {
	for name, token := range map[string]string{"two lines": "secret\nsecret", "binary": "secret\x00\xff", "long": strings.Repeat("secret", 1<<20)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // each mostly waits
			var log bytes.Buffer
			_, c := start(t, func(c *wds.Config) {
				c.Token = func(context.Context) (string, error) { return token, nil }
				c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			})
			err := c.Ready(within(t, 700*time.Millisecond))
			if err == nil || strings.Contains(err.Error(), "secret") || len(err.Error()) > 2000 {
				t.Errorf("%.300v", err)
			}
			c.Close()
			if strings.Contains(log.String(), "secret") {
				t.Errorf("the log has %.300q", log.String())
			}
		})
	}
}

// A server that sends without end what nobody asked for fills no memory: what is beyond the limit is refused, and what is held is still kept up to date.
func TestEndlessResources(t *testing.T) {
	var log bytes.Buffer
	istiod, c := start(t, policies, func(c *wds.Config) {
		c.MaxResources, c.Logger = 50, slog.New(slog.NewTextHandler(&log, nil))
	})
	resolve(t, c, "10.96.0.1:80")
	for i := range 400 { // endpoints of what was asked for, and policies, which nobody asks for by name
		istiod.SetWorkload(pod(fmt.Sprintf("flood-%d", i), fmt.Sprintf("10.66.%d.%d", i/200, i%200+1), cartKey))
		istiod.SetPolicy(&authz.Policy{Namespace: "other", Name: fmt.Sprint("flood-", i), Scope: authz.ScopeNamespace})
	}
	refused := istiod.Wait(t, "a NACK", func(r wdstest.Request) bool { return strings.Contains(r.Error, "Config.MaxResources") })
	if len(refused.Error) > 10_000 {
		t.Errorf("a NACK of %d bytes", len(refused.Error))
	}
	moved := cart()
	moved.Ports[0].Target = 9999
	istiod.SetService(moved)
	eventually(t, c, "a change of what is held", func() bool {
		return strings.HasSuffix(resolve(t, c, "10.96.0.1:80").Hops[0].Authority, ":9999")
	})
	if st := c.Stats(); st.Services+st.Workloads > 50 || st.Policies > 50 || st.Unreadable > 101 || st.Refused == 0 {
		t.Errorf("%+v", st)
	}
	a := c.Authorizer(own)
	a.Wait = -1
	if d := a.Decide(t.Context(), gateway); d.Allow || !strings.Contains(d.Reason, "more such policies") {
		t.Errorf("with policies that there is no room for: %+v", d)
	}
	c.Close()
	if !strings.Contains(log.String(), "Config.MaxResources") {
		t.Error("the log does not tell")
	}
}
