package node

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/e2e/world"
)

// Rules is how connections get to where they should go: to the endpoints of Services, and to capture processes.
type Rules int

const (
	// Auto is NFTables where the kernel allows it, else AnyIP; the player's log says why.
	Auto Rules = iota
	// NFTables translates addresses and redirects by nftables.
	NFTables
	// AnyIP makes the whole service network local by a route, in a balancer's namespace and in captured pods, and listens on the
	// Services' ports there.
	// It needs nothing of the kernel but loses much: package node's limits say what.
	AnyIP
)

func (r Rules) String() string {
	switch r {
	case NFTables:
		return "nftables"
	case AnyIP:
		return "anyip"
	}
	return "auto"
}

// ErrNoNFTables says that the kernel lacks what the rules of nftables need, or forbids them.
var ErrNoNFTables = errors.New("this machine allows no nftables in a network namespace: load the kernel modules nf_tables, nft_chain_nat, nft_redir, " +
	"nft_numgen and nf_conntrack_netlink, or run where they are built in and allowed")

// CheckNFTables makes the rules of a node and of a captured pod in a network namespace of its own. Its error is an ErrNoNFTables, with what the
// kernel says, or of another kind when the kernel has nftables and takes the rules for wrong.
func CheckNFTables() error {
	ns, err := world.NewNS("nftables")
	if err != nil {
		return err
	}
	defer ns.Close()
	err = ns.Do(func() error {
		var cfg Config
		pod := cfg.balancerAddr().Next()
		c, err := nftables.New()
		if err != nil {
			return fmt.Errorf("open nftables: %w", err)
		}
		some := []vip{{proto: protoTCP, addr: netip.AddrPortFrom(cfg.apiVIP(), 80), to: []netip.AddrPort{netip.AddrPortFrom(pod, 80), netip.AddrPortFrom(pod, 81)}}}
		if err := proxyRules(c, some, &cfg); err != nil {
			return err
		}
		if err := c.Flush(); err != nil {
			return fmt.Errorf("write rules of services: %w", err)
		}
		if err := captureRules(&cfg, netip.AddrPortFrom(cfg.gateway(), 6443), pod, false); err != nil {
			return fmt.Errorf("write rules of capture: %w", err)
		}
		return removeCaptureRules()
	})
	// What a kernel without nftables says, one without a module of it, and one that forbids it.
	for _, lack := range []error{unix.EPROTONOSUPPORT, unix.EAFNOSUPPORT, unix.EOPNOTSUPP, unix.ENOSYS, unix.ENOENT, unix.EPERM, unix.EACCES} {
		if errors.Is(err, lack) {
			return fmt.Errorf("%w: %w", ErrNoNFTables, err)
		}
	}
	return err
}

// Routing of AnyIP in a captured pod.
const (
	anyIPTable    = 101
	anyIPPriority = 100
)

// setAnyIP runs in the balancer's namespace and makes the service network its own.
func setAnyIP(cfg *Config) error {
	r, err := serviceRoute(cfg)
	if err != nil {
		return err
	}
	r.Table = unix.RT_TABLE_LOCAL
	if err := netlink.RouteReplace(r); err != nil {
		return fmt.Errorf("make the service network local: %w", err)
	}
	return nil
}

// routeServices runs on the node and sends what is for Services to the balancer.
func routeServices(cfg *Config, n *podNet) error {
	l, err := netlink.LinkByName(n.link)
	if err != nil {
		return fmt.Errorf("find link %s: %w", n.link, err)
	}
	services := cfg.serviceCIDR()
	err = netlink.RouteReplace(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.IP(n.ip.AsSlice()), Flags: unix.RTNH_F_ONLINK,
		Src: net.IP(cfg.gateway().AsSlice()), Dst: &net.IPNet{IP: net.IP(services.Addr().AsSlice()), Mask: net.CIDRMask(services.Bits(), 32)}})
	if err != nil {
		return fmt.Errorf("route services to the balancer: %w", err)
	}
	return nil
}

func serviceRoute(cfg *Config) (*netlink.Route, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("find lo: %w", err)
	}
	services := cfg.serviceCIDR()
	return &netlink.Route{LinkIndex: lo.Attrs().Index, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST,
		Dst: &net.IPNet{IP: net.IP(services.Addr().AsSlice()), Mask: net.CIDRMask(services.Bits(), 32)}}, nil
}

// captureAnyIP runs in a pod's namespace: what is sent to Services stays in the pod, where the capture process listens. The DNS and the API
// server's Services are reached as before, and so are all by the process itself (marked).
func captureAnyIP(cfg *Config, ip netip.Addr) error {
	r, err := serviceRoute(cfg)
	if err != nil {
		return err
	}
	r.Table, r.Src = anyIPTable, net.IP(ip.AsSlice())
	routes := []*netlink.Route{r}
	for _, a := range []netip.Addr{cfg.dnsVIP(), cfg.apiVIP()} {
		routes = append(routes, &netlink.Route{Table: anyIPTable, Type: unix.RTN_THROW, Dst: host(a)})
	}
	for _, r := range routes {
		if err := netlink.RouteReplace(r); err != nil {
			return fmt.Errorf("add route %v: %w", r.Dst, err)
		}
	}
	if err := netlink.RuleDel(anyIPRule()); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("replace rule for services: %w", err)
	}
	if err := netlink.RuleAdd(anyIPRule()); err != nil {
		return fmt.Errorf("add rule for services: %w", err)
	}
	return nil
}

// removeCaptureAnyIP runs in a pod's namespace; it is no error when there is nothing to remove.
func removeCaptureAnyIP() error {
	if err := netlink.RuleDel(anyIPRule()); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove rule for services: %w", err)
	}
	return nil
}

func anyIPRule() *netlink.Rule {
	r := netlink.NewRule()
	mask := uint32(markMask)
	r.Family, r.Table, r.Priority, r.Mark, r.Mask, r.Invert = unix.AF_INET, anyIPTable, anyIPPriority, captureMark, &mask, true
	return r
}
