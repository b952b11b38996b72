package node

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/e2e/world"
)

// probeAddr is where the kubelet's probes come from. Istio exempts the same link-local address from capture.
var probeAddr = netip.AddrFrom4([4]byte{169, 254, 7, 127})

// podNet is a pod's network: a namespace joined to the node's by a routed pair of interfaces, without a bridge, so
// that every packet of a pod passes the node's connection tracking.
type podNet struct {
	ns   *world.NS
	ip   netip.Addr
	link string // the node's end of the pair
	node *world.NS
}

// newPodNet makes the namespace of a pod with address ip.
func newPodNet(node *world.NS, gateway, ip netip.Addr) (_ *podNet, err error) {
	b := ip.As4()
	n := &podNet{ip: ip, node: node, link: fmt.Sprintf("pod%d-%d", b[2], b[3])}
	if n.ns, err = world.NewNS(n.link); err != nil {
		return nil, fmt.Errorf("make network namespace of pod %v: %w", ip, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	if err := node.Do(func() error { return addPair(n.link, ip, n.ns.FD()) }); err != nil {
		return nil, fmt.Errorf("join pod %v to the node: %w", ip, err)
	}
	if err := n.ns.Do(func() error { return setUpPod(ip, gateway) }); err != nil {
		return nil, fmt.Errorf("set up network of pod %v: %w", ip, err)
	}
	return n, nil
}

// close takes the namespace away; what still runs in it keeps it alive, but unconnected.
func (n *podNet) close() error {
	err := n.node.Do(func() error {
		l, err := netlink.LinkByName(n.link)
		if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
			return nil
		}
		if err != nil {
			return err
		}
		return netlink.LinkDel(l)
	})
	if err2 := n.ns.Close(); err == nil {
		err = err2
	}
	return err
}

// addPair runs on the node: it makes the pair, gives the far end to the namespace fd and routes ip to it.
func addPair(name string, ip netip.Addr, fd int) error {
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(fd)}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("add veth %s: %w", name, err)
	}
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find veth %s: %w", name, err)
	}
	if err := sysctls(map[string]string{
		"net/ipv4/conf/" + name + "/rp_filter":      "0",
		"net/ipv4/conf/" + name + "/send_redirects": "0",
		"net/ipv4/conf/" + name + "/forwarding":     "1",
	}); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("set veth %s up: %w", name, err)
	}
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: host(ip)}); err != nil {
		return fmt.Errorf("add route to %v: %w", ip, err)
	}
	return nil
}

// setUpPod runs in the pod's namespace.
func setUpPod(ip, gateway netip.Addr) error {
	if err := setLoopbackUp(); err != nil {
		return err
	}
	l, err := netlink.LinkByName("eth0")
	if err != nil {
		return fmt.Errorf("find eth0: %w", err)
	}
	if err := sysctls(map[string]string{
		"net/ipv4/conf/all/rp_filter":  "0",
		"net/ipv4/conf/eth0/rp_filter": "0",
	}); err != nil {
		return err
	}
	if err := netlink.AddrAdd(l, &netlink.Addr{IPNet: host(ip)}); err != nil {
		return fmt.Errorf("add address %v: %w", ip, err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("set eth0 up: %w", err)
	}
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.IP(gateway.AsSlice()), Flags: unix.RTNH_F_ONLINK}); err != nil {
		return fmt.Errorf("add default route: %w", err)
	}
	return nil
}

// setUpNode prepares the node's own namespace: forwarding, its addresses, and a way for what is sent to Services.
// It may run twice.
func setUpNode(gateway, dns netip.Addr, services netip.Prefix) error {
	if err := setLoopbackUp(); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := sysctls(map[string]string{
		"net/ipv4/ip_forward":                "1",
		"net/ipv4/conf/all/rp_filter":        "0",
		"net/ipv4/conf/default/rp_filter":    "0",
		"net/ipv4/conf/all/send_redirects":   "0",
		"net/ipv4/conf/all/accept_redirects": "0",
	}); err != nil {
		return err
	}
	have, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range []netip.Addr{gateway, dns, probeAddr} {
		if hasAddr(have, a) {
			continue
		}
		if err := netlink.AddrAdd(lo, &netlink.Addr{IPNet: host(a)}); err != nil {
			return fmt.Errorf("add address %v: %w", a, err)
		}
	}
	// Packets to Services need some route to get as far as address translation; what is left after it is rejected.
	err = netlink.RouteReplace(&netlink.Route{LinkIndex: lo.Attrs().Index, Scope: netlink.SCOPE_LINK, Src: net.IP(gateway.AsSlice()),
		Dst: &net.IPNet{IP: net.IP(services.Addr().AsSlice()), Mask: net.CIDRMask(services.Bits(), 32)}})
	if err != nil {
		return fmt.Errorf("add route to services: %w", err)
	}
	return nil
}

func hasAddr(have []netlink.Addr, a netip.Addr) bool {
	for _, h := range have {
		if got, ok := netip.AddrFromSlice(h.IP); ok && got.Unmap() == a {
			return true
		}
	}
	return false
}

func setLoopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

// sysctls writes settings of the calling thread's network namespace.
func sysctls(kv map[string]string) error {
	for k, v := range kv {
		if err := os.WriteFile("/proc/sys/"+k, []byte(v), 0o644); err != nil {
			return fmt.Errorf("set %s: %w", k, err)
		}
	}
	return nil
}

func host(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: net.IP(a.AsSlice()), Mask: net.CIDRMask(32, 32)}
}
