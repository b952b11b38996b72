package hbone

import (
	"net/netip"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Trace is told what a Dialer or a Server does. Each function may be nil; they are called outside all locks, from several goroutines at
// once, and hold up what they are told of: they must be quick. A shared connection's events go to the Trace of the Dialer that made it.
type Trace struct {
	// HandshakeDone is called when a connection stands, or could not be made: at a Dialer TCP and TLS, at a Server TLS.
	HandshakeDone func(TraceConn)
	// ConnClosed is called when a connection that stood has ended.
	ConnClosed func(TraceConn)
	// GotConn is called when a dial has a connection to its first hop; reused says that it did not have to wait for one.
	GotConn func(c TraceConn, reused bool)
	// Connected is called when a tunnel stands: a CONNECT was answered 200. With Dialer.Optimistic it is not called.
	Connected func(TraceTunnel)
	// Refused is called when a CONNECT came to nothing, and at a Dialer also for each attempt that is made again elsewhere.
	Refused func(TraceTunnel)
	// Retrying is called when a dial is to be tried again: it was refused for the moment, see Dialer.RetryWithin, or its first hop could not be reached; and when a
	// Transport is to send a request again that a waypoint has ended in place of an answer.
	Retrying func(TraceRetry)
}

// TraceConn is a connection.
type TraceConn struct {
	Local, Remote netip.AddrPort // Local is zero when there was none
	Peer          spiffeid.ID    // zero before the handshake is done
	Took          time.Duration  // HandshakeDone: the handshake; ConnClosed: its life; GotConn: the wait
	Err           error          // HandshakeDone: why there is none; ConnClosed: why it ended
}

// TraceTunnel is a CONNECT.
type TraceTunnel struct {
	Conn    TraceConn       // that it is on
	Target  string          // CONNECT authority
	Request *ConnectRequest // at a Server; nil at a Dialer
	Status  int             // 200, or the refusal; 0: there was no answer
	Took    time.Duration   // from the CONNECT to its answer
	Err     error           // Refused: why
}

// TraceRetry is a dial, or a request, that is to be tried again.
type TraceRetry struct {
	Address   string        // what was dialled
	Try       int           // which one it is to be: 2 is the first again
	Elsewhere bool          // another way than those before
	Waited    time.Duration // since the one before came to nothing
	Err       error         // what that came to
}

func (l *link) trace() TraceConn {
	return TraceConn{Local: addrPort(l.local), Remote: addrPort(l.remote), Peer: l.peer}
}

// handshakeDone tells of a connection to or from remote.
func (t *Trace) handshakeDone(remote netip.AddrPort, l *link, start time.Time, err error) {
	if t == nil || t.HandshakeDone == nil {
		return
	}
	c := TraceConn{Remote: remote}
	if err == nil {
		c = l.trace()
	}
	c.Took, c.Err = time.Since(start), err
	t.HandshakeDone(c)
}

func (t *Trace) connClosed(l *link, age time.Duration, err error) {
	if t == nil || t.ConnClosed == nil {
		return
	}
	c := l.trace()
	c.Took, c.Err = age, err
	t.ConnClosed(c)
}

func (t *Trace) gotConn(l *link, start time.Time, reused bool) {
	if t == nil || t.GotConn == nil {
		return
	}
	c := l.trace()
	c.Took = time.Since(start)
	t.GotConn(c, reused)
}

// answered tells of a CONNECT.
func (t *Trace) answered(l *link, target string, r *ConnectRequest, status int, start time.Time, err error) {
	if t == nil {
		return
	}
	f := t.Connected
	if status != 200 || err != nil {
		f = t.Refused
	}
	if f != nil {
		f(TraceTunnel{Conn: l.trace(), Target: target, Request: r, Status: status, Took: time.Since(start), Err: err})
	}
}

// now is the time, where somebody will ask how long it took.
func (t *Trace) now() time.Time {
	if t == nil {
		return time.Time{}
	}
	return time.Now()
}
