package wds_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/route"
	"github.com/isthmus-mesh/isthmus/hbone/wds"
	"github.com/isthmus-mesh/isthmus/hbone/wds/wdstest"
)

// istiod tells nobody of the first pod of a Service: who has asked for the Service must ask again.
func TestAServiceLosesItsLastPod(t *testing.T) {
	istiod, c := start(t, func(c *wds.Config) { c.AbsentFor = 50 * time.Millisecond })
	const by = "cart.shop.svc.cluster.local:80"
	resolve(t, c, by)
	istiod.Remove(wdstest.AddressType, "Kubernetes//Pod/shop/cart-1")
	eventually(t, c, "an error that says that no pod is left", func() bool {
		_, err := c.Resolve(within(t, 5*time.Second), "tcp", by)
		_, ok := errors.AsType[*route.Error](err)
		return ok
	})
	time.Sleep(50 * time.Millisecond)
	if _, err := c.Resolve(within(t, 5*time.Second), "tcp", by); err == nil {
		t.Fatal("it leads somewhere")
	}
	istiod.Wait(t, "the Service asked for anew", func(r wdstest.Request) bool { return slices.Contains(r.Unsubscribe, cartKey) })
	istiod.SetWorkload(pod("cart-2", "10.244.1.2", cartKey))
	until(t, "the new pod", func() bool {
		r, err := c.Resolve(within(t, 5*time.Second), "tcp", by)
		return err == nil && r.Hops[0].Name == "shop/cart-2"
	})
}

// A Service without pods makes no room for other names: it would be served as it was, past a waypoint that it gets, when nobody tells of it any more.
func TestAServiceWithoutPodsIsNotEvicted(t *testing.T) {
	istiod, c := start(t, func(c *wds.Config) { c.MaxNames, c.AbsentFor = 3, 50*time.Millisecond })
	s := &route.Service{
		Name: "ext", Namespace: "shop", Hostname: "ext.shop.svc.cluster.local",
		Addresses: []route.NetAddr{{IP: netip.MustParseAddr("10.96.0.7")}}, Ports: []route.Port{{Service: 80, Target: 8080}},
	}
	istiod.SetService(s)
	const by = "ext.shop.svc.cluster.local:80"
	resolves := func(address string) error {
		t.Helper()
		_, err := c.Resolve(within(t, 5*time.Second), "tcp", address)
		if err == nil {
			t.Fatalf("%s leads somewhere", address)
		}
		return err
	}
	resolves(by)
	for i := range 6 { // each makes room for itself
		time.Sleep(50 * time.Millisecond)
		resolves(fmt.Sprintf("no%d.shop.svc.cluster.local:80", i))
	}
	guarded := *s
	guarded.Waypoint = &route.Gateway{Port: 15008, Addr: route.NetAddr{IP: netip.MustParseAddr("10.96.0.99")}}
	istiod.SetService(&guarded)
	istiod.SetWorkload(pod("ext-1", "10.244.1.7", "shop/ext.shop.svc.cluster.local"))
	eventually(t, c, "a refusal that names the waypoint", func() bool { return strings.Contains(resolves(by).Error(), "10.96.0.99") })
}
