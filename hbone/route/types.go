package route

import (
	"net/netip"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// NetAddr is an address of a network; the empty network is our own.
type NetAddr struct {
	Network string
	IP      netip.Addr
}

// Key is network/ip, the name that istiod knows the address by.
func (a NetAddr) Key() string { return a.Network + "/" + a.IP.String() }

// ParseNetAddr reads a Key.
func ParseNetAddr(key string) (NetAddr, bool) {
	network, ip, ok := strings.Cut(key, "/")
	if !ok || ip == "" || ip[len(ip)-1] > 'f' { // no IP address ends so: most names are none
		return NetAddr{}, false
	}
	a, err := netip.ParseAddr(ip)
	return NetAddr{network, a}, err == nil
}

// NetPrefix is a range of addresses of a network.
type NetPrefix struct {
	Network string
	Prefix  netip.Prefix
}

// Host is a Service by name.
type Host struct{ Namespace, Hostname string }

// Key is namespace/hostname.
func (h Host) Key() string { return h.Namespace + "/" + h.Hostname }

// Gateway is how istiod names a waypoint or an east-west gateway: by Service or by address.
type Gateway struct {
	Host Host    // zero when Addr is set
	Addr NetAddr // zero when Host is set
	Port uint16  // of the Service, or of the address; where HBONE is spoken
}

// Weighted is one of several waypoints that share a Service's connections.
type Weighted struct {
	Gateway
	Weight uint32 // against the sum of all; 0 gets none
}

// Port maps a Service's port to a workload's. Target 0 means the workload has one of its own.
type Port struct{ Service, Target uint16 }

// Member says that a workload is an endpoint of a Service.
type Member struct {
	Service string // its key
	Ports   []Port // of this workload; they go before the Service's
}

// Families are the IP families that a Service's endpoints are reached by.
type Families int

// The families.
const (
	FamiliesAny  Families = 0 // the one that was dialled, else another
	FamiliesIPv4 Families = 1
	FamiliesIPv6 Families = 2
	FamiliesDual Families = 3
)

// accepts reports whether ip is of the families.
func (f Families) accepts(ip netip.Addr) bool {
	switch f {
	case FamiliesIPv4:
		return ip.Is4()
	case FamiliesIPv6:
		return ip.Is6()
	}
	return true
}

// Service is a Service or ServiceEntry.
type Service struct {
	Name, Namespace, Hostname string
	Addresses                 []NetAddr   // empty for a headless one
	Ranges                    []NetPrefix // addresses that are the Service's unless somebody has them for himself
	Ports                     []Port
	SANs                      []string // further SPIFFE ids that its workloads may show
	Waypoint                  *Gateway
	Weighted                  []Weighted // waypoints to choose from; empty: Waypoint alone
	AllowUnhealthy            bool       // its health policy takes any endpoint
	Passthrough               bool       // its mode takes the address as dialled
	IngressUseWaypoint        bool
	Canonical                 bool     // goes before others of the same name or address
	Private                   bool     // only for dialers of its own namespace
	Families                  Families // of its endpoints' addresses
	Prefer                    []Scope  // where its endpoints should be, the weightiest first
	Strict                    bool     // endpoints that are not where all of Prefer wants them are not taken
}

// Key is namespace/hostname.
func (s *Service) Key() string { return s.Namespace + "/" + s.Hostname }

// Scope is what a dialer and an endpoint may share.
type Scope int

// The scopes.
const (
	ScopeRegion  Scope = 1
	ScopeZone    Scope = 2
	ScopeSubzone Scope = 3
	ScopeNode    Scope = 4
	ScopeCluster Scope = 5
	ScopeNetwork Scope = 6
)

func (s Scope) String() string {
	names := [...]string{"?", "region", "zone", "subzone", "node", "cluster", "network"}
	if s < 0 || int(s) >= len(names) {
		return names[0]
	}
	return names[s]
}

// Locality is where a workload runs.
type Locality struct{ Region, Zone, Subzone, Node, ClusterID string }

// Tunnel is how a workload is reached.
type Tunnel int

// The tunnels.
const (
	TunnelNone  Tunnel = 0
	TunnelHBONE Tunnel = 1
)

// Workload is a pod or a WorkloadEntry.
type Workload struct {
	UID, Name, Namespace, Network string
	Addresses                     []netip.Addr
	Tunnel                        Tunnel
	TrustDomain                   string // empty: cluster.local
	ServiceAccount                string // empty: default
	Waypoint                      *Gateway
	NetworkGateway                *Gateway
	Unhealthy                     bool
	HostNetwork                   bool // its addresses are its node's: not found by them
	Locality                      Locality
	Capacity                      uint32   // weight; 0 counts as 1
	AnyPort                       bool     // as a waypoint it takes ports that its Service does not have
	Services                      []Member // that it is an endpoint of
	Policies                      []string // namespace/name of the selector policies that apply
}

// in is the workload's membership in a Service, nil when it is in none of that key.
func (w *Workload) in(key string) *Member {
	for i := range w.Services {
		if w.Services[i].Service == key {
			return &w.Services[i]
		}
	}
	return nil
}

// Identity is whom the workload shows itself to be.
func (w *Workload) Identity() (spiffeid.ID, error) {
	td, sa := w.TrustDomain, w.ServiceAccount
	if td == "" {
		td = "cluster.local"
	}
	if sa == "" {
		sa = "default"
	}
	domain, err := spiffeid.TrustDomainFromString(td)
	if err != nil {
		return spiffeid.ID{}, err
	}
	return spiffeid.FromSegments(domain, "ns", w.Namespace, "sa", sa)
}

// FullName is namespace/name, for people.
func (w *Workload) FullName() string { return w.Namespace + "/" + w.Name }
