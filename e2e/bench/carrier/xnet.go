//nolint:staticcheck // http2's API is deprecated in favour of net/http, which has the same code: it is what is compared here
package carrier

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// x/net's windows and frames, set as large as ztunnel's; streams without a limit.
const (
	xnetStreamWindow = 4 << 20
	xnetConnWindow   = 16 << 20
	xnetFrame        = 1 << 20
	xnetStreams      = 1 << 20
)

// xnetClient opens streams of one connection.
type xnetClient struct {
	addr, target string
	id           *identity

	mu sync.Mutex // guards the field below, and the one handshake
	cc *http2.ClientConn
}

func (c *xnetClient) connection(ctx context.Context) (*http2.ClientConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cc != nil {
		return c.cc, nil
	}
	config := c.id.tlsConfig()
	tr, err := http2.ConfigureTransports(&http.Transport{
		TLSClientConfig: config,
		HTTP2: &http.HTTP2Config{
			MaxReceiveBufferPerConnection: xnetConnWindow,
			MaxReceiveBufferPerStream:     xnetStreamWindow,
			MaxReadFrameSize:              xnetFrame,
		},
	})
	if err != nil {
		return nil, err
	}
	tc, err := dialTLS(ctx, c.addr, config)
	if err != nil {
		return nil, err
	}
	c.cc, err = tr.NewClientConn(tc)
	return c.cc, err
}

func (c *xnetClient) Open(ctx context.Context) (net.Conn, error) {
	cc, err := c.connection(ctx)
	if err != nil {
		return nil, err
	}
	pr, pw := io.Pipe()
	req, err := http.NewRequestWithContext(ctx, http.MethodConnect, "https://"+c.addr, pr)
	if err != nil {
		return nil, err
	}
	req.Host = c.target
	resp, err := cc.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, errors.New("CONNECT answered " + resp.Status)
	}
	return &xnetConn{r: resp.Body, w: pw}, nil
}

// xnetConn is a client's tunnel: net.Conn as far as a load needs it.
type xnetConn struct {
	r io.ReadCloser
	w *io.PipeWriter
	noDeadlines
}

func (c *xnetConn) Read(p []byte) (int, error)  { return c.r.Read(p) }
func (c *xnetConn) Write(p []byte) (int, error) { return c.w.Write(p) }
func (c *xnetConn) Close() error                { return errors.Join(c.w.Close(), c.r.Close()) }

// xnetHandled is a server's tunnel.
type xnetHandled struct {
	r     io.ReadCloser
	w     http.ResponseWriter
	flush func()
	noDeadlines
}

func (c *xnetHandled) Read(p []byte) (int, error) { return c.r.Read(p) }
func (c *xnetHandled) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.flush()
	return n, err
}
func (c *xnetHandled) Close() error { return c.r.Close() }

func serveXNet(l net.Listener, id *identity, cfg Config, handle func(net.Conn)) error {
	if cfg.Forward {
		return errors.New("this server does not forward")
	}
	server := &http2.Server{
		MaxConcurrentStreams: xnetStreams, MaxReadFrameSize: xnetFrame,
		MaxUploadBufferPerConnection: xnetConnWindow, MaxUploadBufferPerStream: xnetStreamWindow,
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		flush := w.(http.Flusher).Flush
		flush()
		handle(&xnetHandled{r: r.Body, w: w, flush: flush})
	})
	config := id.tlsConfig()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			tc := tls.Server(c, config)
			if tc.HandshakeContext(context.Background()) != nil {
				c.Close()
				return
			}
			server.ServeConn(tc, &http2.ServeConnOpts{Handler: handler})
		}()
	}
}

// noDeadlines is the rest of a net.Conn, which loads do not use.
type noDeadlines struct{}

func (noDeadlines) LocalAddr() net.Addr              { return nil }
func (noDeadlines) RemoteAddr() net.Addr             { return nil }
func (noDeadlines) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (noDeadlines) SetReadDeadline(time.Time) error  { return errors.ErrUnsupported }
func (noDeadlines) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }

var (
	_ net.Conn = (*xnetConn)(nil)
	_ net.Conn = (*xnetHandled)(nil)
)
