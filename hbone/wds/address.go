package wds

import (
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/hbone/route"
)

// The fields of istio.workload's messages that are read here.
var (
	addressFields        = fields{1: text, 2: text}
	workloadFields       = fields{1: text, 2: text, 3: text, 4: text, 5: number, 6: text, 7: text, 8: text, 9: text, 16: text, 17: number, 18: text, 19: text, 20: text, 22: text, 23: text, 24: text, 25: number, 27: text}
	tunnelFields         = fields{2: number}
	capacityFields       = fields{1: number}
	memberFields         = fields{1: text, 2: text}
	portListFields       = fields{1: text}
	portFields           = fields{1: number, 2: number}
	serviceFields        = fields{1: text, 2: text, 3: text, 4: text, 5: text, 6: text, 7: text, 8: text, 9: number, 11: number, 12: number, 13: text, 14: number}
	balancingFields      = fields{1: numbers, 2: number, 3: number}
	localityFields       = fields{1: text, 2: text, 3: text}
	networkAddressFields = fields{1: text, 2: text, 3: number}
	gatewayFields        = fields{1: text, 2: text, 3: number}
	hostFields           = fields{1: text, 2: text}
	weightedFields       = fields{1: text, 2: number}
)

// decodeAddress reads an istio.workload.Address: a workload or a service. Strings that many have are shared through t.
func decodeAddress(b []byte, t *texts) (w *route.Workload, s *route.Service, err error) {
	err = walk(b, addressFields, func(f field) (err error) {
		switch f.num {
		case 1:
			w, err = decodeWorkload(f.bytes, t)
		case 2:
			s, err = decodeService(f.bytes)
		}
		return err
	})
	switch {
	case err != nil:
	case w == nil && s == nil:
		err = errors.New("neither a workload nor a service")
	case w != nil && s != nil:
		err = errors.New("both a workload and a service")
	}
	return w, s, err
}

// texts shares strings of equal bytes. The zero value is ready.
type texts struct{ known map[string]string }

const (
	// maxTexts bounds what is kept for sharing; then it begins anew.
	maxTexts = 1 << 16
	// longestText is how many bytes a text may have that is shared; names that many have are shorter.
	longestText = 256
)

func (t *texts) of(b []byte) string {
	if t == nil || len(b) > longestText {
		return string(b)
	}
	if s, ok := t.known[string(b)]; ok {
		return s
	}
	if t.known == nil || len(t.known) >= maxTexts {
		t.known = map[string]string{}
	}
	s := string(b)
	t.known[s] = s
	return s
}

func decodeWorkload(b []byte, t *texts) (*route.Workload, error) {
	w := &route.Workload{}
	err := walk(b, workloadFields, func(f field) (err error) {
		switch f.num {
		case 20:
			w.UID = string(f.bytes)
		case 1:
			w.Name = string(f.bytes)
		case 2:
			w.Namespace = t.of(f.bytes)
		case 3:
			ip, err := f.ip()
			if err != nil {
				return err
			}
			w.Addresses = append(w.Addresses, ip)
		case 4:
			w.Network = t.of(f.bytes)
		case 5:
			w.Tunnel = route.Tunnel(f.n)
		case 6:
			w.TrustDomain = t.of(f.bytes)
		case 7:
			w.ServiceAccount = t.of(f.bytes)
		case 8:
			w.Waypoint, err = decodeGateway(f.bytes)
		case 19:
			w.NetworkGateway, err = decodeGateway(f.bytes)
		case 22:
			err = decodeMember(f.bytes, t, w)
		case 16:
			w.Policies = append(w.Policies, t.of(f.bytes))
		case 17:
			w.Unhealthy = f.n != 0
		case 9:
			w.Locality.Node = t.of(f.bytes)
		case 18:
			w.Locality.ClusterID = t.of(f.bytes)
		case 24:
			err = decodeLocality(f.bytes, t, &w.Locality)
		case 23:
			err = walk(f.bytes, tunnelFields, func(f field) error {
				if f.num == 2 {
					w.AnyPort = f.n != 0
				}
				return nil
			})
		case 25:
			w.HostNetwork = f.n == 1
		case 27:
			err = walk(f.bytes, capacityFields, func(f field) error {
				if f.num == 1 {
					w.Capacity = uint32(f.n)
				}
				return nil
			})
		}
		return err
	})
	switch {
	case err != nil:
	case w.UID == "":
		err = errors.New("a workload without uid")
	case strings.HasSuffix(w.UID, "/"+w.Name):
		w.Name = w.UID[len(w.UID)-len(w.Name):] // one string less
	}
	w.Services, w.Addresses = lastOfEach(w.Services), slices.Clip(w.Addresses)
	return w, err
}

// decodeMember reads an entry of the map of services.
func decodeMember(b []byte, t *texts, w *route.Workload) error {
	var m route.Member
	err := walk(b, memberFields, func(f field) error {
		switch f.num {
		case 1:
			m.Service = t.of(f.bytes)
		case 2:
			return walk(f.bytes, portListFields, func(f field) error {
				if f.num != 1 {
					return nil
				}
				p, err := decodePort(f.bytes)
				m.Ports = append(m.Ports, p)
				return err
			})
		}
		return nil
	})
	w.Services = append(w.Services, m)
	return err
}

// lastOfEach sorts members and keeps of those of one Service the last.
func lastOfEach(members []route.Member) []route.Member {
	if len(members) < 2 {
		return slices.Clip(members)
	}
	slices.Reverse(members)
	slices.SortStableFunc(members, func(a, b route.Member) int { return strings.Compare(a.Service, b.Service) })
	return slices.Clip(slices.CompactFunc(members, func(a, b route.Member) bool { return a.Service == b.Service }))
}

func decodePort(b []byte) (p route.Port, err error) {
	err = walk(b, portFields, func(f field) (err error) {
		switch f.num {
		case 1:
			p.Service, err = f.port()
		case 2:
			p.Target, err = f.port()
		}
		return err
	})
	return p, err
}

func decodeService(b []byte) (*route.Service, error) {
	s := &route.Service{}
	err := walk(b, serviceFields, func(f field) (err error) {
		switch f.num {
		case 1:
			s.Name = string(f.bytes)
		case 2:
			s.Namespace = string(f.bytes)
		case 3:
			s.Hostname = string(f.bytes)
		case 4:
			a, bits, err := decodeNetworkAddress(f.bytes)
			if err != nil {
				return err
			}
			if bits < a.IP.BitLen() {
				s.Ranges = append(s.Ranges, route.NetPrefix{Network: a.Network, Prefix: netip.PrefixFrom(a.IP, bits).Masked()})
				break
			}
			s.Addresses = append(s.Addresses, a)
		case 5:
			p, err := decodePort(f.bytes)
			if err != nil {
				return err
			}
			s.Ports = append(s.Ports, p)
		case 6:
			s.SANs = append(s.SANs, string(f.bytes))
		case 7:
			s.Waypoint, err = decodeGateway(f.bytes)
		case 8:
			err = decodeLoadBalancing(f.bytes, s)
		case 13:
			var w route.Weighted
			w, err = decodeWeighted(f.bytes)
			s.Weighted = append(s.Weighted, w)
		case 9:
			if s.Families = route.Families(f.n); f.n > uint64(route.FamiliesDual) {
				s.Families = route.FamiliesAny // of the future
			}
		case 11:
			s.Canonical = f.n != 0
		case 12:
			s.IngressUseWaypoint = f.n != 0
		case 14:
			s.Private = f.n == 1
		}
		return err
	})
	if err == nil && s.Hostname == "" {
		err = errors.New("a service without hostname")
	}
	return s, err
}

// The modes of load balancing that matter here; the others prefer without being strict, or have no preference.
const (
	modeStrict      = 1
	modePassthrough = 3
)

const maxScope = uint64(route.ScopeNetwork)

func decodeLoadBalancing(b []byte, s *route.Service) error {
	return walk(b, balancingFields, func(f field) error {
		switch f.num {
		case 1:
			return f.packed(func(n uint64) error {
				scope := route.Scope(min(n, maxScope+1)) // newer ones count as one, which nothing is of
				if !slices.Contains(s.Prefer, scope) {
					s.Prefer = append(s.Prefer, scope)
				}
				return nil
			})
		case 2:
			s.Strict, s.Passthrough = f.n == modeStrict, f.n == modePassthrough
		case 3:
			s.AllowUnhealthy = f.n == 1
		}
		return nil
	})
}

func decodeLocality(b []byte, t *texts, l *route.Locality) error {
	return walk(b, localityFields, func(f field) error {
		switch f.num {
		case 1:
			l.Region = t.of(f.bytes)
		case 2:
			l.Zone = t.of(f.bytes)
		case 3:
			l.Subzone = t.of(f.bytes)
		}
		return nil
	})
}

// decodeNetworkAddress reads an address, or a range of them: bits is the length of the prefix.
func decodeNetworkAddress(b []byte) (a route.NetAddr, bits int, err error) {
	length := uint64(128)
	err = walk(b, networkAddressFields, func(f field) (err error) {
		switch f.num {
		case 1:
			a.Network = string(f.bytes)
		case 2:
			a.IP, err = f.ip()
		case 3:
			length = f.n
		}
		return err
	})
	if err == nil && !a.IP.IsValid() {
		err = errors.New("an address without IP")
	}
	return a, int(min(length, uint64(a.IP.BitLen()))), err
}

func decodeGateway(b []byte) (*route.Gateway, error) {
	g := &route.Gateway{}
	err := walk(b, gatewayFields, func(f field) (err error) {
		switch f.num {
		case 1:
			return walk(f.bytes, hostFields, func(f field) error {
				switch f.num {
				case 1:
					g.Host.Namespace = string(f.bytes)
				case 2:
					g.Host.Hostname = string(f.bytes)
				}
				return nil
			})
		case 2:
			g.Addr, _, err = decodeNetworkAddress(f.bytes)
		case 3:
			g.Port, err = f.port()
		}
		return err
	})
	if err == nil && g.Host.Hostname == "" && !g.Addr.IP.IsValid() {
		err = errors.New("a gateway without destination")
	}
	return g, err
}

func decodeWeighted(b []byte) (w route.Weighted, err error) {
	var g *route.Gateway
	err = walk(b, weightedFields, func(f field) (err error) {
		switch f.num {
		case 1:
			g, err = decodeGateway(f.bytes)
		case 2:
			w.Weight = uint32(f.n)
		}
		return err
	})
	if err == nil && g == nil {
		err = errors.New("a waypoint without destination")
	}
	if err == nil {
		w.Gateway = *g
	}
	return w, err
}
