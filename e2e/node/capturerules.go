package node

import (
	"net/netip"

	"errors"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// Ports and the mark of Istio's ambient redirection.
const (
	portOutbound  = 15001
	portPlaintext = 15006
	portHBONE     = 15008
	portStats     = 15020
	portReady     = 15021
	captureMark   = 0x539
)

func captureTable() *nftables.Table {
	return &nftables.Table{Name: "isthmus-capture", Family: nftables.TableFamilyIPv4}
}

// captureRules runs in a pod's namespace and sends its connections to the capture process: outbound ones to 15001, except
// the process's own (marked) and those to the pod itself, the DNS server and cfg's direct destinations; inbound ones to
// 15006, except the kubelet's probes and what the process serves itself. Connections that exist stay as they are.
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
	add(out, isMark(captureMark), leave)
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
	return c.Flush()
}

// removeCaptureRules runs in a pod's namespace; it is no error when there are none.
func removeCaptureRules() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	c.DelTable(captureTable())
	if err := c.Flush(); err != nil && !errors.Is(err, errNoTable) {
		return err
	}
	return nil
}
