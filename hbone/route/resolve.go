package route

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/hbone/internal/cow"
)

const (
	// hbonePort is where workloads speak HBONE.
	hbonePort = 15008
	// maxName is how many bytes an address that is dialled may have, and a name that istiod is asked for. A namespace, a hostname and a port have less.
	maxName = 512
)

// ValidName reports whether istiod can be asked for a name: it is short, and text that a message may have.
func ValidName(name string) bool { return len(name) <= maxName && utf8.ValidString(name) }

// Resolve finds a way to address: "host:port", where host is an IP, a Service's full name, the name of a pod of a Service, or
// namespace/name for a ServiceEntry of another namespace. absent says of a name that istiod has nothing by it. A *MissingError asks for
// names and another call; an *Error is final.
func (t *Table) Resolve(src Source, address string, absent func(name string) bool) (hbone.Route, error) {
	w, err := t.Ways(src, address, absent)
	if err != nil {
		return hbone.Route{}, err
	}
	return w.Pick("")
}

// Ways finds all the ways to address among which a connection may choose. Arguments and errors are those of Resolve.
func (t *Table) Ways(src Source, address string, absent func(name string) bool) (*Ways, error) {
	return t.ways(&query{t: t, src: src, absent: absent, target: address})
}

// Members is Ways to all that stands behind address, also to what no connection would choose now: what is not healthy, or far away. A
// tunnel to any of them goes the right way.
func (t *Table) Members(src Source, address string, absent func(name string) bool) (*Ways, error) {
	src.Memory = nil
	return t.ways(&query{t: t, src: src, absent: absent, target: address, all: true})
}

func (t *Table) ways(q *query) (*Ways, error) {
	root, err := q.resolve()
	if final, ok := errors.AsType[*Error](err); ok {
		final.Names = q.names
	}
	if err != nil {
		return nil, err
	}
	q.t, q.absent = nil, nil // routes are made later, and must not keep the whole table alive
	return root.ways(&origin{target: q.target, holds: q.holds, names: q.names, lasting: !q.passing}), nil
}

// query is one resolution under way.
type query struct {
	t       *Table
	src     Source
	absent  func(name string) bool
	target  string
	port    uint16
	all     bool // also what would not be chosen now
	reason  []string
	holds   []func(*Table) bool // what the answer was made of
	names   []string            // likewise, as istiod calls it
	passing bool                // the answer hangs on something that istiod does not know
}

func (q *query) resolve() (*fork, error) {
	if len(q.target) > maxName {
		n := len(q.target)
		q.target = q.target[:maxName/8] + "..."
		return nil, q.fail("the address has %d bytes, of which %d are allowed", n, maxName)
	}
	ip, host, port, why := split(q.target)
	if why != "" {
		return nil, q.fail("%s", why)
	}
	q.port = port
	if ip.IsValid() {
		return q.address(ip)
	}
	return q.hostname(host)
}

// split reads an address: its IP, or its host in small letters and without a dot at the end; else why it is none.
func split(address string) (ip netip.Addr, host string, port uint16, why string) {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return ip, "", 0, "the address is not host:port"
	}
	n, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || n == 0 {
		return ip, "", 0, "the port is not a number from 1 to 65535"
	}
	if ip, err = netip.ParseAddr(host); err == nil {
		if ip = ip.Unmap(); !ip.IsLinkLocalUnicast() && !ip.IsLinkLocalMulticast() {
			ip = ip.WithZone("") // it says nothing, and whoever dials it does not mind it
		}
		return ip, "", uint16(n), ""
	}
	if host = strings.TrimSuffix(strings.ToLower(host), "."); strings.HasSuffix(host, ".") {
		return ip, "", 0, "the name ends with an empty label"
	}
	if _, err := netip.ParseAddr(host); err == nil { // without the dot; who has dialled the address must not lead there who has not
		return ip, "", 0, "an IP address has no dot at its end"
	}
	return ip, host, uint16(n), ""
}

// Plain is the spelling of address that all its spellings lead by: capitals, a dot at the end, zeros before the port, the many forms of an IPv6 address, and the
// namespace before the full name of a Service change nothing. What is no address stays as it is.
func (s *Source) Plain(address string) string {
	if len(address) > maxName {
		return address
	}
	ip, host, port, why := split(address)
	switch {
	case why != "":
		return address
	case ip.IsValid():
		return netip.AddrPortFrom(ip, port).String()
	}
	if _, name, given := strings.Cut(host, "/"); given && !strings.Contains(name, "/") && strings.HasSuffix(name, s.suffix()) {
		host = name
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// suffix ends the full names of Services.
func (s *Source) suffix() string { return ".svc." + cmp.Or(s.Domain, "cluster.local") }

func (q *query) fail(format string, args ...any) *Error {
	return &Error{Target: q.target, Why: fmt.Sprintf(format, args...)}
}

func (q *query) because(format string, args ...any) {
	q.reason = append(q.reason, fmt.Sprintf(format, args...))
}

// need is a *MissingError for name, or nil when istiod has nothing by it, or could not even be asked.
func (q *query) need(name string) error {
	if !ValidName(name) || q.absent(name) {
		q.passing = true
		return nil
	}
	return &MissingError{Names: []string{name}}
}

// look is m's value of key, which the answer then depends on.
func look[K, V comparable](q *query, m func(*Table) *cow.Map[K, V], key K, name string) V {
	v := m(q.t).Get(key)
	q.holds = append(q.holds, func(t *Table) bool { return m(t).Get(key) == v })
	if !slices.Contains(q.names, name) {
		q.names = append(q.names, name)
	}
	return v
}

func (q *query) serviceBy(key string) *Service {
	return look(q, func(t *Table) *cow.Map[string, *Service] { return &t.services }, key, key)
}

func (q *query) servicesAt(a NetAddr) []*Service {
	return look(q, func(t *Table) *cow.Map[NetAddr, *owners[Service]] { return &t.vips }, a, a.Key()).all()
}

func (q *query) servicesCalled(host string) []*Service {
	return look(q, func(t *Table) *cow.Map[string, *owners[Service]] { return &t.hosts }, host, host).all()
}

func (q *query) workloadAt(a NetAddr) *Workload {
	return last(look(q, func(t *Table) *cow.Map[NetAddr, *owners[Workload]] { return &t.ips }, a, a.Key()).all())
}

func (q *query) workloadsOf(key string) []*Workload {
	return look(q, func(t *Table) *cow.Map[string, *owners[Workload]] { return &t.members }, key, key).all()
}

// hostname resolves a name: namespace/name, a Service's full name, or that of one of its pods.
func (q *query) hostname(host string) (*fork, error) {
	ns, name, given := strings.Cut(host, "/")
	if !given {
		ns, name = q.src.Namespace, host
	}
	domain := cmp.Or(q.src.Domain, "cluster.local")
	rest, inCluster := strings.CutSuffix(name, ".svc."+domain)
	if inCluster {
		labels := strings.Split(rest, ".")
		n := len(labels)
		if n < 2 || n > 3 || slices.Contains(labels, "") {
			return nil, q.fail("a Service's name is service.namespace.svc.%s, a pod's pod.service.namespace.svc.%s", domain, domain)
		}
		ns = labels[n-1]
		if n == 3 {
			return q.pod(labels[0], ns, strings.TrimPrefix(name, labels[0]+"."))
		}
	} else if !given && !strings.Contains(name, ".") {
		return nil, q.fail("short names are not expanded; dial %s.<namespace>.svc.%s", name, domain)
	}
	svc, err := q.named(ns, name, given || inCluster)
	if err != nil {
		return nil, err
	}
	q.because("%s is Service %s/%s", name, svc.Namespace, svc.Name)
	return q.service(svc, netip.Addr{})
}

// named is the Service of that name in that namespace. Unless the namespace was given it may be another's, if all are known and only one is meant.
func (q *query) named(ns, host string, given bool) (*Service, error) {
	key := Host{ns, host}.Key()
	svc := q.serviceBy(key)
	if svc == nil {
		if err := q.need(key); err != nil {
			return nil, err
		}
	}
	if svc != nil && svc.visible(q.src.Namespace) {
		return svc, nil
	}
	unknown := q.fail("istiod knows no Service of that name in namespace %s; is the name right, and is the Service there?", ns)
	if given {
		return nil, unknown
	}
	if q.src.OnDemand {
		return nil, q.fail("istiod knows no Service of that name in namespace %s; one of another namespace is dialled as namespace/%s", ns, host)
	}
	var namespaces []string
	others := q.servicesCalled(host)
	for _, s := range others {
		if s.visible(q.src.Namespace) {
			namespaces = append(namespaces, s.Namespace)
		}
	}
	svc = best(others, q.src.Namespace)
	switch {
	case svc == nil:
		return nil, unknown
	case len(namespaces) > 1 && !svc.Canonical:
		slices.Sort(namespaces)
		return nil, q.fail("namespaces %s have a Service of that name: dial namespace/%s", strings.Join(namespaces, ", "), host)
	}
	return svc, nil
}

// pod goes to one pod of a Service by its name, as those of a StatefulSet have one.
func (q *query) pod(name, ns, host string) (*fork, error) {
	svc, err := q.named(ns, host, true)
	if err != nil {
		return nil, err
	}
	all := q.workloadsOf(svc.Key())
	if len(all) == 0 {
		if err := q.need(svc.Key()); err != nil {
			return nil, err
		}
	}
	i := slices.IndexFunc(all, func(w *Workload) bool { return w.Name == name && len(w.Addresses) > 0 && !q.remote(w) })
	if i < 0 {
		return nil, q.fail("none of the %d pods of Service %s/%s on our network is called %s", len(all), svc.Namespace, svc.Name, name)
	}
	q.because("%s is a pod of Service %s/%s", name, svc.Namespace, svc.Name)
	return q.direct(all[i], all[i].Addresses[0])
}

func (q *query) address(ip netip.Addr) (*fork, error) {
	a := NetAddr{q.src.Network, ip}
	sharing := q.servicesAt(a)
	svc := best(sharing, q.src.Namespace)
	w := q.workloadAt(a)
	if svc == nil && w == nil { // somebody may have it for himself, with a waypoint of his own
		if err := q.need(a.Key()); err != nil {
			return nil, err
		}
		svc = q.inRange(a)
	}
	if svc != nil {
		q.because("%s is the VIP of Service %s/%s", ip, svc.Namespace, svc.Name)
		if len(sharing) > 1 {
			q.because("which it shares with %d others", len(sharing)-1)
		}
		if !svc.Passthrough || svc.Waypoint != nil || len(svc.Weighted) > 0 {
			return q.service(svc, ip)
		}
		q.because("which takes addresses as they are dialled")
	}
	if w != nil {
		q.because("%s is workload %s", ip, w.FullName())
		return q.direct(w, ip)
	}
	if err := q.need(a.Key()); err != nil {
		return nil, err
	}
	if !q.src.Passthrough {
		return nil, q.fail("the address is outside the mesh: istiod knows no Service and no workload by it")
	}
	q.because("%s is outside the mesh: passed through", ip)
	return q.passed(netip.AddrPortFrom(ip, q.port)), nil
}

// inRange is the Service that has an address in one of its ranges: of the dialer's namespace before others, then of the narrowest range.
func (q *query) inRange(a NetAddr) *Service {
	ranges := q.t.ranges
	q.holds = append(q.holds, func(t *Table) bool { return t.ranges == ranges })
	var found *Service
	var rank [3]int
	for _, s := range ranges.all() {
		if !s.visible(q.src.Namespace) {
			continue
		}
		for _, r := range s.Ranges {
			if r.Network != a.Network || !r.Prefix.Contains(a.IP) {
				continue
			}
			mine := [3]int{number(s.Namespace == q.src.Namespace), r.Prefix.Bits(), number(s.Canonical)}
			if c := slices.Compare(mine[:], rank[:]); found == nil || c > 0 || c == 0 && s.Key() < found.Key() {
				found, rank = s, mine
			}
		}
	}
	return found
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

// direct goes to a workload that was addressed itself, through its waypoint if it has one.
func (q *query) direct(w *Workload, ip netip.Addr) (*fork, error) {
	if w.Waypoint != nil {
		return q.waypoint(w.Waypoint, way{of: "workload " + w.FullName(), target: netip.AddrPortFrom(ip, q.port)})
	}
	if q.remote(w) {
		return nil, q.fail("workload %s is on network %q and ours is %q; over networks only Services are reached", w.FullName(), w.Network, q.src.Network)
	}
	ends := make([]end, 1)
	ends[0] = end{w: w, addr: ip, port: q.port, load: q.src.Memory.endpoint(netip.AddrPortFrom(ip, hbonePort))}
	f := newFork(q, ends)
	f.build = func(f *fork, e *end) ([]hbone.Hop, []string, error) { return q.toWorkload(e, f.reason, nil) }
	return f, nil
}

// remote reports whether w is on another network than we are.
func (q *query) remote(w *Workload) bool { return w.Network != "" && w.Network != q.src.Network }
