package hbonetest

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// bufferSize is what a connection holds in each direction, as a socket's buffers do.
const bufferSize = 64 << 10

// Conn is one end of a connection in memory. Its endings are those of TCP: Close sends what was written and then the end, or a reset when
// something that came was not read; the other end of a reset reads and writes syscall.ECONNRESET. Methods may be called from
// several goroutines. The user closes it.
type Conn struct {
	in, out       *half
	local, remote net.Addr
	rmu, wmu      sync.Mutex // one reader, one writer at a time
	readBy        deadline
	writeBy       deadline

	mu     sync.Mutex // guards the fields below
	closed bool
	linger int
}

// half is one direction.
type half struct {
	readable, writable chan struct{} // capacity 1

	mu    sync.Mutex // guards the fields below
	buf   []byte
	max   int
	ended bool // the writer has ended it
	gone  bool // the reader has closed
	reset bool
	cut   bool
}

// Pipe is a connected pair. The addresses are those of two ports of 127.0.0.1.
func Pipe() (*Conn, *Conn) {
	a := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1).To4(), Port: 40000}
	b := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1).To4(), Port: 15008}
	return connect(a, b, bufferSize)
}

func connect(a, b net.Addr, size int) (*Conn, *Conn) {
	there, back := newHalf(size), newHalf(size)
	return newConn(back, there, a, b), newConn(there, back, b, a)
}

func newHalf(size int) *half {
	return &half{readable: make(chan struct{}, 1), writable: make(chan struct{}, 1), max: size}
}

func newConn(in, out *half, local, remote net.Addr) *Conn {
	return &Conn{in: in, out: out, local: local, remote: remote, readBy: newDeadline(), writeBy: newDeadline(), linger: -1}
}

// Read reads what the other end wrote; io.EOF follows its CloseWrite or Close.
func (c *Conn) Read(p []byte) (int, error) {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	for {
		if c.isClosed() {
			return 0, c.opError("read", net.ErrClosed)
		}
		if c.readBy.passed() {
			return 0, c.opError("read", os.ErrDeadlineExceeded)
		}
		n, err := c.in.take(p)
		if n > 0 || err == io.EOF || len(p) == 0 { //nolint:errorlint // take returns io.EOF itself
			return n, err
		}
		if err != nil {
			return 0, c.opError("read", err)
		}
		select {
		case <-c.in.readable:
		case <-c.readBy.wait():
		}
	}
}

// take moves bytes out. Zero and nil say that there are none yet.
func (h *half) take(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.reset:
		return 0, syscall.ECONNRESET
	case len(h.buf) > 0:
		n := copy(p, h.buf)
		h.buf = h.buf[n:]
		if len(h.buf) == 0 {
			h.buf = nil
		}
		notify(h.writable)
		return n, nil
	case h.ended && !h.cut:
		return 0, io.EOF
	}
	return 0, nil
}

// Write returns when the buffer has taken all of p.
func (c *Conn) Write(p []byte) (int, error) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	done := 0
	for {
		if c.isClosed() {
			return done, c.opError("write", net.ErrClosed)
		}
		if c.writeBy.passed() {
			return done, c.opError("write", os.ErrDeadlineExceeded)
		}
		n, err := c.out.put(p[done:])
		done += n
		if err != nil {
			return done, c.opError("write", err)
		}
		if done == len(p) {
			return done, nil
		}
		select {
		case <-c.out.writable:
		case <-c.writeBy.wait():
		}
	}
}

func (h *half) put(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.reset:
		return 0, syscall.ECONNRESET
	case h.ended, h.gone && !h.cut:
		return 0, syscall.EPIPE
	}
	n := min(len(p), h.max-len(h.buf))
	h.buf = append(h.buf, p[:n]...)
	if !h.cut {
		notify(h.readable)
	}
	return n, nil
}

// CloseWrite ends our direction; the other goes on.
func (c *Conn) CloseWrite() error {
	if c.isClosed() {
		return c.opError("close", net.ErrClosed)
	}
	c.out.end()
	return nil
}

func (h *half) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
	if !h.cut {
		notify(h.readable)
	}
	notify(h.writable)
}

// Close ends the connection; see Conn. A second Close does nothing.
func (c *Conn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	linger := c.linger
	c.mu.Unlock()
	c.in.mu.Lock()
	unread := len(c.in.buf) > 0 && !c.in.cut
	c.in.buf, c.in.gone = nil, true
	notify(c.in.writable) // the other end's Write
	notify(c.in.readable) // our own Read
	c.in.mu.Unlock()
	if unread || linger == 0 {
		c.abort()
	} else {
		c.out.end()
	}
	notify(c.out.writable) // our own Write
	return nil
}

// Reset ends the connection as a TCP RST does.
func (c *Conn) Reset() {
	_ = c.SetLinger(0)
	c.Close()
}

// SetLinger with 0 makes Close a reset, as for a net.TCPConn; any other value makes it Close's usual end.
func (c *Conn) SetLinger(seconds int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.opError("set", net.ErrClosed)
	}
	c.linger = seconds
	return nil
}

// abort tells the other end of a reset, unless the cable is cut.
func (c *Conn) abort() {
	for _, h := range []*half{c.in, c.out} {
		h.mu.Lock()
		if !h.cut {
			h.reset, h.buf = true, nil
			notify(h.readable)
			notify(h.writable)
		}
		h.mu.Unlock()
	}
}

// Cut lets nothing pass any more, in either direction, and tells neither end: what is written fills the buffer and then blocks,
// what was not read yet is lost.
func (c *Conn) Cut() {
	for _, h := range []*half{c.in, c.out} {
		h.mu.Lock()
		h.cut, h.buf = true, nil
		h.mu.Unlock()
	}
}

func (c *Conn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

func (c *Conn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "memory", Source: c.local, Addr: c.remote, Err: err}
}

// LocalAddr is a *net.TCPAddr.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is a *net.TCPAddr.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline sets both deadlines; the zero Time means none.
func (c *Conn) SetDeadline(t time.Time) error {
	c.readBy.set(t)
	c.writeBy.set(t)
	return nil
}

// SetReadDeadline ends Reads, also those under way, at t.
func (c *Conn) SetReadDeadline(t time.Time) error { c.readBy.set(t); return nil }

// SetWriteDeadline ends Writes, also those under way, at t.
func (c *Conn) SetWriteDeadline(t time.Time) error { c.writeBy.set(t); return nil }

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

var _ net.Conn = (*Conn)(nil)
