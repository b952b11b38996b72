package route

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
)

// choice is an endpoint that may be taken.
type choice struct {
	w      *Workload
	target uint16
}

// pick chooses an endpoint of svc: of those where the Service wants them one by weight, and its address of like's family if it has one. One on
// another network is taken only when there is none on ours.
func (q *query) pick(svc *Service, port uint16, like netip.Addr) (*Workload, netip.Addr, uint16, error) {
	key := svc.Key()
	all := q.t.endpoints(key)
	choices := make([]choice, 0, len(all))
	unhealthy, nowhere := 0, 0
	for _, w := range all {
		target := targetPort(w.Services[key], svc.Ports, port)
		switch {
		case w.Unhealthy && !svc.AllowUnhealthy:
			unhealthy++
		case len(w.Addresses) == 0:
			nowhere++
		case target != 0:
			choices = append(choices, choice{w, target})
		}
	}
	if len(all) == 0 { // istiod does not tell of the first pod of a Service that had none: it is asked again
		if err := q.need(key); err != nil {
			return nil, netip.Addr{}, 0, err
		}
	}
	if len(choices) == 0 {
		return nil, netip.Addr{}, 0, q.fail("none of the %d endpoints of Service %s/%s is healthy and has port %d (%d unhealthy, %d without an IP address)",
			len(all), svc.Namespace, svc.Name, port, unhealthy, nowhere)
	}
	if slices.ContainsFunc(choices, func(c choice) bool { return !q.remote(c.w) }) {
		choices = slices.DeleteFunc(choices, func(c choice) bool { return q.remote(c.w) })
	}
	choices, err := q.prefer(svc, choices)
	if err != nil {
		return nil, netip.Addr{}, 0, err
	}
	c := choices[byWeight(choices, func(c choice) uint32 { return max(1, c.w.Capacity) })]
	q.because("endpoint %s of %d", c.w.FullName(), len(choices))
	return c.w, addressLike(c.w, like), c.target, nil
}

// byWeight is the index of one of list by chance, -1 when no weight is above 0.
func byWeight[T any](list []T, weight func(T) uint32) int {
	var total uint64
	for _, v := range list {
		total += uint64(weight(v))
	}
	if total == 0 {
		return -1
	}
	at := rand.Uint64N(total)
	return slices.IndexFunc(list, func(v T) bool {
		w := uint64(weight(v))
		if at < w {
			return true
		}
		at -= w
		return false
	})
}

// waypointOf is the waypoint that a connection to svc goes through, nil when it has none.
func (q *query) waypointOf(svc *Service) *Gateway {
	i := byWeight(svc.Weighted, func(w Weighted) uint32 { return w.Weight })
	switch {
	case i >= 0:
		q.because("waypoint %d of %d, by weight", i+1, len(svc.Weighted))
		return &svc.Weighted[i].Gateway
	case svc.Waypoint == nil && len(svc.Weighted) > 0:
		return &svc.Weighted[0].Gateway // weights of 0 are no way around
	}
	return svc.Waypoint
}

// prefer keeps of choices those where svc wants them: when it is strict those that share all scopes with us, else those that share most of
// them, counted from the first up to where they differ.
func (q *query) prefer(svc *Service, choices []choice) ([]choice, error) {
	if len(svc.Prefer) == 0 {
		return choices, nil
	}
	var own *Workload
	if q.src.IP.IsValid() {
		a := NetAddr{q.src.Network, q.src.IP.Unmap()}
		if own = q.t.Workload(a); own == nil && svc.Strict { // a mere preference is not worth waiting
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
	rank := func(w *Workload) int {
		if i := slices.IndexFunc(svc.Prefer, func(s Scope) bool { return !q.shares(s, own, w) }); i >= 0 {
			return i
		}
		return len(svc.Prefer)
	}
	best := 0
	for _, c := range choices {
		best = max(best, rank(c.w))
	}
	if svc.Strict && best < len(svc.Prefer) {
		return nil, q.fail("none of the %d healthy endpoints of Service %s/%s is of our %s (node %q), and the Service keeps to those",
			len(choices), svc.Namespace, svc.Name, wants, own.Locality.Node)
	}
	if best > 0 {
		q.because("endpoints of the same %s", strings.Join(names[:best], ", "))
	}
	return slices.DeleteFunc(choices, func(c choice) bool { return rank(c.w) < best }), nil
}

// shares reports whether two workloads are of the same scope. One that is not known here is shared by none.
func (q *query) shares(s Scope, a, b *Workload) bool {
	switch l, m := a.Locality, b.Locality; s {
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

// addressLike is w's first address of like's family, else its first.
func addressLike(w *Workload, like netip.Addr) netip.Addr {
	for _, ip := range w.Addresses {
		if like.IsValid() && ip.Is4() == like.Is4() {
			return ip
		}
	}
	return w.Addresses[0]
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
