package hbone

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/net/http2"
)

// Conn is a tunnel. It is a net.Conn with CloseWrite, at both ends; the user closes it. Methods may be called from several goroutines.
//
// Read gives io.EOF only after the other end has ended its direction. When the tunnel was reset or its connection lost
// before, Read gives a *TunnelError that is syscall.ECONNRESET: what was read is not all there was.
type Conn struct {
	s    *h2.Stream
	link *link
	// way is the route at a client, nil at a server.
	way *way
	// req is the request at a server, nil at a client.
	req *ConnectRequest
	// prev and next are the Dialer's list of tunnels, under its mu; nil outside it.
	prev, next *Conn
}

// link is what the tunnels of one connection have in common.
type link struct {
	local, remote net.Addr
	self, peer    spiffeid.ID
}

// Read reads from the tunnel; see Conn for its ends.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.s.Read(p)
	return n, c.explain("read", err)
}

// Write returns once the last byte is on its way to the connection.
func (c *Conn) Write(p []byte) (int, error) {
	n, err := c.s.Write(p)
	return n, c.explain("write", err)
}

// ReadFrom sends what r gives until that ends, with buffers that are borrowed; see io.ReaderFrom. It does not end our direction.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	n, err := copyThrough(c, r)
	return n, err
}

// WriteTo gives w what the tunnel brings until that ends; see io.WriterTo.
func (c *Conn) WriteTo(w io.Writer) (int64, error) {
	n, err := copyThrough(w, c)
	return n, err
}

// CloseWrite ends our direction, as FIN does; the other goes on.
func (c *Conn) CloseWrite() error { return c.explain("close", c.s.CloseWrite()) }

// Close ends the tunnel. What Write took is still sent. It does not wait for the peer.
func (c *Conn) Close() error {
	c.leave()
	return c.s.Close()
}

// Reset ends the tunnel at once; the other end sees ECONNRESET.
func (c *Conn) Reset() {
	c.leave()
	c.s.Reset(http2.ErrCodeCancel)
}

// LocalAddr is our end of the TCP connection that carries the tunnel.
func (c *Conn) LocalAddr() net.Addr { return c.link.local }

// RemoteAddr is the other end of the TCP connection that carries the tunnel: at a client the first hop, not the target.
func (c *Conn) RemoteAddr() net.Addr { return c.link.remote }

// LocalIdentity is whom we showed ourselves to be.
func (c *Conn) LocalIdentity() spiffeid.ID { return c.link.self }

// PeerIdentity is whom the other end showed itself to be: at a client the last hop.
func (c *Conn) PeerIdentity() spiffeid.ID { return c.link.peer }

// Route is the way that was taken; zero at a server. The caller must not change it.
func (c *Conn) Route() Route {
	if c.way == nil {
		return Route{}
	}
	return c.way.route
}

// Request is the CONNECT that opened the tunnel at a server, with what the peer claims; nil at a client.
func (c *Conn) Request() *ConnectRequest { return c.req }

// SetDeadline sets both deadlines, as for a net.Conn.
func (c *Conn) SetDeadline(t time.Time) error { return c.s.SetDeadline(t) }

// SetReadDeadline sets the deadline of Read.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.s.SetReadDeadline(t) }

// SetWriteDeadline sets the deadline of Write.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.s.SetWriteDeadline(t) }

func (c *Conn) explain(op string, err error) error {
	if err == nil || err == io.EOF { //nolint:errorlint // io.EOF is never wrapped, and net.Conn's users compare it
		return err
	}
	if errors.Is(err, net.ErrClosed) || isTimeout(err) {
		return &net.OpError{Op: op, Net: "hbone", Source: c.link.local, Addr: c.link.remote, Err: err}
	}
	e := &TunnelError{Op: op, Peer: c.link.peer, Err: err}
	if c.req != nil {
		e.Hop, e.Target = c.req.Remote, c.req.Authority
	} else {
		hop := c.way.hop()
		e.Hop, e.Kind, e.Target = hop.Addr, hop.Kind, hop.Authority
	}
	return e
}

func isTimeout(err error) bool {
	t, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return ok && t.Timeout()
}

// addrPort is a net.Addr as a netip.AddrPort, zero when it is none.
func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return ap
}

var (
	_ net.Conn      = (*Conn)(nil)
	_ io.ReaderFrom = (*Conn)(nil)
	_ io.WriterTo   = (*Conn)(nil)
)
