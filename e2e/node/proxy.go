package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/google/nftables"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
)

// settle is how long changes are gathered before the rules are made anew.
const settle = 5 * time.Millisecond

// proxy plays kube-proxy: it leads connections to cluster IPs to endpoints, by nftables in the node's namespace, or by a balancer.
type proxy struct {
	cfg      *Config
	api      netip.AddrPort
	log      *slog.Logger
	balancer *balancer     // nil with nftables
	woken    chan struct{} // capacity 1
	ready    chan struct{} // closed when the first rules are in force
	rules    []vip         // in force; run owns it
}

// vip is one port of a Service and where its connections go.
type vip struct {
	proto uint8 // unix.IPPROTO_TCP or unix.IPPROTO_UDP
	addr  netip.AddrPort
	to    []netip.AddrPort // empty: refused
}

// newProxy checks that the kernel lets us make the rules, and takes the other way where it does not and cfg leaves that open.
func newProxy(cfg *Config, api netip.AddrPort, log *slog.Logger) (*proxy, error) {
	p := &proxy{cfg: cfg, api: api, log: log, woken: make(chan struct{}, 1), ready: make(chan struct{})}
	if cfg.Rules != AnyIP {
		err := CheckNFTables()
		if err == nil {
			return p, p.apply(nil)
		}
		if cfg.Rules == NFTables || !errors.Is(err, ErrNoNFTables) {
			return nil, err
		}
		log.Warn("Services and capture go without nftables, by AnyIP; inbound plaintext of captured pods is not captured", "err", err)
	}
	var err error
	p.balancer, err = newBalancer(cfg, log)
	return p, err
}

func (p *proxy) wake() {
	select {
	case p.woken <- struct{}{}:
	default:
	}
}

// first waits for the first rules.
func (p *proxy) first(ctx context.Context) error {
	select {
	case <-p.ready:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the service rules: %w", context.Cause(ctx))
	}
}

// run follows Services and EndpointSlices until ctx ends.
func (p *proxy) run(ctx context.Context, services corelisters.ServiceLister, slices discoverylisters.EndpointSliceLister) {
	first := true
	for {
		want, err := p.desired(services, slices)
		if err == nil && (first || !reflect.DeepEqual(want, p.rules)) {
			if err = p.apply(want); err == nil {
				p.rules = want
			}
		}
		if err != nil {
			p.log.Warn("service rules not written", "err", err)
			if !pause(ctx, retryPod) {
				return
			}
			continue
		}
		if first {
			first = false
			close(p.ready)
		}
		select {
		case <-p.woken:
		case <-ctx.Done():
			return
		}
		if !pause(ctx, settle) {
			return
		}
	}
}

func (p *proxy) desired(services corelisters.ServiceLister, slices discoverylisters.EndpointSliceLister) ([]vip, error) {
	svcs, err := services.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	eps, err := slices.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	return vips(svcs, eps, netip.AddrPortFrom(p.cfg.apiVIP(), 443), p.api), nil
}

// vips lists every port of every cluster IP with its endpoints, sorted. The API server's own Service leads to api, also
// where its slice is missing.
func vips(svcs []*corev1.Service, eps []*discoveryv1.EndpointSlice, kubernetes, api netip.AddrPort) []vip {
	bySvc := map[string][]*discoveryv1.EndpointSlice{}
	for _, s := range eps {
		if s.AddressType == discoveryv1.AddressTypeIPv4 {
			key := s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName]
			bySvc[key] = append(bySvc[key], s)
		}
	}
	out := []vip{{proto: protoTCP, addr: kubernetes, to: []netip.AddrPort{api}}}
	for _, svc := range svcs {
		if svc.Spec.Type == corev1.ServiceTypeExternalName {
			continue
		}
		for _, ip := range svc.Spec.ClusterIPs {
			addr, err := netip.ParseAddr(ip)
			if err != nil || !addr.Is4() {
				continue // headless, or IPv6
			}
			for _, port := range svc.Spec.Ports {
				proto, ok := protoOf(port.Protocol)
				at := netip.AddrPortFrom(addr, uint16(port.Port))
				if ok && at != kubernetes {
					out = append(out, vip{proto: proto, addr: at, to: endpoints(bySvc[svc.Namespace+"/"+svc.Name], &port)})
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b vip) int { return cmp.Or(a.addr.Compare(b.addr), cmp.Compare(a.proto, b.proto)) })
	return out
}

// endpoints are the ready endpoints of a service port; where none is ready, those that end but still serve.
func endpoints(eps []*discoveryv1.EndpointSlice, port *corev1.ServicePort) []netip.AddrPort {
	var ready, ending []netip.AddrPort
	for _, s := range eps {
		for _, p := range s.Ports {
			if p.Port == nil || deref(p.Name, "") != port.Name || deref(p.Protocol, corev1.ProtocolTCP) != cmp.Or(port.Protocol, corev1.ProtocolTCP) {
				continue
			}
			for _, e := range s.Endpoints {
				for _, a := range e.Addresses {
					addr, err := netip.ParseAddr(a)
					if err != nil {
						continue
					}
					at := netip.AddrPortFrom(addr, uint16(*p.Port))
					if deref(e.Conditions.Ready, true) {
						ready = append(ready, at)
					} else if deref(e.Conditions.Serving, false) && deref(e.Conditions.Terminating, false) {
						ending = append(ending, at)
					}
				}
			}
		}
	}
	if len(ready) == 0 {
		ready = ending
	}
	slices.SortFunc(ready, netip.AddrPort.Compare)
	return slices.Compact(ready)
}

func deref[T any](p *T, def T) T {
	if p == nil {
		return def
	}
	return *p
}

func protoOf(p corev1.Protocol) (uint8, bool) {
	switch p {
	case corev1.ProtocolTCP, "":
		return protoTCP, true
	case corev1.ProtocolUDP:
		return protoUDP, true
	}
	return 0, false
}

// apply replaces all rules at once.
func (p *proxy) apply(want []vip) error {
	if p.balancer != nil {
		return p.balancer.apply(want)
	}
	return p.cfg.NS.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return fmt.Errorf("open nftables: %w", err)
		}
		if err := proxyRules(c, want, p.cfg); err != nil {
			return err
		}
		if err := c.Flush(); err != nil {
			return fmt.Errorf("write nftables rules: %w", err)
		}
		return nil
	})
}

// close takes the rules away.
func (p *proxy) close() error {
	if p.balancer != nil {
		return p.balancer.close()
	}
	return p.cfg.NS.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		c.DelTable(proxyTable())
		if err := c.Flush(); err != nil && !errors.Is(err, errNoTable) {
			return fmt.Errorf("remove nftables rules: %w", err)
		}
		return nil
	})
}
