package route

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/isthmus-mesh/isthmus/hbone"
)

// service goes through the Service's waypoint, else to one of its endpoints. vip is what was dialled, zero for a name.
func (q *query) service(svc *Service, vip netip.Addr) (*fork, error) {
	if len(svc.Ports) == 0 {
		return nil, q.fail("Service %s/%s has no ports", svc.Namespace, svc.Name)
	}
	if !slices.ContainsFunc(svc.Ports, func(p Port) bool { return p.Service == q.port }) {
		return nil, q.fail("Service %s/%s has no port %d", svc.Namespace, svc.Name, q.port)
	}
	if f, err := q.throughWaypoint(svc, vip); f != nil || err != nil {
		return f, err
	}
	if svc.Passthrough {
		return nil, q.fail("Service %s/%s has no endpoints to choose from (its resolution is NONE): dial an address of it", svc.Namespace, svc.Name)
	}
	ends, err := q.ends(svc, q.port, vip, toService)
	if err != nil {
		return nil, err
	}
	f := newFork(q, ends)
	f.service = svc.Hostname
	f.build = func(f *fork, e *end) ([]hbone.Hop, []string, error) { return q.toWorkload(e, e.chosen(f), svc.SANs) }
	return f, q.cross(f, svc, hbone.HopWorkload, svc.SANs)
}

// throughWaypoint is the way through svc's waypoint, or one of several; nil when it has none.
func (q *query) throughWaypoint(svc *Service, vip netip.Addr) (*fork, error) {
	choices := svc.waypoints()
	if len(choices) == 0 {
		return nil, nil
	}
	if q.src.Ingress && !svc.IngressUseWaypoint {
		q.because("its waypoint is for calls from inside the mesh, and we are an ingress gateway")
		return nil, nil
	}
	name := "Service " + svc.Namespace + "/" + svc.Name
	for _, a := range svc.Addresses {
		if !vip.IsValid() && a.Network == q.src.Network {
			vip = a.IP
		}
	}
	if !vip.IsValid() {
		return nil, q.fail("%s has a waypoint but no VIP, and waypoints know services by VIP; give it a ClusterIP", name)
	}
	before := q.reason
	f := &fork{}
	var missing MissingError
	var total uint64
	for i, c := range choices {
		q.reason = slices.Clip(before)
		if len(choices) > 1 {
			q.because("waypoint %d of %d, by weight", i+1, len(choices))
		}
		kid, err := q.waypoint(&c.Gateway, way{of: name, svc: svc, target: netip.AddrPortFrom(vip, q.port)})
		if m, ok := errors.AsType[*MissingError](err); ok {
			missing.Names = append(missing.Names, m.Names...)
			continue
		}
		if err != nil {
			kid = &fork{err: err}
		}
		total += uint64(c.Weight)
		f.kids, f.sum = append(f.kids, kid), append(f.sum, total)
	}
	q.reason = before
	switch {
	case len(missing.Names) > 0:
		return nil, &missing
	case len(f.kids) > 1:
		return f, nil
	case f.kids[0].err != nil && q.src.FailOpen:
		q.because("around its waypoint, since failing open was asked for: %v", f.kids[0].err)
		return nil, nil
	}
	return f.kids[0], f.kids[0].err
}

// waypoints are those that connections to s are shared among; one alone has no say in its weight.
func (s *Service) waypoints() []Weighted {
	var list []Weighted
	for _, w := range s.Weighted {
		if w.Weight > 0 {
			list = append(list, w)
		}
	}
	switch {
	case len(list) > 0:
	case s.Waypoint != nil:
		list = []Weighted{{Gateway: *s.Waypoint, Weight: 1}}
	case len(s.Weighted) > 0:
		list = s.Weighted[:1:1] // weights of 0 are no way around
	}
	return list
}

// toWorkload is the hop to e, whose workload may also show itself by sans; none where it does not speak HBONE.
func (q *query) toWorkload(e *end, reason, sans []string) ([]hbone.Hop, []string, error) {
	reason = slices.Clip(reason)
	switch e.w.Tunnel {
	case TunnelHBONE:
	case TunnelNone:
		return nil, append(reason, e.w.FullName()+" does not speak HBONE: plain TCP"), nil
	default:
		return nil, nil, q.fail("workload %s has a tunnel protocol (%d) that is not known here", e.w.FullName(), e.w.Tunnel)
	}
	peers, err := identities(e.w, sans)
	if err != nil {
		return nil, nil, q.fail("the identity of workload %s makes no sense: %v", e.w.FullName(), err)
	}
	return []hbone.Hop{{
		Kind: hbone.HopWorkload, Name: e.w.FullName(), Addr: netip.AddrPortFrom(e.addr, hbonePort), Authority: netip.AddrPortFrom(e.addr, e.port).String(), Peers: peers,
	}}, append(reason, "HBONE to "+e.w.FullName()), nil
}

// byName is the authority of tunnels to other networks, which VIPs mean nothing to.
func (q *query) byName(svc *Service) string {
	return net.JoinHostPort(svc.Hostname, strconv.Itoa(int(q.port)))
}
