package h2

import (
	"io"
	"net"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/internal/bufpool"
)

// One read from the connection asks for as much as comes at once, within these bounds. The buffer is borrowed while there are bytes in it.
const (
	leastAhead = 16 << 10
	mostAhead  = 128 << 10
)

// Gather is a net.Conn to put beneath crypto/tls: it joins the records of one batch into one write to the connection, and reads ahead.
// Until NewClient or NewServer finds it, Write goes straight through, so that a handshake is never held back; from then on, records are
// kept until the engine flushes them.
type Gather struct {
	nc  net.Conn
	raw rawConn // I/O that does not wait; nil where the connection beneath has none

	in    *bufpool.Buf // the reading goroutine's: bytes r to w
	r, w  int
	ahead int    // what the next read asks for
	idle  func() // called before a read that waits; nil before the engine took over, and there is no reading ahead
	dry   bool   // Read does not wait but gives errDry
	err   error  // what wait found, for the next Read
	load  reading

	mu     sync.Mutex // guards the fields below
	notify func()     // tells the engine of a record that it did not ask for (KeyUpdate, an alert); nil before it took over
	held   bool       // the engine is writing and will flush
	out    *bufpool.Buf
	n      int // bytes in out
	sent   int // of these, written
}

// NewGather wraps nc, which it owns from now on.
func NewGather(nc net.Conn) *Gather {
	g := &Gather{nc: nc, ahead: leastAhead, load: reading{waits: true}}
	g.raw = newRawConn(g)
	return g
}

// NetConn is the connection beneath.
func (g *Gather) NetConn() net.Conn { return g.nc }

// LocalAddr is the connection's.
func (g *Gather) LocalAddr() net.Addr { return g.nc.LocalAddr() }

// RemoteAddr is the connection's.
func (g *Gather) RemoteAddr() net.Addr { return g.nc.RemoteAddr() }

// SetDeadline sets the connection's.
func (g *Gather) SetDeadline(t time.Time) error { return g.nc.SetDeadline(t) }

// SetReadDeadline sets the connection's.
func (g *Gather) SetReadDeadline(t time.Time) error { return g.nc.SetReadDeadline(t) }

// SetWriteDeadline sets the connection's.
func (g *Gather) SetWriteDeadline(t time.Time) error { return g.nc.SetWriteDeadline(t) }

// errDry says that nothing is read ahead. It is temporary as a deadline is: crypto/tls lets its caller try again.
var errDry net.Error = dryError{}

type dryError struct{}

func (dryError) Error() string   { return "nothing was read ahead" }
func (dryError) Timeout() bool   { return true }
func (dryError) Temporary() bool { return true }

// Read gives what was read ahead, or reads ahead.
func (g *Gather) Read(p []byte) (int, error) {
	if g.r == g.w {
		switch {
		case g.err != nil:
			return 0, g.err
		case g.dry:
			return 0, errDry
		case g.idle == nil:
			return g.nc.Read(p) // a handshake, which may never end: it holds nothing here
		}
		g.idle()
		if err := g.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, g.in.B[g.r:g.w])
	if g.r += n; g.r == g.w {
		g.in.Free()
		g.in = nil
	}
	return n, nil
}

// wait reads ahead; it waits for bytes. What goes wrong is for the next Read to tell, so that TLS has its say in it.
func (g *Gather) wait() {
	if g.r == g.w {
		g.err = g.fill()
	}
}

func (g *Gather) fill() error {
	if g.raw != nil {
		return g.raw.fill()
	}
	buf := bufpool.Get(g.ahead)
	n, err := g.nc.Read(buf.B[:g.ahead])
	if n == 0 {
		buf.Free()
		if err == nil {
			err = io.ErrNoProgress
		}
		return err
	}
	g.filled(buf, n)
	return nil // an error comes back with the next read
}

// filled takes a buffer with n bytes.
func (g *Gather) filled(buf *bufpool.Buf, n int) {
	g.in, g.r, g.w = buf, 0, n
	switch {
	case n == g.ahead:
		g.ahead = min(4*g.ahead, mostAhead)
	case n < g.ahead/8:
		g.ahead = max(g.ahead/4, leastAhead)
	}
}

// forget gives back what was read ahead, when the reading goroutine ends.
func (g *Gather) forget() {
	if g.in != nil {
		g.in.Free()
		g.in, g.r, g.w = nil, 0, 0
	}
}

// Write keeps p until the next flush once the engine has taken over.
func (g *Gather) Write(p []byte) (int, error) {
	g.mu.Lock()
	if g.notify == nil {
		g.mu.Unlock()
		return g.nc.Write(p)
	}
	g.append(p)
	held := g.held
	g.mu.Unlock()
	if !held {
		g.notify()
	}
	return len(p), nil
}

// append keeps p; mu is held.
func (g *Gather) append(p []byte) {
	if g.out == nil {
		g.out, g.n, g.sent = bufpool.Get(len(p)), 0, 0
	}
	if need := g.n + len(p); need > len(g.out.B) {
		size := 64 << 10
		for size < need {
			size *= 4
		}
		grown := bufpool.Get(size)
		copy(grown.B, g.out.B[:g.n])
		g.out.Free()
		g.out = grown
	}
	g.n += copy(g.out.B[g.n:], p)
}

// attach gives both sides to an engine, before it starts to read.
func (g *Gather) attach(notify, idle func()) {
	g.mu.Lock()
	g.notify = notify
	g.mu.Unlock()
	g.idle = idle
}

// hold begins a batch of about size bytes, which the engine will flush.
func (g *Gather) hold(size int) {
	g.mu.Lock()
	g.held = true
	if g.out == nil {
		g.out, g.n, g.sent = bufpool.Get(size), 0, 0
	}
	g.mu.Unlock()
}

// release ends the batch.
func (g *Gather) release() {
	g.mu.Lock()
	g.held = false
	g.mu.Unlock()
}

// kept reports whether there is something to flush.
func (g *Gather) kept() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.out != nil && g.sent < g.n
}

// tryFlush writes what the connection takes at once, and reports whether that was all. One goroutine flushes at a time.
func (g *Gather) tryFlush() (bool, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.out == nil {
		return true, nil
	}
	if g.raw == nil {
		return false, nil
	}
	err := g.raw.tryWrite()
	if g.sent < g.n {
		return false, err
	}
	g.out.Free()
	g.out = nil
	return true, err
}

// flush writes everything, and waits for it. Records that come meanwhile follow.
func (g *Gather) flush() error {
	for {
		g.mu.Lock()
		buf, n, sent := g.out, g.n, g.sent
		g.out = nil
		g.mu.Unlock()
		if buf == nil {
			return nil
		}
		var err error
		if sent < n {
			_, err = g.nc.Write(buf.B[sent:n])
		}
		buf.Free()
		if err != nil {
			return err
		}
	}
}

// Close closes the connection, after a last try to write what is kept.
func (g *Gather) Close() error {
	if g.mu.TryLock() {
		if g.out != nil {
			if g.raw != nil {
				_ = g.raw.tryWrite() // last words: nobody waits for a peer that does not take them
			}
			g.out.Free()
			g.out = nil
		}
		g.mu.Unlock()
	}
	return g.nc.Close()
}

// CloseWrite ends our direction where the connection beneath can do so, else both.
func (g *Gather) CloseWrite() error {
	if half, ok := g.nc.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return g.Close()
}

// rawConn is I/O that does not wait.
type rawConn interface {
	fill() error     // one read into g.in, which is borrowed once there are bytes; it waits for them
	tryWrite() error // writes g.out from g.sent on until the connection takes no more; g.mu is held
}

var _ net.Conn = (*Gather)(nil)
