package wds

import (
	"errors"
	"slices"

	"github.com/isthmus-mesh/isthmus/hbone/route"
)

// decodeAddress reads an istio.workload.Address: a workload or a service.
func decodeAddress(b []byte) (w *route.Workload, s *route.Service, err error) {
	err = walk(b, func(f field) (err error) {
		switch f.num {
		case 1:
			w, err = decodeWorkload(f.bytes)
		case 2:
			s, err = decodeService(f.bytes)
		}
		return err
	})
	if err == nil && w == nil && s == nil {
		err = errors.New("neither a workload nor a service")
	}
	return w, s, err
}

func decodeWorkload(b []byte) (*route.Workload, error) {
	w := &route.Workload{}
	err := walk(b, func(f field) (err error) {
		switch f.num {
		case 20:
			w.UID = string(f.bytes)
		case 1:
			w.Name = string(f.bytes)
		case 2:
			w.Namespace = string(f.bytes)
		case 3:
			ip, err := f.ip()
			if err != nil {
				return err
			}
			w.Addresses = append(w.Addresses, ip)
		case 4:
			w.Network = string(f.bytes)
		case 5:
			w.Tunnel = route.Tunnel(f.n)
		case 6:
			w.TrustDomain = string(f.bytes)
		case 7:
			w.ServiceAccount = string(f.bytes)
		case 8:
			w.Waypoint, err = decodeGateway(f.bytes)
		case 19:
			w.NetworkGateway, err = decodeGateway(f.bytes)
		case 22:
			err = decodePortsOf(f.bytes, w)
		case 16:
			w.Policies = append(w.Policies, string(f.bytes))
		case 17:
			w.Unhealthy = f.n != 0
		case 9:
			w.Locality.Node = string(f.bytes)
		case 18:
			w.Locality.ClusterID = string(f.bytes)
		case 24:
			err = decodeLocality(f.bytes, &w.Locality)
		case 25:
			w.HostNetwork = f.n == 1
		case 27:
			err = walk(f.bytes, func(f field) error {
				if f.num == 1 {
					w.Capacity = uint32(f.n)
				}
				return nil
			})
		}
		return err
	})
	if err == nil && w.UID == "" {
		err = errors.New("a workload without uid")
	}
	return w, err
}

// decodePortsOf reads an entry of the map of services.
func decodePortsOf(b []byte, w *route.Workload) error {
	var key string
	var ports []route.Port
	err := walk(b, func(f field) error {
		switch f.num {
		case 1:
			key = string(f.bytes)
		case 2:
			return walk(f.bytes, func(f field) error {
				if f.num != 1 {
					return nil
				}
				p, err := decodePort(f.bytes)
				ports = append(ports, p)
				return err
			})
		}
		return nil
	})
	if w.Services == nil {
		w.Services = map[string][]route.Port{}
	}
	w.Services[key] = ports
	return err
}

func decodePort(b []byte) (p route.Port, err error) {
	err = walk(b, func(f field) (err error) {
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
	err := walk(b, func(f field) (err error) {
		switch f.num {
		case 1:
			s.Name = string(f.bytes)
		case 2:
			s.Namespace = string(f.bytes)
		case 3:
			s.Hostname = string(f.bytes)
		case 4:
			a, err := decodeNetworkAddress(f.bytes)
			if err != nil {
				return err
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
		case 12:
			s.IngressUseWaypoint = f.n != 0
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
	return walk(b, func(f field) error {
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

func decodeLocality(b []byte, l *route.Locality) error {
	return walk(b, func(f field) error {
		switch f.num {
		case 1:
			l.Region = string(f.bytes)
		case 2:
			l.Zone = string(f.bytes)
		case 3:
			l.Subzone = string(f.bytes)
		}
		return nil
	})
}

func decodeNetworkAddress(b []byte) (a route.NetAddr, err error) {
	err = walk(b, func(f field) (err error) {
		switch f.num {
		case 1:
			a.Network = string(f.bytes)
		case 2:
			a.IP, err = f.ip()
		}
		return err
	})
	if err == nil && !a.IP.IsValid() {
		err = errors.New("an address without IP")
	}
	return a, err
}

func decodeGateway(b []byte) (*route.Gateway, error) {
	g := &route.Gateway{}
	err := walk(b, func(f field) (err error) {
		switch f.num {
		case 1:
			return walk(f.bytes, func(f field) error {
				switch f.num {
				case 1:
					g.Host.Namespace = string(f.bytes)
				case 2:
					g.Host.Hostname = string(f.bytes)
				}
				return nil
			})
		case 2:
			g.Addr, err = decodeNetworkAddress(f.bytes)
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
	err = walk(b, func(f field) (err error) {
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
