package wds_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/route"
	"github.com/isthmus-mesh/isthmus/hbone/wds"
	"github.com/isthmus-mesh/isthmus/hbone/wds/wdstest"
)

// A Service that keeps to its node (internalTrafficPolicy: Local) is served by the endpoint on ours alone, which our own workload tells.
func TestStrictLocality(t *testing.T) {
	istiod, c := start(t, func(c *wds.Config) { c.MaxNames, c.AbsentFor = 1, 100*time.Millisecond })
	local := cart()
	local.Prefer, local.Strict = []route.Scope{route.ScopeNode}, true
	at := func(name, ip, node string, services ...string) {
		w := pod(name, ip, services...)
		w.Locality.Node = node
		istiod.SetWorkload(w)
	}
	at("cart-1", "10.244.1.1", "there", cartKey)
	istiod.SetService(local)
	dial := func() error {
		_, err := c.Resolve(within(t, 10*time.Second), "tcp", "10.96.0.1:80")
		return err
	}
	if err := dial(); err == nil || !strings.Contains(err.Error(), "istiod does not know where we are") {
		t.Errorf("our own workload is not known: %v", err)
	}
	at("edge-1", "10.244.9.9", "here")
	eventually(t, c, "our own workload", func() bool {
		_, err := c.Workload(within(t, time.Second), netip.MustParseAddr("10.244.9.9"))
		return err == nil
	})
	if err := dial(); err == nil || !strings.Contains(err.Error(), `none of the 1 healthy endpoints of Service shop/cart is of our node (node "here")`) {
		t.Errorf("no endpoint here: %v", err)
	}
	at("cart-2", "10.244.1.2", "here", cartKey)
	eventually(t, c, "the endpoint on our node", func() bool { return dial() == nil })
	for range 30 {
		if r := resolve(t, c, "10.96.0.1:80"); r.Hops[0].Name != "shop/cart-2" {
			t.Fatalf("leads to %s", r.Hops[0].Name)
		}
	}
	istiod.Remove(wdstest.AddressType, "Kubernetes//Pod/shop/cart-2")
	eventually(t, c, "its end", func() bool {
		err := dial()
		_, final := errors.AsType[*route.Error](err)
		return final
	})
}
