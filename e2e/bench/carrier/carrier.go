// Package carrier has what is compared: ways to carry connections between two processes, ours and others, all with the same
// certificates and the same cipher.
package carrier

import (
	"context"
	"fmt"
	"net"

	"github.com/isthmus-mesh/isthmus/hbone"
)

// Kind names a way.
type Kind string

// The ways.
const (
	Ours       Kind = "ours"       // hbone.Dialer and hbone.Server
	Optimistic Kind = "optimistic" // the same, data with the CONNECT
	XNet       Kind = "x/net"      // golang.org/x/net/http2, tuned
	Istio      Kind = "istio"      // istio.io/istio/pkg/hbone; its server only forwards
	TLS        Kind = "tls"        // crypto/tls, a connection a tunnel
	Raw        Kind = "raw"        // TCP, a connection a tunnel
	Small      Kind = "small"      // a client only: an HTTP/2 client that sends ztunnel's frames
	Large      Kind = "large"      // the same with frames of 64 KiB
	Floor      Kind = "floor"      // TCP and AES-GCM, a connection a tunnel, and nothing else: what bulk costs at least
)

// Config is one end.
type Config struct {
	Kind    Kind
	ID      Credentials
	Forward bool   // the server carries on to Target over TCP
	Target  string // where tunnels go, host:port
	Streams uint32 // tunnels a connection of our server; zero: its default
	Keep    bool   // tunnels that end at our server are handed over one by one, not each in a goroutine: handle does not block
}

// Client opens tunnels.
type Client interface {
	Open(ctx context.Context) (net.Conn, error)
}

// Dial makes a Client to the server at addr; it may connect later.
func Dial(cfg Config, addr string) (Client, error) {
	id, err := cfg.ID.identity()
	if err != nil {
		return nil, err
	}
	switch cfg.Kind {
	case Ours, Optimistic:
		return newOurs(id, cfg, addr)
	case XNet:
		return &xnetClient{addr: addr, target: cfg.Target, id: id}, nil
	case Istio:
		return newIstio(id, cfg, addr)
	case TLS:
		return tlsClient{addr: addr, id: id}, nil
	case Raw:
		return rawClient(addr), nil
	case Floor:
		return floorClient(addr), nil
	case Small:
		return &framesClient{addr: addr, target: cfg.Target, id: id, sizes: ztunnelSizes}, nil
	case Large:
		return &framesClient{addr: addr, target: cfg.Target, id: id, sizes: largeSizes}, nil
	}
	return nil, fmt.Errorf("there is no client %q", cfg.Kind)
}

// Serve serves tunnels from l until it closes. handle owns the tunnels that end here.
func Serve(l net.Listener, cfg Config, handle func(net.Conn)) error {
	id, err := cfg.ID.identity()
	if err != nil {
		return err
	}
	switch cfg.Kind {
	case Ours, Optimistic:
		return serveOurs(l, id, cfg, handle)
	case XNet:
		return serveXNet(l, id, cfg, handle)
	case Istio:
		return serveIstio(l, id)
	case TLS:
		return serveEach(l, cfg, func(c net.Conn) (net.Conn, error) { return tlsServer(c, id), nil }, handle)
	case Raw:
		return serveEach(l, cfg, func(c net.Conn) (net.Conn, error) { return c, nil }, handle)
	case Floor:
		return serveEach(l, cfg, floorServer, handle)
	}
	return fmt.Errorf("there is no server %q", cfg.Kind)
}

var _ hbone.Identity = (*identity)(nil)
