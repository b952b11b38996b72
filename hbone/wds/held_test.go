package wds_test

import (
	"net/netip"
	"testing"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/hbone/route"
)

// What came by another name says nothing of who else has an address: istiod is asked before a range is gone by, or a Service that shares its VIP with others.
func TestAnAddressIsAskedForItself(t *testing.T) {
	istiod, c := start(t)
	wide := cart()
	wide.Name, wide.Hostname, wide.Addresses = "wide", "wide.example", nil
	wide.Namespace, wide.Ranges = "shop", []route.NetPrefix{{Prefix: netip.MustParsePrefix("10.97.0.0/16")}}
	shared := cart()
	shared.Name, shared.Hostname, shared.Addresses[0].IP = "shared", "shared.example", netip.MustParseAddr("10.98.0.1")
	guarded := func(ip string) *route.Service {
		s := cart()
		s.Name, s.Namespace, s.Hostname, s.Addresses[0].IP = "guarded", "edge", "guarded-"+ip+".example", netip.MustParseAddr(ip)
		s.Waypoint = &route.Gateway{Host: route.Host{Namespace: "edge", Hostname: "waypoint.edge.svc.cluster.local"}, Port: 15008}
		return s
	}
	waypoint := cart()
	waypoint.Name, waypoint.Namespace, waypoint.Hostname = "waypoint", "edge", "waypoint.edge.svc.cluster.local"
	waypoint.Addresses[0].IP, waypoint.Ports = netip.MustParseAddr("10.96.0.8"), []route.Port{{Service: 15008, Target: 15008}}
	for _, s := range []*route.Service{wide, shared, guarded("10.97.0.7"), guarded("10.98.0.1"), waypoint} {
		istiod.SetService(s)
	}
	istiod.SetWorkload(pod("wide-1", "10.244.3.1", wide.Key()))
	istiod.SetWorkload(pod("shared-1", "10.244.3.2", shared.Key()))
	istiod.SetWorkload(pod("waypoint-1", "10.244.3.3", waypoint.Key()))
	for _, name := range []string{"shop/wide.example:80", "shop/shared.example:80", "10.97.0.1:80"} {
		_, _ = c.Resolve(within(t, 5e9), "tcp", name) // wide has no way by name
	}
	for dial, want := range map[string]hbone.HopKind{"10.97.0.7:80": hbone.HopWaypoint, "10.98.0.1:80": hbone.HopWaypoint, "10.97.0.1:80": hbone.HopWorkload} {
		if r := resolve(t, c, dial); len(r.Hops) != 1 || r.Hops[0].Kind != want {
			t.Errorf("%s goes by %+v, want a %s", dial, r.Reason, want)
		}
	}
	// Somebody may come whose address it is.
	istiod.SetService(guarded("10.97.0.1"))
	eventually(t, c, "the waypoint of an address in the range", func() bool {
		return resolve(t, c, "10.97.0.1:80").Hops[0].Kind == hbone.HopWaypoint
	})
}
