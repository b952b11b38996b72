package wds_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/route"
	"github.com/isthmus-mesh/isthmus/hbone/wds"
	"github.com/isthmus-mesh/isthmus/hbone/wds/wdstest"
)

// entry is a ServiceEntry of namespace shop, with its pod.
func entry(istiod *wdstest.Istiod) {
	s := cart()
	s.Name, s.Hostname, s.Addresses = "api", "api.example", []route.NetAddr{{IP: netip.MustParseAddr("240.240.0.2")}}
	istiod.SetService(s)
	istiod.SetWorkload(pod("api-1", "10.244.3.2", s.Key()))
}

// What a name without namespace means hangs on nothing that others have dialled: on demand it is our own namespace's, before and after another's of that name
// was dialled. A client that holds all there is finds it, the first time as well as later.
func TestANameWithoutNamespaceIsNotFoundByChance(t *testing.T) {
	t.Run("on demand", func(t *testing.T) {
		istiod, c := start(t)
		entry(istiod)
		refused := func(when string) {
			t.Helper()
			_, err := c.Resolve(within(t, 10*time.Second), "tcp", "api.example:80")
			if !isFinal(err) || !strings.Contains(err.Error(), "namespace edge; one of another namespace is dialled as namespace/api.example") {
				t.Errorf("%s: %v", when, err)
			}
		}
		refused("before")
		for _, address := range []string{"shop/api.example:80", "240.240.0.2:80"} {
			if r := resolve(t, c, address); r.Hops[0].Name != "shop/api-1" {
				t.Errorf("%s leads to %+v", address, r)
			}
		}
		refused("after")
		ours := cart()
		ours.Name, ours.Namespace, ours.Hostname, ours.Addresses = "api", "edge", "api.example", []route.NetAddr{{IP: netip.MustParseAddr("240.240.0.3")}}
		istiod.SetService(ours)
		istiod.SetWorkload(pod("own-1", "10.244.3.3", ours.Key()))
		eventually(t, c, "one of our own namespace", func() bool {
			r, err := c.Resolve(within(t, 10*time.Second), "tcp", "api.example:80")
			return err == nil && r.Hops[0].Name == "shop/own-1"
		})
	})
	t.Run("all there is", func(t *testing.T) {
		istiod := wdstest.New(t)
		entry(istiod)
		c := client(t, istiod, func(c *wds.Config) { c.Wildcard = true })
		if r := resolve(t, c, "api.example:80"); r.Hops[0].Name != "shop/api-1" {
			t.Errorf("it leads to %+v", r)
		}
	})
}
