package hbone

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/net/http2"
)

// Conn is a tunnel. It is a net.Conn with CloseWrite; the user closes it. Methods may be called from several goroutines.
//
// Read gives io.EOF only after the other end has ended its direction. When the tunnel was reset or its connection lost
// before, Read gives a *TunnelError that is syscall.ECONNRESET: what was read is not all there was.
type Conn struct {
	s             *h2.Stream
	local, remote net.Addr
	self, peer    spiffeid.ID
	hop           Hop
	route         Route
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

// CloseWrite ends our direction, as FIN does; the other goes on.
func (c *Conn) CloseWrite() error { return c.explain("close", c.s.CloseWrite()) }

// Close ends the tunnel. What Write took is still sent. It does not wait for the peer.
func (c *Conn) Close() error { return c.s.Close() }

// Reset ends the tunnel at once; the other end sees ECONNRESET.
func (c *Conn) Reset() { c.s.Reset(http2.ErrCodeCancel) }

// LocalAddr is our end of the TCP connection that carries the tunnel.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is the HBONE listener at the other end of the TCP connection: the first hop, not the target.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// LocalIdentity is whom we showed ourselves to be.
func (c *Conn) LocalIdentity() spiffeid.ID { return c.self }

// PeerIdentity is whom the last hop showed itself to be.
func (c *Conn) PeerIdentity() spiffeid.ID { return c.peer }

// Route is the way that was taken. The caller must not change it.
func (c *Conn) Route() Route { return c.route }

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
		return &net.OpError{Op: op, Net: "hbone", Source: c.local, Addr: c.remote, Err: err}
	}
	return &TunnelError{Op: op, Hop: c.hop.Addr, Kind: c.hop.Kind, Target: c.hop.Authority, Peer: c.peer, Err: err}
}

func isTimeout(err error) bool {
	t, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return ok && t.Timeout()
}

// TunnelError ends a tunnel that had opened.
type TunnelError struct {
	Op     string // read, write or close
	Hop    netip.AddrPort
	Kind   HopKind
	Target string
	Peer   spiffeid.ID
	Err    error
}

func (e *TunnelError) Error() string {
	text := fmt.Sprintf("hbone: %s tunnel to %s through %s %s (%s): %v", e.Op, e.Target, e.Kind, e.Hop, e.Peer, e.Err)
	reset, ok := errors.AsType[*h2.ResetError](e.Err)
	switch {
	case ok && reset.Remote && reset.Code == http2.ErrCodeConnect:
		text += ": the peer could not reach the target, or its policy denies the connection"
	case ok && reset.Remote && reset.Code == http2.ErrCodeCancel:
		text += ": the peer ended it; a policy may deny it now"
	}
	return text
}

// Unwrap gives the cause.
func (e *TunnelError) Unwrap() error { return e.Err }

// fields is the header list of a CONNECT.
func (d *Dialer) fields(hop Hop, route Route, local net.Addr) []Field {
	list := make([]Field, 0, 4+len(hop.Header))
	list = append(list, Field{":method", "CONNECT"}, Field{":authority", hop.Authority})
	if d.Baggage != "" {
		list = append(list, Field{"baggage", d.Baggage})
	}
	forwarded := fmt.Sprintf("for=%q", local)
	if route.Service != "" {
		forwarded += ";host=" + route.Service
	}
	list = append(list, Field{"forwarded", forwarded})
	return append(list, hop.Header...)
}

var _ net.Conn = (*Conn)(nil)
