package wds_test

import (
	"errors"
	"slices"
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
	eventually(t, c, "the new pod", func() bool {
		r, err := c.Resolve(within(t, 5*time.Second), "tcp", by)
		return err == nil && r.Hops[0].Name == "shop/cart-2"
	})
}
