package route

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// purpose is what endpoints are looked for.
type purpose int

const (
	toService purpose = iota
	toWaypoint
	toGateway
)

// choice is an endpoint that may be taken.
type choice struct {
	w      *Workload
	addr   netip.Addr // zero: reached through a gateway
	target uint16
}

// ends lists the endpoints of svc among which a connection may choose: healthy ones with that port and an address, of like's family if
// they have one, where the Service wants them.
func (q *query) ends(svc *Service, port uint16, like netip.Addr, p purpose) ([]end, error) {
	key := svc.Key()
	all := q.workloadsOf(key)
	choices := make([]choice, 0, len(all))
	unhealthy, nowhere, away := 0, 0, 0
	for _, w := range all {
		target := targetPort(w.in(key).Ports, svc.Ports, port)
		if target == 0 && p == toWaypoint && w.AnyPort {
			target = port
		}
		addr := addressLike(w, svc.Families, like)
		switch {
		case w.Unhealthy && !svc.AllowUnhealthy && !q.all:
			unhealthy++
		case p != toGateway && q.remote(w) && w.NetworkGateway == nil:
			away++
		case !addr.IsValid() && (p == toGateway || !q.remote(w)):
			nowhere++
		case target != 0:
			choices = append(choices, choice{w, addr, target})
		}
	}
	if len(all) == 0 { // istiod does not tell of the first pod of a Service that had none: it is asked again
		if err := q.need(key); err != nil {
			return nil, err
		}
	}
	if len(choices) == 0 {
		why := fmt.Sprintf("%d unhealthy, %d without an IP address that fits", unhealthy, nowhere)
		if away > 0 {
			why += fmt.Sprintf(", %d on other networks than ours, %q, without a gateway", away, q.src.Network)
		}
		return nil, q.fail("none of the %d endpoints of Service %s/%s is healthy and has port %d (%s)", len(all), svc.Namespace, svc.Name, port, why)
	}
	if !q.all {
		var err error
		if choices, err = q.prefer(svc, choices); err != nil {
			return nil, err
		}
	}
	ends := make([]end, len(choices))
	for i, c := range choices {
		e := &ends[i]
		e.w, e.addr, e.port = c.w, c.addr, c.target
		if c.addr.IsValid() && !q.remote(c.w) || p == toGateway {
			listener := netip.AddrPortFrom(c.addr, c.target)
			if p == toService {
				listener = netip.AddrPortFrom(c.addr, hbonePort)
			}
			e.load = q.src.Memory.endpoint(listener)
		}
	}
	return ends, nil
}

// addressLike is w's first address of the families and of like's family, else its first of the families; like itself if it has that.
func addressLike(w *Workload, f Families, like netip.Addr) netip.Addr {
	var found netip.Addr
	for _, ip := range w.Addresses {
		switch {
		case ip == like:
			return ip
		case !f.accepts(ip):
		case !found.IsValid() || like.IsValid() && ip.Is4() == like.Is4() && found.Is4() != like.Is4():
			found = ip
		}
	}
	return found
}

// targetPort is the target of a Service's port by the first of two lists that has one, 0 when none has.
func targetPort(own, service []Port, port uint16) uint16 {
	for _, list := range [...][]Port{own, service} {
		for _, p := range list {
			if p.Service == port && p.Target != 0 {
				return p.Target
			}
		}
	}
	return 0
}

// prefer keeps of choices those where svc wants them: when it is strict those that share all scopes with us, else those that share most of
// them, counted from the first up to where they differ. Another network, where ours comes first, is worse than any place in ours; what
// follows tells those of other networks apart.
func (q *query) prefer(svc *Service, choices []choice) ([]choice, error) {
	if len(svc.Prefer) == 0 {
		return choices, nil
	}
	var own *Workload
	if q.src.IP.IsValid() {
		a := NetAddr{q.src.Network, q.src.IP.Unmap()}
		if own = q.workloadAt(a); own == nil && svc.Strict { // a mere preference is not worth waiting
			if err := q.need(a.Key()); err != nil {
				return nil, err
			}
		}
	}
	names := make([]string, len(svc.Prefer))
	for i, s := range svc.Prefer {
		names[i] = s.String()
	}
	wants := strings.Join(names, ", ")
	if own == nil {
		if svc.Strict {
			return nil, q.fail("Service %s/%s keeps to endpoints of the same %s, and istiod does not know where we are: is our own workload in the mesh?",
				svc.Namespace, svc.Name, wants)
		}
		q.because("endpoints of the same %s would be preferred, but istiod does not know where we are", wants)
		return choices, nil
	}
	best := 0
	for _, c := range choices {
		best = max(best, svc.rank(own, c.w))
	}
	if svc.Strict && best < len(svc.Prefer) {
		return nil, q.fail("none of the %d healthy endpoints of Service %s/%s is of our %s (node %q), and the Service keeps to those",
			len(choices), svc.Namespace, svc.Name, wants, own.Locality.Node)
	}
	if best > 0 {
		q.because("endpoints of the same %s", strings.Join(svc.shared(own, choices, best), ", "))
	}
	return slices.DeleteFunc(choices, func(c choice) bool { return svc.rank(own, c.w) < best }), nil
}

// rank is how well w is placed for own: how many scopes from the first on they share. Where the network is first, sharing it counts more than
// all others, and not sharing it does not end the count.
func (s *Service) rank(own, w *Workload) int {
	n, more := 0, 0
	for i, scope := range s.Prefer {
		same := shares(scope, own, w)
		if i == 0 && scope == ScopeNetwork {
			if !same {
				continue
			}
			more = len(s.Prefer) - 1
		}
		if !same {
			break
		}
		n++
	}
	if s.Strict {
		return n // all or nothing
	}
	return n + more
}

// shared names the scopes that the best of choices share with own.
func (s *Service) shared(own *Workload, choices []choice, best int) []string {
	i := slices.IndexFunc(choices, func(c choice) bool { return s.rank(own, c.w) == best })
	var names []string
	for j, scope := range s.Prefer {
		switch {
		case shares(scope, own, choices[i].w):
			names = append(names, scope.String())
		case j > 0 || scope != ScopeNetwork:
			return names
		}
	}
	return names
}

// shares reports whether two workloads are of the same scope. One that is not known here is shared by none.
func shares(s Scope, a, b *Workload) bool {
	switch l, m := &a.Locality, &b.Locality; s {
	case ScopeRegion:
		return l.Region == m.Region
	case ScopeZone:
		return l.Zone == m.Zone
	case ScopeSubzone:
		return l.Subzone == m.Subzone
	case ScopeNode:
		return l.Node == m.Node
	case ScopeCluster:
		return l.ClusterID == m.ClusterID
	case ScopeNetwork:
		return a.Network == b.Network
	}
	return false
}
