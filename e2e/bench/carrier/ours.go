package carrier

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/hbone"
)

// oursClient is a Dialer with its defaults.
type oursClient struct {
	d     *hbone.Dialer
	route hbone.Route
}

func newOurs(id *identity, cfg Config, addr string) (Client, error) {
	hop, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, fmt.Errorf("the server's address: %w", err)
	}
	route := hbone.Route{Hops: []hbone.Hop{{
		Kind: hbone.HopWorkload, Name: "shop/orders", Addr: hop, Authority: cfg.Target, Peers: []spiffeid.ID{serverID},
	}}}
	resolver := hbone.ResolverFunc(func(context.Context, string, string) (hbone.Route, error) { return route, nil })
	d := &hbone.Dialer{Identity: id, Resolver: resolver, Optimistic: cfg.Kind == Optimistic}
	return oursClient{d, route}, nil
}

func (c oursClient) Open(ctx context.Context) (net.Conn, error) { return c.d.DialRoute(ctx, c.route) }

// serveOurs is a Server with its defaults.
func serveOurs(l net.Listener, id *identity, cfg Config, handle func(net.Conn)) error {
	s := &hbone.Server{Identity: id, MaxStreams: cfg.Streams}
	if cfg.Forward {
		s.Forward = func(_ context.Context, r *hbone.ConnectRequest) (netip.AddrPort, error) { return r.Target, nil }
		return s.Serve(l)
	}
	s.Admit = func(context.Context, *hbone.ConnectRequest) error { return nil }
	go func() {
		for {
			c, err := s.Accept()
			if err != nil {
				return // Serve returns, and says why
			}
			if cfg.Keep {
				handle(c)
			} else {
				go handle(c)
			}
		}
	}()
	return s.Serve(l)
}
