package route

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/isthmus-mesh/isthmus/hbone"
)

// way is what a waypoint is gone through for.
type way struct {
	of     string         // what has the waypoint, for people
	svc    *Service       // nil: a workload
	target netip.AddrPort // where the waypoint is to go on to
}

// waypoint ends the way at a waypoint. That its pods are not listed as HBONE workloads does not matter. A waypoint's own waypoint is not asked for.
func (q *query) waypoint(g *Gateway, w way) (*fork, error) {
	at, err := q.standing(g, toWaypoint, w.target.Addr(), w.of, "waypoint")
	if err != nil {
		return nil, err
	}
	f := newFork(q, at.ends)
	if w.svc != nil {
		f.service = w.svc.Hostname
	}
	f.build = func(f *fork, e *end) ([]hbone.Hop, []string, error) {
		peers, err := identities(e.w, at.sans)
		if err != nil {
			return nil, nil, q.fail("the identity of waypoint %s makes no sense: %v", e.w.FullName(), err)
		}
		hop := hbone.Hop{
			Kind: hbone.HopWaypoint, Name: e.w.FullName(), Addr: netip.AddrPortFrom(e.addr, e.port), Authority: w.target.String(), Peers: peers,
		}
		if q.src.Ingress {
			hop.Header = []hbone.Field{{Name: "x-istio-source", Value: "gateway"}}
		}
		return []hbone.Hop{hop}, append(e.chosen(f), "through waypoint "+e.w.FullName()), nil
	}
	return f, q.cross(f, w.svc, hbone.HopWaypoint, at.sans)
}

// place is where a Gateway is.
type place struct {
	ends []end
	sans []string
}

// standing finds the pods of a waypoint or of an east-west gateway (what) of something.
func (q *query) standing(g *Gateway, p purpose, like netip.Addr, of, what string) (place, error) {
	port := g.Port
	if port == 0 {
		port = hbonePort
	}
	var svc *Service
	if g.Host != (Host{}) {
		if svc = q.serviceBy(g.Host.Key()); svc == nil {
			if err := q.need(g.Host.Key()); err != nil {
				return place{}, err
			}
			return place{}, q.fail("%s has the %s %s, which istiod does not know; is its Gateway still there?", of, what, g.Host.Key())
		}
	} else {
		if w := q.workloadAt(g.Addr); w != nil {
			addr := netip.AddrPortFrom(g.Addr.IP, port)
			ends := make([]end, 1)
			ends[0] = end{w: w, addr: g.Addr.IP, port: port, load: q.src.Memory.endpoint(addr)}
			return place{ends: ends}, nil
		}
		if svc = best(q.servicesAt(g.Addr), q.src.Namespace); svc == nil {
			if err := q.need(g.Addr.Key()); err != nil {
				return place{}, err
			}
			return place{}, q.fail("%s has a %s at %s, where istiod knows nobody", of, what, g.Addr.IP)
		}
		like = g.Addr.IP
	}
	ends, err := q.ends(svc, port, like, p)
	e, final := errors.AsType[*Error](err)
	switch {
	case final && p == toWaypoint:
		return place{}, q.fail("the waypoint %s/%s of %s has no ready pod; going around it would skip its policies (%s)", svc.Namespace, svc.Name, of, e.Why)
	case final:
		return place{}, q.fail("the %s %s/%s of %s has no ready pod (%s)", what, svc.Namespace, svc.Name, of, e.Why)
	}
	return place{ends, svc.SANs}, err
}

// cross leads those ends of f that are on another network there: through its east-west gateway, and in that tunnel to the Service by
// name. Who stands at the end of it is known by the Service's identities. Without a Service it is an error.
func (q *query) cross(f *fork, svc *Service, kind hbone.HopKind, sans []string) error {
	for i := range f.ends {
		e := &f.ends[i]
		if !q.remote(e.w) {
			continue
		}
		if svc == nil || e.w.NetworkGateway == nil {
			return q.fail("%s %s is on network %q and ours is %q; over networks only Services are reached, through the gateway that istiod names", kind, e.w.FullName(), e.w.Network, q.src.Network)
		}
		q.reason = append(slices.Clip(f.reason), string(kind)+" "+e.w.FullName()+" is on network "+e.w.Network)
		at, err := q.standing(e.w.NetworkGateway, toGateway, e.addr, string(kind)+" "+e.w.FullName(), "east-west gateway")
		if err != nil {
			if _, ok := errors.AsType[*MissingError](err); ok {
				return err
			}
			f.lead(i, &fork{err: err})
			continue
		}
		gateways := newFork(q, at.ends)
		gateways.service = svc.Hostname
		gateways.build = func(_ *fork, gw *end) ([]hbone.Hop, []string, error) {
			return q.double(e, gw, svc, kind, sans, at.sans)
		}
		f.lead(i, gateways)
	}
	return nil
}

// lead makes end i one that is reached through gateways.
func (f *fork) lead(i int, gateways *fork) {
	f.ends[i].beyond = gateways
	f.ready[i].state.Store(away)
}

// double is the hops to e in a tunnel to gw.
func (q *query) double(e, gw *end, svc *Service, kind hbone.HopKind, sans, gwSANs []string) ([]hbone.Hop, []string, error) {
	outer, err := identities(gw.w, gwSANs)
	if err != nil {
		return nil, nil, q.fail("the identity of gateway %s makes no sense: %v", gw.w.FullName(), err)
	}
	inner := parse(sans)
	if len(inner) == 0 && len(e.w.Addresses) > 0 { // one workload, and not what istiod says in place of many
		if inner, err = identities(e.w, nil); err != nil {
			return nil, nil, q.fail("the identity of %s %s makes no sense: %v", kind, e.w.FullName(), err)
		}
	}
	if len(inner) == 0 {
		return nil, nil, q.fail("istiod names no identity for %s %s on network %q", kind, e.w.FullName(), e.w.Network)
	}
	at := netip.AddrPortFrom(gw.addr, gw.port)
	beyond := at // nothing better is known
	if e.addr.IsValid() {
		beyond = netip.AddrPortFrom(e.addr, hbonePort)
	}
	return []hbone.Hop{
		{Kind: hbone.HopGateway, Name: gw.w.FullName(), Addr: at, Authority: q.byName(svc), Peers: outer},
		{Kind: kind, Name: e.w.FullName(), Addr: beyond, Authority: q.byName(svc), Peers: inner,
			Header: []hbone.Field{{Name: "x-forwarded-network", Value: q.src.Network}}},
	}, append(gw.chosen(e.beyond), "double HBONE through gateway "+gw.w.FullName()), nil
}
