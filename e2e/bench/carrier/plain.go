package carrier

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
)

// rawClient is the address of a server of Raw.
type rawClient string

func (c rawClient) Open(ctx context.Context) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", string(c))
}

// tlsClient makes a connection with a handshake for each tunnel.
type tlsClient struct {
	addr string
	id   *identity
}

func (c tlsClient) Open(ctx context.Context) (net.Conn, error) {
	return dialTLS(ctx, c.addr, c.id.tlsConfig())
}

func dialTLS(ctx context.Context, addr string, config *tls.Config) (*tls.Conn, error) {
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	tc := tls.Client(nc, config)
	if err := tc.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, err
	}
	return tc, nil
}

func tlsServer(c net.Conn, id *identity) net.Conn { return tls.Server(c, id.tlsConfig()) }

// serveEach serves a tunnel a connection.
func serveEach(l net.Listener, cfg Config, wrap func(net.Conn) (net.Conn, error), handle func(net.Conn)) error {
	if cfg.Forward {
		return errors.New("this server does not forward")
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		if c, err = wrap(c); err != nil {
			return err
		}
		go handle(c)
	}
}
