package route

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// hbonePort is where workloads speak HBONE.
const hbonePort = 15008

// Source is who dials.
type Source struct {
	Namespace string
	Network   string // empty: our own
	Domain    string // of Services; empty: cluster.local
	// IP is the dialer's own address. Its workload tells where we are, for Services that prefer near endpoints; zero when nobody knows.
	IP netip.Addr
	// Passthrough lets addresses that nobody knows be dialled as they are.
	Passthrough bool
}

// MissingError says which names must be asked for before the way is known.
type MissingError struct{ Names []string }

func (e *MissingError) Error() string { return "not known yet: " + strings.Join(e.Names, ", ") }

// Error says why there is no way, and what to do.
type Error struct {
	Target string
	Why    string
}

func (e *Error) Error() string { return fmt.Sprintf("no route to %s: %s", e.Target, e.Why) }

// query is one resolution under way.
type query struct {
	t      *Table
	src    Source
	absent func(name string) bool
	target string
	port   uint16
	reason []string
}

// Resolve finds the way to host:port. absent says of a name that istiod has nothing by it. A *MissingError asks for names and
// another call; an *Error is final.
func (t *Table) Resolve(src Source, address string, absent func(name string) bool) (hbone.Route, error) {
	q := &query{t: t, src: src, absent: absent, target: address}
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return hbone.Route{}, q.fail("the address is not host:port")
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return hbone.Route{}, q.fail("the port is not a number from 1 to 65535")
	}
	q.port = uint16(port)
	if ip, err := netip.ParseAddr(host); err == nil {
		return q.address(ip.Unmap())
	}
	return q.hostname(strings.TrimSuffix(strings.ToLower(host), "."))
}

func (q *query) fail(format string, args ...any) error {
	return &Error{Target: q.target, Why: fmt.Sprintf(format, args...)}
}

func (q *query) because(format string, args ...any) {
	q.reason = append(q.reason, fmt.Sprintf(format, args...))
}

// need is a *MissingError for name, or nil when istiod has nothing by it.
func (q *query) need(name string) error {
	if q.absent(name) {
		return nil
	}
	return &MissingError{Names: []string{name}}
}

func (q *query) hostname(host string) (hbone.Route, error) {
	domain := q.src.Domain
	if domain == "" {
		domain = "cluster.local"
	}
	ns := q.src.Namespace
	if rest, ok := strings.CutSuffix(host, ".svc."+domain); ok {
		_, ns, ok = strings.Cut(rest, ".")
		if !ok || strings.Contains(ns, ".") {
			return hbone.Route{}, q.fail("a Service's name is service.namespace.svc.%s", domain)
		}
	} else if !strings.Contains(host, ".") {
		return hbone.Route{}, q.fail("short names are not expanded; dial %s.<namespace>.svc.%s", host, domain)
	}
	key := Host{ns, host}.Key()
	svc := q.t.services[key]
	if svc == nil {
		if err := q.need(key); err != nil {
			return hbone.Route{}, err
		}
		return hbone.Route{}, q.fail("istiod knows no Service of that name in namespace %s; is the name right, and is the Service there?", ns)
	}
	q.because("%s is Service %s/%s", host, svc.Namespace, svc.Name)
	return q.service(svc, netip.Addr{})
}

func (q *query) address(ip netip.Addr) (hbone.Route, error) {
	a := NetAddr{q.src.Network, ip}
	if svc := last(q.t.vips[a.Key()]); svc != nil {
		q.because("%s is the VIP of Service %s/%s", ip, svc.Namespace, svc.Name)
		if !svc.Passthrough || svc.Waypoint != nil || len(svc.Weighted) > 0 {
			return q.service(svc, ip)
		}
		q.because("which takes addresses as they are dialled")
	}
	if w := last(q.t.ips[a.Key()]); w != nil {
		q.because("%s is workload %s", ip, w.FullName())
		if w.Waypoint != nil {
			return q.waypoint(w.Waypoint, netip.AddrPortFrom(ip, q.port), "", "workload "+w.FullName())
		}
		return q.workload(w, ip, q.port, nil, "")
	}
	if err := q.need(a.Key()); err != nil {
		return hbone.Route{}, err
	}
	if !q.src.Passthrough {
		return hbone.Route{}, q.fail("the address is outside the mesh: istiod knows no Service and no workload by it")
	}
	q.because("%s is outside the mesh: passed through", ip)
	return hbone.Route{Direct: netip.AddrPortFrom(ip, q.port), Reason: q.reason}, nil
}

// service goes through the Service's waypoint, else to one of its endpoints. vip is what was dialled, zero for a name.
func (q *query) service(svc *Service, vip netip.Addr) (hbone.Route, error) {
	i := slices.IndexFunc(svc.Ports, func(p Port) bool { return p.Service == q.port })
	if i < 0 {
		return hbone.Route{}, q.fail("Service %s/%s has no port %d", svc.Namespace, svc.Name, q.port)
	}
	if gateway := q.waypointOf(svc); gateway != nil {
		if !vip.IsValid() {
			for _, a := range svc.Addresses {
				if a.Network == q.src.Network {
					vip = a.IP
					break
				}
			}
		}
		if !vip.IsValid() {
			return hbone.Route{}, q.fail("Service %s/%s has a waypoint but no VIP, and waypoints know services by VIP; give it a ClusterIP", svc.Namespace, svc.Name)
		}
		return q.waypoint(gateway, netip.AddrPortFrom(vip, q.port), svc.Hostname, "Service "+svc.Namespace+"/"+svc.Name)
	}
	if svc.Passthrough {
		return hbone.Route{}, q.fail("Service %s/%s has no endpoints to choose from (its resolution is NONE): dial an address of it", svc.Namespace, svc.Name)
	}
	w, ip, target, err := q.pick(svc, q.port, vip)
	if err != nil {
		return hbone.Route{}, err
	}
	return q.workload(w, ip, target, svc.SANs, svc.Hostname)
}

// remote reports whether w is on another network than we are.
func (q *query) remote(w *Workload) bool { return w.Network != "" && w.Network != q.src.Network }

// workload ends the way at w.
func (q *query) workload(w *Workload, ip netip.Addr, port uint16, sans []string, service string) (hbone.Route, error) {
	if q.remote(w) {
		return hbone.Route{}, q.fail("workload %s is on network %q; ways through east-west gateways are not supported yet", w.FullName(), w.Network)
	}
	target := netip.AddrPortFrom(ip, port)
	switch w.Tunnel {
	case TunnelHBONE:
	case TunnelNone:
		q.because("%s does not speak HBONE: plain TCP", w.FullName())
		return hbone.Route{Direct: target, Service: service, Reason: q.reason}, nil
	default:
		return hbone.Route{}, q.fail("workload %s has a tunnel protocol (%d) that is not known here", w.FullName(), w.Tunnel)
	}
	peers, err := identities([]*Workload{w}, sans)
	if err != nil {
		return hbone.Route{}, q.fail("the identity of workload %s makes no sense: %v", w.FullName(), err)
	}
	q.because("HBONE to %s", w.FullName())
	return hbone.Route{Service: service, Reason: q.reason, Hops: []hbone.Hop{{
		Kind: hbone.HopWorkload, Name: w.FullName(), Addr: netip.AddrPortFrom(ip, hbonePort), Authority: target.String(), Peers: peers,
	}}}, nil
}

// waypoint ends the way at a waypoint, which goes on to target. That its pods are not listed as HBONE workloads does not matter.
func (q *query) waypoint(g *Gateway, target netip.AddrPort, service, of string) (hbone.Route, error) {
	port := g.Port
	if port == 0 {
		port = hbonePort
	}
	if g.Host == (Host{}) {
		w := last(q.t.ips[g.Addr.Key()])
		if w == nil {
			if svc := last(q.t.vips[g.Addr.Key()]); svc != nil {
				return q.waypointService(svc, port, target, service, of)
			}
			if err := q.need(g.Addr.Key()); err != nil {
				return hbone.Route{}, err
			}
			return hbone.Route{}, q.fail("%s has a waypoint at %s, where istiod knows nobody", of, g.Addr.IP)
		}
		return q.waypointHop([]*Workload{w}, nil, w, netip.AddrPortFrom(g.Addr.IP, port), target, service)
	}
	svc := q.t.services[g.Host.Key()]
	if svc == nil {
		if err := q.need(g.Host.Key()); err != nil {
			return hbone.Route{}, err
		}
		return hbone.Route{}, q.fail("%s has the waypoint %s, which istiod does not know; is its Gateway still there?", of, g.Host.Key())
	}
	return q.waypointService(svc, port, target, service, of)
}

func (q *query) waypointService(svc *Service, port uint16, target netip.AddrPort, service, of string) (hbone.Route, error) {
	w, ip, podPort, err := q.pick(svc, port, target.Addr())
	if err != nil {
		e, ok := errors.AsType[*Error](err)
		if !ok {
			return hbone.Route{}, err
		}
		return hbone.Route{}, q.fail("the waypoint %s/%s of %s has no ready pod; going around it would skip its policies (%s)", svc.Namespace, svc.Name, of, e.Why)
	}
	return q.waypointHop(q.t.endpoints(svc.Key()), svc.SANs, w, netip.AddrPortFrom(ip, podPort), target, service)
}

func (q *query) waypointHop(all []*Workload, sans []string, w *Workload, addr, target netip.AddrPort, service string) (hbone.Route, error) {
	if q.remote(w) {
		return hbone.Route{}, q.fail("waypoint %s is on network %q; ways through east-west gateways are not supported yet", w.FullName(), w.Network)
	}
	peers, err := identities(all, sans)
	if err != nil {
		return hbone.Route{}, q.fail("the identity of waypoint %s makes no sense: %v", w.FullName(), err)
	}
	q.because("through waypoint %s", w.FullName())
	return hbone.Route{Service: service, Reason: q.reason, Hops: []hbone.Hop{{
		Kind: hbone.HopWaypoint, Name: w.FullName(), Addr: addr, Authority: target.String(), Peers: peers,
	}}}, nil
}

// identities is whom any of the workloads may show itself to be.
func identities(workloads []*Workload, sans []string) ([]spiffeid.ID, error) {
	var ids []spiffeid.ID
	for _, w := range workloads {
		id, err := w.Identity()
		if err != nil {
			return nil, err
		}
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	for _, san := range sans {
		if id, err := spiffeid.FromString(san); err == nil && !slices.Contains(ids, id) {
			ids = append(ids, id) // names that are no SPIFFE ids cannot be shown to us
		}
	}
	return ids, nil
}
