package encode

import (
	"net/netip"

	"github.com/isthmus-mesh/isthmus/hbone/authz"
	"github.com/isthmus-mesh/isthmus/hbone/route"
	"google.golang.org/protobuf/encoding/protowire"
)

// message is a protobuf message under construction. Zero values are left out, as proto3 does.
type message []byte

func (m *message) bytes(num protowire.Number, b []byte) {
	*m = protowire.AppendBytes(protowire.AppendTag(*m, num, protowire.BytesType), b)
}

func (m *message) str(num protowire.Number, s string) {
	if s != "" {
		m.bytes(num, []byte(s))
	}
}

func (m *message) varint(num protowire.Number, n uint64) {
	if n != 0 {
		*m = protowire.AppendVarint(protowire.AppendTag(*m, num, protowire.VarintType), n)
	}
}

func (m *message) flag(num protowire.Number, b bool) {
	if b {
		m.varint(num, 1)
	}
}

// Workload is the istio.workload.Address of a workload.
func Workload(w *route.Workload) []byte {
	var m message
	m.str(20, w.UID)
	m.str(1, w.Name)
	m.str(2, w.Namespace)
	for _, ip := range w.Addresses {
		m.bytes(3, ip.AsSlice())
	}
	m.str(4, w.Network)
	m.varint(5, uint64(w.Tunnel))
	m.str(6, w.TrustDomain)
	m.str(7, w.ServiceAccount)
	m.gateway(8, w.Waypoint)
	m.gateway(19, w.NetworkGateway)
	for _, name := range w.Policies {
		m.str(16, name)
	}
	m.flag(17, w.Unhealthy)
	m.str(9, w.Locality.Node)
	m.str(18, w.Locality.ClusterID)
	var locality message
	locality.str(1, w.Locality.Region)
	locality.str(2, w.Locality.Zone)
	locality.str(3, w.Locality.Subzone)
	if len(locality) > 0 {
		m.bytes(24, locality)
	}
	m.flag(25, w.HostNetwork)
	for _, member := range w.Services {
		var ports, entry message
		ports.ports(1, member.Ports)
		entry.str(1, member.Service)
		entry.bytes(2, ports)
		m.bytes(22, entry)
	}
	if w.AnyPort {
		var tunnel message
		tunnel.varint(2, 15088) // which one says nothing here
		m.bytes(23, tunnel)
	}
	if w.Capacity != 0 {
		var value message
		value.varint(1, uint64(w.Capacity))
		m.bytes(27, value)
	}
	var address message
	address.bytes(1, m)
	return address
}

// Service is the istio.workload.Address of a Service.
func Service(s *route.Service) []byte {
	var m message
	m.str(1, s.Name)
	m.str(2, s.Namespace)
	m.str(3, s.Hostname)
	for _, a := range s.Addresses {
		m.bytes(4, networkAddress(a))
	}
	for _, r := range s.Ranges {
		a := networkAddress(route.NetAddr{Network: r.Network, IP: r.Prefix.Addr()})
		a = protowire.AppendVarint(protowire.AppendTag(a, 3, protowire.VarintType), uint64(r.Prefix.Bits()))
		m.bytes(4, a)
	}
	m.ports(5, s.Ports)
	for _, san := range s.SANs {
		m.str(6, san)
	}
	m.gateway(7, s.Waypoint)
	var lb message
	for _, scope := range s.Prefer {
		lb.varint(1, uint64(scope))
	}
	switch {
	case s.Passthrough:
		lb.varint(2, 3)
	case s.Strict:
		lb.varint(2, 1)
	case len(s.Prefer) > 0:
		lb.varint(2, 2)
	}
	lb.flag(3, s.AllowUnhealthy)
	if len(lb) > 0 {
		m.bytes(8, lb)
	}
	m.varint(9, uint64(s.Families))
	m.flag(11, s.Canonical)
	m.flag(12, s.IngressUseWaypoint)
	for _, w := range s.Weighted {
		var weighted message
		weighted.gateway(1, &w.Gateway)
		weighted.varint(2, uint64(w.Weight))
		m.bytes(13, weighted)
	}
	m.flag(14, s.Private)
	var address message
	address.bytes(2, m)
	return address
}

func networkAddress(a route.NetAddr) message {
	var m message
	m.str(1, a.Network)
	m.bytes(2, a.IP.AsSlice())
	return m
}

func (m *message) ports(num protowire.Number, ports []route.Port) {
	for _, p := range ports {
		var port message
		port.varint(1, uint64(p.Service))
		port.varint(2, uint64(p.Target))
		m.bytes(num, port)
	}
}

func (m *message) gateway(num protowire.Number, g *route.Gateway) {
	if g == nil {
		return
	}
	var gw message
	if g.Host != (route.Host{}) {
		var host message
		host.str(1, g.Host.Namespace)
		host.str(2, g.Host.Hostname)
		gw.bytes(1, host)
	} else {
		gw.bytes(2, networkAddress(g.Addr))
	}
	gw.varint(3, uint64(g.Port))
	m.bytes(num, gw)
}

// Policy is an istio.security.Authorization.
func Policy(p *authz.Policy) []byte {
	var m message
	m.str(1, p.Name)
	m.str(2, p.Namespace)
	m.varint(3, uint64(p.Scope))
	m.varint(4, uint64(p.Action))
	for _, rule := range p.Rules {
		var group message
		for _, clause := range rule {
			var matches message
			for i := range clause {
				matches.bytes(2, encodeMatch(&clause[i]))
			}
			group.bytes(1, matches)
		}
		m.bytes(5, group)
	}
	m.flag(6, p.DryRun)
	return m
}

func encodeMatch(in *authz.Match) message {
	var m message
	for i, list := range [][]authz.StringMatch{in.Namespaces, in.NotNamespaces, in.Principals, in.NotPrincipals} {
		for _, s := range list {
			var value message
			value.bytes(protowire.Number(s.Kind)+1, []byte(s.Value)) // exact 1, prefix 2, suffix 3, presence 4
			m.bytes(protowire.Number(i+1), value)
		}
	}
	for i, list := range [][]netip.Prefix{in.SourceIPs, in.NotSourceIPs, in.DestinationIPs, in.NotDestinationIPs} {
		for _, p := range list {
			var value message
			value.bytes(1, p.Addr().AsSlice())
			value.varint(2, uint64(p.Bits()))
			m.bytes(protowire.Number(i+5), value)
		}
	}
	for i, list := range [][]uint16{in.DestinationPorts, in.NotPorts} {
		var packed []byte
		for _, port := range list {
			packed = protowire.AppendVarint(packed, uint64(port))
		}
		if len(packed) > 0 {
			m.bytes(protowire.Number(i+9), packed)
		}
	}
	for i, list := range [][]authz.ServiceAccount{in.ServiceAccounts, in.NotServiceAccounts} {
		for _, a := range list {
			var value message
			value.str(1, a.Namespace)
			value.str(2, a.Name)
			m.bytes(protowire.Number(i+11), value)
		}
	}
	return m
}
