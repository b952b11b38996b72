package wds_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/hbone/route"
)

func waypoint(name, vip string) *route.Service {
	return &route.Service{
		Name: name, Namespace: "edge", Hostname: name + ".edge.svc.cluster.local",
		Addresses: []route.NetAddr{{IP: netip.MustParseAddr(vip)}}, Ports: []route.Port{{Service: 15008, Target: 15008}},
	}
}

func gatewayTo(s *route.Service) route.Gateway {
	return route.Gateway{Host: route.Host{Namespace: s.Namespace, Hostname: s.Hostname}, Port: 15008}
}

// From no waypoint to one, to a canary beside it, and back, each by what istiod says next; never around one that is not there.
func TestWaypointsComeAndGo(t *testing.T) {
	istiod, c := start(t)
	leads := func(what string, kind hbone.HopKind, names ...string) {
		t.Helper()
		eventually(t, c, what, func() bool {
			var seen []string
			for range 40 {
				r, err := c.Resolve(within(t, 10*time.Second), "tcp", "10.96.0.1:80")
				if err != nil || len(r.Hops) != 1 || r.Hops[0].Kind != kind || kind == hbone.HopWaypoint && r.Hops[0].Authority != "10.96.0.1:80" {
					return false
				}
				if !slices.Contains(seen, r.Hops[0].Name) {
					seen = append(seen, r.Hops[0].Name)
				}
			}
			slices.Sort(seen)
			return slices.Equal(seen, names)
		})
	}
	refused := func(what, why string) {
		t.Helper()
		eventually(t, c, what, func() bool {
			r, err := c.Resolve(within(t, 10*time.Second), "tcp", "10.96.0.1:80")
			_, final := errors.AsType[*route.Error](err)
			return final && strings.Contains(err.Error(), why) && len(r.Hops) == 0
		})
	}
	leads("the endpoint", hbone.HopWorkload, "shop/cart-1")
	first, canary := waypoint("first", "10.96.0.20"), waypoint("canary", "10.96.0.21")
	guarded := cart()
	to := gatewayTo(first)
	guarded.Waypoint = &to
	istiod.SetService(guarded)
	refused("a waypoint that is not there", "which istiod does not know; is its Gateway still there?")
	istiod.SetService(first)
	refused("a waypoint without pods", "has no ready pod; going around it would skip its policies (none of the 0 endpoints")
	istiod.SetWorkload(pod("first-1", "10.244.1.20", first.Key()))
	leads("the waypoint", hbone.HopWaypoint, "shop/first-1")

	istiod.SetService(canary)
	istiod.SetWorkload(pod("canary-1", "10.244.1.21", canary.Key()))
	shared := *guarded
	shared.Weighted = []route.Weighted{{Gateway: gatewayTo(first), Weight: 50}, {Gateway: gatewayTo(canary), Weight: 50}}
	istiod.SetService(&shared)
	leads("both", hbone.HopWaypoint, "shop/canary-1", "shop/first-1")
	moved := shared
	moved.Weighted = []route.Weighted{{Gateway: gatewayTo(first)}, {Gateway: gatewayTo(canary), Weight: 100}}
	istiod.SetService(&moved)
	leads("the canary alone", hbone.HopWaypoint, "shop/canary-1")
	istiod.SetService(cart())
	leads("the endpoint again", hbone.HopWorkload, "shop/cart-1")
}
