package node

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
)

// hairpin marks connections of a pod to itself through a Service, which need the node's address as their source.
const hairpin = 0x4000

func proxyTable() *nftables.Table {
	return &nftables.Table{Name: "isthmus-services", Family: nftables.TableFamilyIPv4}
}

// proxyRules fills the table of the service proxy:
//
//	map vips { VIP . protocol . port : goto vip-n }
//	chain vip-n { [one in k] goto vip-n-m; … }   an empty one falls through, and the packet is rejected
//	chain vip-n-m { mark what comes from the endpoint itself; dnat to the endpoint }
//	chains prerouting, output { look up vips }
//	chain postrouting { masquerade what is marked }
//	chains forward, reject { reject what is still addressed to the service network }
func proxyRules(c *nftables.Conn, want []vip, cfg *Config) error {
	t := fresh(c, proxyTable())
	var elems []nftables.SetElement
	for i, v := range want {
		chain := c.AddChain(&nftables.Chain{Name: fmt.Sprintf("vip-%d", i), Table: t})
		for j, to := range v.to {
			ep := c.AddChain(&nftables.Chain{Name: fmt.Sprintf("vip-%d-%d", i, j), Table: t})
			c.AddRule(&nftables.Rule{Table: t, Chain: ep, Exprs: rule(isAddr(offsetSource, to.Addr()), setMark(hairpin))})
			c.AddRule(&nftables.Rule{Table: t, Chain: ep, Exprs: dnat(to)})
			c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: rule(oneIn(len(v.to)-j), gotoChain(ep.Name))})
		}
		elems = append(elems, nftables.SetElement{Key: vipKey(v.addr, v.proto), VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain.Name}})
	}
	key, err := nftables.ConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService)
	if err != nil {
		return err
	}
	set := &nftables.Set{Table: t, Name: "vips", IsMap: true, Concatenation: true, KeyType: key, DataType: nftables.TypeVerdict}
	if err := c.AddSet(set, elems); err != nil {
		return err
	}
	lookup := []expr.Any{
		&expr.Payload{DestRegister: 8, Base: expr.PayloadBaseNetworkHeader, Offset: offsetDest, Len: 4},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 9},
		&expr.Payload{DestRegister: 10, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: 8, DestRegister: 0, IsDestRegSet: true, SetName: set.Name, SetID: set.ID},
	}
	for _, ch := range []*nftables.Chain{
		natChain(c, t, "prerouting", nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest),
		natChain(c, t, "output", nftables.ChainHookOutput, nftables.ChainPriorityNATDest),
	} {
		c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: lookup})
	}
	post := natChain(c, t, "postrouting", nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	c.AddRule(&nftables.Rule{Table: t, Chain: post, Exprs: rule(isMark(hairpin, hairpin), []expr.Any{&expr.Masq{}})})

	for name, hook := range map[string]*nftables.ChainHook{"forward": nftables.ChainHookForward, "reject": nftables.ChainHookOutput} {
		ch := c.AddChain(&nftables.Chain{Name: name, Table: t, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: nftables.ChainPriorityFilter})
		left := rule(inNet(offsetDest, cfg.serviceCIDR()))
		c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: rule(isAddr(offsetDest, cfg.dnsVIP()), verdict(expr.VerdictAccept))})
		c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: rule(left, isProto(protoTCP), rejectTCP())})
		c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: rule(left, rejectOther())})
	}
	return nil
}

// vipKey is a key of the map: each part takes a whole number of 4-byte registers.
func vipKey(addr netip.AddrPort, proto uint8) []byte {
	b := addr.Addr().As4()
	port := binaryutil.BigEndian.PutUint16(addr.Port())
	return []byte{b[0], b[1], b[2], b[3], proto, 0, 0, 0, port[0], port[1], 0, 0}
}
