package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/world"
)

// balancerDial bounds a connection to an endpoint.
const balancerDial = 10 * time.Second

// balancer carries TCP connections to Services where nftables is not allowed: it listens on their addresses, which AnyIP makes those of a
// network namespace of its own, beside the node's, where programs listen on all addresses. A port without endpoints has no
// listener, so it refuses.
type balancer struct {
	cfg *Config
	net *podNet
	log *slog.Logger
	ctx context.Context // ends with close
	end context.CancelFunc
	wg  sync.WaitGroup

	mu    sync.Mutex // guards the field below
	ports map[netip.AddrPort]*balanced
}

// balanced is a Service's port at work.
type balanced struct {
	listener net.Listener
	to       []netip.AddrPort // guarded by the balancer's mu; never empty
}

func newBalancer(cfg *Config, log *slog.Logger) (_ *balancer, err error) {
	b := &balancer{cfg: cfg, log: log, ports: map[netip.AddrPort]*balanced{}}
	if b.net, err = newPodNet(cfg.NS, cfg.gateway(), cfg.balancerAddr()); err != nil {
		return nil, err
	}
	b.ctx, b.end = context.WithCancel(context.Background())
	err = b.net.ns.Do(func() error { return setAnyIP(cfg) })
	if err == nil {
		err = cfg.NS.Do(func() error { return routeServices(cfg, b.net) })
	}
	if err = errors.Join(err, b.write(nil)); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

// balancerAddr is whom endpoints see when a connection has come through the balancer.
func (c *Config) balancerAddr() netip.Addr { return c.gateway().Next() }

// servicesFile names the addresses of all TCP ports of Services, a line each, for capture processes.
func (c *Config) servicesFile() string { return filepath.Join(c.Dir, "services") }

// write replaces the file for capture processes.
func (b *balancer) write(want []vip) error {
	var text strings.Builder
	for _, v := range want {
		if v.proto == protoTCP && v.addr.Addr() != b.cfg.apiVIP() {
			fmt.Fprintln(&text, v.addr)
		}
	}
	next := b.cfg.servicesFile() + ".next"
	if err := os.WriteFile(next, []byte(text.String()), 0o644); err != nil {
		return fmt.Errorf("write the list of services: %w", err)
	}
	if err := os.Rename(next, b.cfg.servicesFile()); err != nil {
		return fmt.Errorf("write the list of services: %w", err)
	}
	return nil
}

// apply listens on what is wanted and on nothing else. Connections that exist go on.
func (b *balancer) apply(want []vip) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.ports
	b.ports = map[netip.AddrPort]*balanced{}
	var errs []error
	for _, v := range want {
		if v.proto != protoTCP || len(v.to) == 0 {
			continue
		}
		p := old[v.addr]
		delete(old, v.addr)
		if p == nil {
			l, err := b.net.ns.Listen("tcp4", v.addr.String())
			if err != nil {
				errs = append(errs, err)
				continue
			}
			p = &balanced{listener: l}
			b.wg.Go(func() { b.serve(p) })
		}
		p.to = v.to
		b.ports[v.addr] = p
	}
	for _, p := range old {
		errs = append(errs, p.listener.Close())
	}
	errs = append(errs, b.write(want))
	return errors.Join(errs...)
}

// serve carries the connections that come to a port.
func (b *balancer) serve(p *balanced) {
	for {
		c, err := p.listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			b.log.Warn("service port: accept", "addr", p.listener.Addr(), "err", err)
			if !pause(b.ctx, retryPod) {
				return
			}
			continue
		}
		b.mu.Lock()
		to := p.to[rand.IntN(len(p.to))]
		b.mu.Unlock()
		b.wg.Go(func() { b.carry(c, to) })
	}
}

// carry joins a connection to an endpoint; one that cannot be reached resets it.
func (b *balancer) carry(c net.Conn, to netip.AddrPort) {
	ctx, cancel := context.WithTimeout(b.ctx, balancerDial)
	up, err := b.net.ns.DialContext(ctx, "tcp4", to.String())
	cancel()
	if err != nil {
		world.Reset(c)
		return
	}
	stop := context.AfterFunc(b.ctx, func() { world.Reset(c); world.Reset(up) })
	defer stop()
	world.Join(c, up, nil)
}

// close ends listeners and connections, and takes the balancer's network away.
func (b *balancer) close() error {
	b.end()
	err := b.apply(nil)
	b.wg.Wait()
	return errors.Join(err, b.net.close())
}
