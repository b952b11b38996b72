package wds_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/hbone/route"
	"github.com/isthmus-mesh/isthmus/hbone/wds"
	"github.com/isthmus-mesh/isthmus/hbone/wds/wdstest"
)

// What is not dialled any more is given up, with all that came with it; what is dialled stays, and so does what has a tunnel.
func TestWhatIsUnusedIsGivenUp(t *testing.T) {
	s := newShop(t)
	s.istiod.SetWorkload(pod("cart-1", "10.244.1.1", cartKey))
	s.run("cart-1", "10.244.1.1", s.id("/ns/shop/sa/cart"))
	s.istiod.Fill(3, 2)
	c := client(t, s.istiod, func(c *wds.Config) { c.UnusedFor = 400 * time.Millisecond })
	ways := func(n int) string { return wdstest.FillService(n).Hostname + ":80" }
	resolve(t, c, ways(0))
	resolve(t, c, ways(1))
	resolve(t, c, "10.0.0.2:80") // the third by its VIP
	st := c.Stats()
	if st.Services != 3 || st.Workloads != 6 || st.Names != 4 {
		t.Fatalf("%+v", st)
	}
	end := time.Now().Add(10 * time.Second)
	for ; c.Stats().Services > 1; time.Sleep(20 * time.Millisecond) {
		resolve(t, c, ways(0))
		if time.Now().After(end) {
			t.Fatalf("%+v", c.Stats())
		}
	}
	if st := c.Stats(); st.Workloads != 2 || st.Names != 2 {
		t.Errorf("%+v", st)
	}
	gone := wdstest.FillWorkload(1, 0).UID
	s.istiod.Wait(t, "all that came with a name is unsubscribed", func(r wdstest.Request) bool {
		return slices.Contains(r.Unsubscribe, gone) && !slices.Contains(r.Unsubscribe, wdstest.FillWorkload(0, 0).UID)
	})
	// It comes back as it is now when it is dialled again.
	moved := wdstest.FillWorkload(1, 0)
	moved.Addresses[0] = netip.MustParseAddr("10.99.0.1")
	s.istiod.SetWorkload(moved)
	s.istiod.Remove(wdstest.AddressType, wdstest.FillWorkload(1, 1).UID)
	if r := resolve(t, c, ways(1)); r.Hops[0].Addr.Addr() != moved.Addresses[0] {
		t.Errorf("it leads to %v", r.Hops[0].Addr)
	}
}

func TestWhatHasATunnelIsUsed(t *testing.T) {
	s := newShop(t)
	s.istiod.SetWorkload(pod("cart-1", "10.244.1.1", cartKey))
	c := client(t, s.istiod, func(c *wds.Config) { c.UnusedFor = 200 * time.Millisecond })
	r := resolve(t, c, cartName)
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if !c.Admits(r) { // as a Dialer asks now and then
			t.Fatal("its way is no longer right")
		}
	}
	if st := c.Stats(); st.Services != 1 {
		t.Errorf("%+v", st)
	}
}

// A resource that istiod sent before it knew that nobody wants it is not held: it would be served as it was for ever.
func TestALateResourceIsNotHeld(t *testing.T) {
	istiod, c := start(t, func(c *wds.Config) { c.UnusedFor = 200 * time.Millisecond })
	resolve(t, c, "10.96.0.1:80")
	istiod.SetSilent(true)
	until(t, "it is given up", func() bool { return c.Stats().Services == 0 })
	istiod.SetWorkload(pod("cart-1", "10.244.1.77", cartKey)) // istiod has not read the request yet
	istiod.SetSilent(false)
	time.Sleep(300 * time.Millisecond)
	if st := c.Stats(); st.Services+st.Workloads != 0 {
		t.Errorf("%+v", st)
	}
	istiod.SetWorkload(pod("cart-1", "10.244.1.78", cartKey))
	eventually(t, c, "the address of today", func() bool {
		return resolve(t, c, "10.96.0.1:80").Hops[0].Addr.Addr().String() == "10.244.1.78"
	})
}

// Wildcard: all that is there, then what changes, also what changes while istiod is away and there is too much to tell it what is held.
func TestWildcard(t *testing.T) {
	for name, long := range map[string]int{"a few": 0, "more than a hello can tell": 3600} {
		t.Run(name, func(t *testing.T) {
			const services = 50
			istiod := wdstest.New(t)
			istiod.Fill(services, each)
			for i := range long { // 900 bytes each
				w := pod(fmt.Sprint(strings.Repeat("x", 900), i), fmt.Sprintf("10.77.%d.%d", i/200, i%200))
				istiod.SetWorkload(w)
			}
			c := client(t, istiod, func(c *wds.Config) { c.Wildcard = true })
			known := func(n int) (hbone.Route, error) {
				return c.Resolve(within(t, 10*time.Second), "tcp", wdstest.FillService(n).Hostname+":80")
			}
			if _, err := known(7); err != nil {
				t.Fatal(err)
			}
			if st := c.Stats(); st.Services != services || st.Workloads != services*each+long {
				t.Fatalf("%+v", st)
			}
			if _, err := c.Resolve(within(t, time.Second), "tcp", "192.0.2.1:80"); !isFinal(err) {
				t.Errorf("an address that is not there: %v", err)
			}
			istiod.Stop()
			if _, err := known(8); err != nil {
				t.Errorf("while istiod is away: %v", err)
			}
			istiod.Remove(wdstest.AddressType, wdstest.FillService(7).Key())
			for m := range each {
				istiod.Remove(wdstest.AddressType, wdstest.FillWorkload(7, m).UID)
			}
			late := cart()
			istiod.SetService(late)
			istiod.SetWorkload(pod("cart-1", "10.244.1.1", cartKey))
			istiod.Start(t)
			eventually(t, c, "what came meanwhile", func() bool {
				_, err := c.Resolve(within(t, 10*time.Second), "tcp", cartName)
				return err == nil
			})
			if _, err := known(7); !isFinal(err) {
				t.Errorf("what went meanwhile: %v", err)
			}
			if st := c.Stats(); st.Services != services || st.Workloads != (services-1)*each+1+long {
				t.Errorf("%+v", st)
			}
			for _, r := range istiod.Requests() {
				if len(r.Subscribe) > 0 && !slices.Equal(r.Subscribe, []string{"*"}) {
					t.Errorf("it asks for %d names", len(r.Subscribe))
				}
			}
		})
	}
}

const each = 10

func isFinal(err error) bool {
	_, ok := errors.AsType[*route.Error](err)
	return ok
}

func TestStats(t *testing.T) {
	istiod, c := start(t, policies)
	if err := c.Ready(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	resolve(t, c, "10.96.0.1:80")
	istiod.SetRaw(wdstest.AddressType, "shop/bad", []byte{0xff}, "/10.96.0.8")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, _ = c.Resolve(ctx, "tcp", "10.96.0.8:80")
	st := c.Stats()
	if !st.Online || st.Answered.IsZero() || st.Stale(time.Now()) != 0 || st.Services != 1 || st.Workloads != 1 || st.Unreadable != 1 || st.Refused != 1 || st.LastRefusal == nil {
		t.Errorf("%+v", st)
	}
	istiod.Stop()
	until(t, "it is away", func() bool { return !c.Stats().Online && c.Stats().Lost > 0 })
	st = c.Stats()
	if st.LastError == nil || st.Stale(st.Answered.Add(time.Minute)) != time.Minute {
		t.Errorf("%+v", st)
	}
}
