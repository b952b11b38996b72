package node

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Ports, marks and routing of Istio's ambient redirection.
const (
	portOutbound  = 15001
	portPlaintext = 15006
	portHBONE     = 15008
	portStats     = 15020
	portReady     = 15021
	captureMark   = 0x539 // of the capture process's sockets
	replyMark     = 0x111 // of connections that it makes with another's address
	markMask      = 0xfff
	replyTable    = 100
	replyPriority = 32764
)

func captureTable() *nftables.Table {
	return &nftables.Table{Name: "isthmus-capture", Family: nftables.TableFamilyIPv4}
}

// captureRules runs in a pod's namespace and sends its connections to the capture process: outbound ones to 15001, except
// the process's own (marked) and those to the pod itself, the DNS server and cfg's direct destinations; inbound ones to
// 15006, except the kubelet's probes and what the process serves itself. Connections that exist stay as they are. Replies to
// connections that the process makes to the pod with a client's address come back to it.
func captureRules(cfg *Config, api netip.AddrPort, ip netip.Addr, bypassInbound bool) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	t := fresh(c, captureTable())
	out := natChain(c, t, "output", nftables.ChainHookOutput, nftables.ChainPriorityNATDest)
	leave := verdict(expr.VerdictReturn)
	add := func(ch *nftables.Chain, words ...[]expr.Any) {
		c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: rule(words...)})
	}
	add(out, isMark(captureMark, markMask), leave)
	add(out, inNet(offsetDest, netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), 8)), leave)
	for _, a := range []netip.Addr{ip, cfg.dnsVIP(), cfg.apiVIP()} {
		add(out, isAddr(offsetDest, a), leave)
	}
	for _, d := range cfg.direct(api) {
		add(out, isAddr(offsetDest, d.Addr()), isProto(protoTCP), isPort(d.Port()), leave)
	}
	add(out, isProto(protoTCP), isSYN(), redirect(portOutbound))

	if !bypassInbound {
		in := natChain(c, t, "prerouting", nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
		add(in, isAddr(offsetSource, probeAddr), leave)
		for _, p := range []uint16{portHBONE, portStats, portReady} {
			add(in, isProto(protoTCP), isPort(p), leave)
		}
		add(in, isAddr(offsetDest, ip), isProto(protoTCP), isSYN(), redirect(portPlaintext))
	}
	mangle := c.AddChain(&nftables.Chain{Name: "mark", Table: t, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityMangle})
	add(mangle, isMark(captureMark, markMask), setConnMark(replyMark))
	reroute := c.AddChain(&nftables.Chain{Name: "reply", Table: t, Type: nftables.ChainTypeRoute, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityMangle})
	add(reroute, isConnMark(replyMark, markMask), isMark(0, markMask), setMark(replyMark))
	if err := c.Flush(); err != nil {
		return err
	}
	return routeReplies()
}

// routeReplies delivers marked packets locally, whatever their destination.
func routeReplies() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.RouteReplace(replyRoute(lo)); err != nil {
		return fmt.Errorf("add route for replies: %w", err)
	}
	if err := netlink.RuleAdd(replyRule()); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("add rule for replies: %w", err)
	}
	return nil
}

func replyRoute(lo netlink.Link) *netlink.Route {
	return &netlink.Route{LinkIndex: lo.Attrs().Index, Table: replyTable, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST,
		Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}}
}

func replyRule() *netlink.Rule {
	r := netlink.NewRule()
	mask := uint32(markMask)
	r.Family, r.Table, r.Priority, r.Mark, r.Mask = unix.AF_INET, replyTable, replyPriority, replyMark, &mask
	return r
}

// endRedirection runs in a pod's namespace: connections from now on are not captured. Those that were go on, for as long as the chains are
// there: the kernel translates their packets only while it translates at all.
func endRedirection() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return err
	}
	for _, ch := range chains {
		if ch.Table.Name == captureTable().Name && ch.Type == nftables.ChainTypeNAT {
			c.FlushChain(ch)
		}
	}
	return c.Flush()
}

// removeCaptureRules runs in a pod's namespace; it is no error when there are none. What is known of connections goes with them.
func removeCaptureRules() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	if err := netlink.RuleDel(replyRule()); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove rule for replies: %w", err)
	}
	c.DelTable(captureTable())
	if err := c.Flush(); err != nil && !errors.Is(err, errNoTable) {
		return err
	}
	return forgetConnections()
}

// forgetConnections runs in a pod's namespace and makes its kernel forget how it has translated connections. It remembers that for minutes, also while there is no
// chain that translates, and of connections that ended unseen. Once the pod is captured again, who has come from the same port meanwhile, straight to the pod, would be
// led to the process in the middle of a connection that the process knows nothing of, and be reset.
func forgetConnections() error {
	err := netlink.ConntrackTableFlush(netlink.ConntrackTable)
	if errors.Is(err, unix.EINVAL) { // so the kernel answers for the whole of a subsystem that it does not have
		err = fmt.Errorf("the kernel module nf_conntrack_netlink is not there: %w", unix.EOPNOTSUPP)
	}
	if err != nil {
		return fmt.Errorf("forget connections: %w", err)
	}
	return nil
}
