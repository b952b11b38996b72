package hbone

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Conn is a tunnel. It is a net.Conn with CloseWrite, at both ends; the user closes it. Methods may be called from several goroutines.
//
// Read gives io.EOF only after the other end has ended its direction. When the tunnel was reset or its connection lost
// before, Read gives a *TunnelError that is syscall.ECONNRESET: what was read is not all there was.
type Conn struct {
	own   h2.Stream   // unless early has gone elsewhere
	way   *way        // at a client, unless early is set; else nil
	in    *inbound    // at a server; else nil
	early *optimistic // with Dialer.Optimistic; else nil
	// prev and next are the Dialer's list of tunnels, under its mu; nil outside it.
	prev, next *Conn
}

// link is what the tunnels of one connection have in common.
type link struct {
	local, remote net.Addr
	self, peer    spiffeid.ID
	last          atomic.Pointer[inbound]           // at a server
	before        atomic.Pointer[hpack.HeaderField] // at a server: of the CONNECT before
	usual         atomic.Pointer[usual]             // at a server
	review        review
}

// at is where the tunnel is. settled is false while that may change.
func (c *Conn) at() (s *h2.Stream, settled bool) {
	switch {
	case c.early == nil:
		return &c.own, true
	case c.early.settled.Load():
		return c.early.s, true
	}
	s, _ = c.early.now()
	return s, false
}

func (c *Conn) currentWay() *way {
	if c.early == nil {
		return c.way
	}
	_, w := c.early.now()
	return w
}

func (c *Conn) link() *link {
	if c.in != nil {
		return c.in.link
	}
	return c.currentWay().link
}

// Read reads from the tunnel; see Conn for its ends.
func (c *Conn) Read(p []byte) (n int, err error) {
	if s, settled := c.at(); settled {
		n, err = s.Read(p)
	} else {
		n, err = c.early.Read(p)
	}
	return n, c.explain("read", err)
}

// Write returns once the last byte is on its way to the connection.
func (c *Conn) Write(p []byte) (n int, err error) {
	if s, settled := c.at(); settled {
		n, err = s.Write(p)
	} else {
		n, err = c.early.Write(p)
	}
	return n, c.explain("write", err)
}

// ReadFrom sends what r gives until that ends, with buffers that are borrowed; see io.ReaderFrom. It does not end our direction. Its errors are
// those of Write, and r's.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	s, settled := c.at()
	if !settled {
		return copyThrough(c, r)
	}
	n, err := s.ReadFrom(r)
	return n, c.explainCopy("write", err)
}

// WriteTo gives w what the tunnel brings until that ends; see io.WriterTo. Its errors are those of Read, and w's.
func (c *Conn) WriteTo(w io.Writer) (int64, error) {
	s, settled := c.at()
	if !settled {
		return copyThrough(w, c)
	}
	n, err := s.WriteTo(w)
	return n, c.explainCopy("read", err)
}

// CloseWrite ends our direction, as FIN does; the other goes on.
func (c *Conn) CloseWrite() error {
	s, settled := c.at()
	if !settled {
		return c.explain("close", c.early.closeWrite())
	}
	return c.explain("close", s.CloseWrite())
}

// Close ends the tunnel. What Write took is still sent. It does not wait for the peer.
func (c *Conn) Close() error { return c.end().Close() }

// Reset ends the tunnel at once; the other end sees ECONNRESET.
func (c *Conn) Reset() { c.end().Reset(http2.ErrCodeCancel) }

// end forgets the tunnel, whose stream is to be closed.
func (c *Conn) end() *h2.Stream {
	s := &c.own
	if c.early != nil {
		s = c.early.close() // from now on it goes nowhere else, which its leaving counts on
	}
	c.leave()
	return s
}

// LocalAddr is our end of the TCP connection that carries the tunnel.
func (c *Conn) LocalAddr() net.Addr { return c.link().local }

// RemoteAddr is the other end of the TCP connection that carries the tunnel: at a client the first hop, not the target.
func (c *Conn) RemoteAddr() net.Addr { return c.link().remote }

// LocalIdentity is whom we showed ourselves to be.
func (c *Conn) LocalIdentity() spiffeid.ID { return c.link().self }

// PeerIdentity is whom the other end showed itself to be: at a client the last hop.
func (c *Conn) PeerIdentity() spiffeid.ID { return c.link().peer }

// Route is the way that was taken; zero at a server. The caller must not change it.
func (c *Conn) Route() Route {
	if c.in != nil {
		return Route{}
	}
	return c.currentWay().route
}

// Request is the CONNECT that opened the tunnel at a server, with what the peer claims; nil at a client.
func (c *Conn) Request() *ConnectRequest {
	if c.in == nil {
		return nil
	}
	return c.in.request(&c.own)
}

// SetDeadline sets both deadlines, as for a net.Conn.
func (c *Conn) SetDeadline(t time.Time) error { return c.setDeadline(t, true, true) }

// SetReadDeadline sets the deadline of Read.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadline(t, true, false) }

// SetWriteDeadline sets the deadline of Write.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(t, false, true) }

func (c *Conn) setDeadline(t time.Time, read, write bool) error {
	s, settled := c.at()
	switch {
	case !settled:
		return c.early.deadline(t, read, write)
	case read && write:
		return s.SetDeadline(t)
	case read:
		return s.SetReadDeadline(t)
	default:
		return s.SetWriteDeadline(t)
	}
}

// explain makes what the engine says an error of this package.
func (c *Conn) explain(op string, err error) error {
	if err == nil || err == io.EOF { //nolint:errorlint // io.EOF is never wrapped, and net.Conn's users compare it
		return err
	}
	if _, ok := errors.AsType[*DialError](err); ok {
		return err
	}
	l := c.link()
	if errors.Is(err, net.ErrClosed) || isTimeout(err) {
		return &net.OpError{Op: op, Net: "hbone", Source: l.local, Addr: l.remote, Err: err}
	}
	e := &TunnelError{Op: op, Peer: l.peer, Err: err}
	if c.in != nil {
		e.Hop, e.Target = addrPort(l.remote), c.in.authority
		return e
	}
	hop := c.currentWay().hop()
	if _, ok := errors.AsType[*h2.StatusError](err); ok || errors.Is(err, h2.ErrUnprocessed) { // the tunnel never stood
		return hop.fail(l.peer, ok, err)
	}
	e.Hop, e.Kind, e.Target = hop.Addr, hop.Kind, hop.Authority
	return e
}

// explainCopy is explain for an error that may be of what was copied from or to.
func (c *Conn) explainCopy(op string, err error) error {
	switch err.(type) { //nolint:errorlint // what is wrapped has been explained where it came from
	case *h2.ResetError, *h2.LostError, *h2.StatusError:
		return c.explain(op, err)
	}
	if err == net.ErrClosed || err == os.ErrDeadlineExceeded { //nolint:errorlint // as above
		return c.explain(op, err)
	}
	return err
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
