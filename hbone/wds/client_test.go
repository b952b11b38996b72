package wds_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/hbone/route"
	"github.com/isthmus-mesh/isthmus/hbone/wds"
	"github.com/isthmus-mesh/isthmus/hbone/wds/wdstest"
)

const cartKey = "shop/cart.shop.svc.cluster.local"

func cart() *route.Service {
	return &route.Service{
		Name: "cart", Namespace: "shop", Hostname: "cart.shop.svc.cluster.local",
		Addresses: []route.NetAddr{{IP: netip.MustParseAddr("10.96.0.1")}}, Ports: []route.Port{{Service: 80, Target: 8080}},
	}
}

func pod(name, ip string, services ...string) *route.Workload {
	w := &route.Workload{
		UID: "Kubernetes//Pod/shop/" + name, Name: name, Namespace: "shop", ServiceAccount: "cart", Tunnel: route.TunnelHBONE,
		Addresses: []netip.Addr{netip.MustParseAddr(ip)},
	}
	for _, key := range services {
		w.Services = append(w.Services, route.Member{Service: key})
	}
	return w
}

// start returns an istiod with cart and its one pod, and a client of it.
func start(t *testing.T, change ...func(*wds.Config)) (*wdstest.Istiod, *wds.Client) {
	t.Helper()
	istiod := wdstest.New(t)
	istiod.SetService(cart())
	istiod.SetWorkload(pod("cart-1", "10.244.1.1", cartKey))
	return istiod, client(t, istiod, change...)
}

func client(t testing.TB, istiod *wdstest.Istiod, change ...func(*wds.Config)) *wds.Client {
	t.Helper()
	cfg := wds.Config{
		Addresses: []string{istiod.Addr()}, Roots: istiod.Roots, Token: wdstest.Token,
		Node:         wds.Node{IP: netip.MustParseAddr("10.244.9.9"), Pod: "edge-1", Namespace: "edge", ServiceAccount: "gateway"},
		RefreshEvery: 50 * time.Millisecond,
	}
	for _, f := range change {
		f(&cfg)
	}
	c, err := wds.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// resolve wants an answer.
func resolve(t *testing.T, c *wds.Client, address string) hbone.Route {
	t.Helper()
	r, err := c.Resolve(within(t, 10*time.Second), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// eventually waits for ok, which is asked again at every change.
func eventually(t *testing.T, c *wds.Client, what string, ok func() bool) {
	t.Helper()
	end := time.After(10 * time.Second)
	for {
		changed := c.Changed()
		if ok() {
			return
		}
		select {
		case <-changed:
		case <-end:
			t.Fatal("never: ", what)
		}
	}
}

func asksFor(name string) func(wdstest.Request) bool {
	return func(r wdstest.Request) bool { return slices.Contains(r.Subscribe, name) }
}

func TestOnDemand(t *testing.T) {
	istiod, c := start(t)
	if err := c.Ready(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	if r := resolve(t, c, "10.96.0.1:80"); len(r.Hops) != 1 || r.Hops[0].Authority != "10.244.1.1:8080" {
		t.Errorf("by VIP: %+v", r)
	}
	if r := resolve(t, c, "cart.shop.svc.cluster.local:80"); len(r.Hops) != 1 || r.Hops[0].Authority != "10.244.1.1:8080" {
		t.Errorf("by name: %+v", r)
	}
	for _, r := range istiod.Requests() {
		if r.Type != wdstest.AddressType {
			t.Errorf("a client without policies asks for %s", r.Type)
		}
		for _, name := range r.Subscribe {
			if name != "/10.244.9.9" && name != "/10.96.0.1" {
				t.Errorf("asked for %s, which was known or not needed", name)
			}
		}
	}
	if r := istiod.Requests()[0]; r.NodeID != "ztunnel~10.244.9.9~edge-1.edge~edge.svc.cluster.local" {
		t.Errorf("it says it is %s", r.NodeID)
	}
	// What was asked for follows: an endpoint comes, and goes.
	istiod.SetWorkload(pod("cart-2", "10.244.1.2", cartKey))
	istiod.Remove(wdstest.AddressType, "Kubernetes//Pod/shop/cart-1")
	eventually(t, c, "the new endpoint only", func() bool { return resolve(t, c, "10.96.0.1:80").Hops[0].Name == "shop/cart-2" })
}

func TestConcurrentLookupsAskOnce(t *testing.T) {
	istiod, c := start(t)
	istiod.SetSilent(true)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { _, _ = c.Resolve(within(t, 10*time.Second), "tcp", "10.96.0.1:80") })
	}
	istiod.Wait(t, "the VIP", asksFor("/10.96.0.1"))
	istiod.SetSilent(false)
	wg.Wait()
	n := 0
	for _, r := range istiod.Requests() {
		if asksFor("/10.96.0.1")(r) {
			n++
		}
	}
	if n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestAbsence(t *testing.T) {
	const absentFor = 300 * time.Millisecond
	istiod, c := start(t, func(c *wds.Config) { c.AbsentFor = absentFor })
	count := func() (n int) {
		for _, r := range istiod.Requests() {
			if asksFor("/10.96.0.7")(r) {
				n++
			}
		}
		return n
	}
	for range 20 {
		if _, err := c.Resolve(within(t, 10*time.Second), "tcp", "10.96.0.7:80"); err == nil || !strings.Contains(err.Error(), "outside the mesh") {
			t.Fatal(err)
		}
	}
	if n := count(); n != 1 {
		t.Errorf("asked %d times within %v", n, absentFor)
	}
	// Asked anew, istiod says so again, and what is held stays.
	resolve(t, c, "10.96.0.1:80")
	for n := range 3 {
		time.Sleep(absentFor)
		if _, err := c.Resolve(within(t, 5*time.Second), "tcp", "10.96.0.7:80"); err == nil || !strings.Contains(err.Error(), "outside the mesh") {
			t.Fatal(err)
		}
		if got := count(); got != n+2 {
			t.Errorf("asked %d times, want %d", got, n+2)
		}
		asked := len(istiod.Requests())
		resolve(t, c, "10.96.0.1:80")
		for _, r := range istiod.Requests()[asked:] {
			if asksFor("/10.96.0.1")(r) {
				t.Error("what was held is asked for")
			}
		}
	}
	time.Sleep(absentFor)
	late := cart()
	late.Hostname, late.Addresses[0].IP = "late.shop.svc.cluster.local", netip.MustParseAddr("10.96.0.7")
	istiod.SetService(late)
	istiod.SetWorkload(pod("late-1", "10.244.1.7", late.Key()))
	eventually(t, c, "the Service that came", func() bool {
		r, err := c.Resolve(within(t, 10*time.Second), "tcp", "10.96.0.7:80")
		return err == nil && r.Hops[0].Name == "shop/late-1"
	})
}

func TestBadResourceKeepsTheOldValue(t *testing.T) {
	var log bytes.Buffer
	istiod, c := start(t, func(c *wds.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	resolve(t, c, "10.96.0.1:80")
	istiod.SetRaw(wdstest.AddressType, cartKey, []byte{0xff}, "/10.96.0.1")
	nack := istiod.Wait(t, "a NACK", func(r wdstest.Request) bool { return r.Error != "" })
	if !strings.Contains(nack.Error, cartKey) || nack.Nonce == "" {
		t.Errorf("the NACK says %+v", nack)
	}
	if r := resolve(t, c, "10.96.0.1:80"); r.Hops[0].Name != "shop/cart-1" {
		t.Errorf("the old value is gone: %+v", r)
	}
	istiod.SetService(cart())
	istiod.Wait(t, "an ACK after it", func(r wdstest.Request) bool { return r.Error == "" && r.Nonce > nack.Nonce })
	c.Close()
	if !strings.Contains(log.String(), "cannot be read") {
		t.Errorf("the log says nothing: %s", &log)
	}
}
