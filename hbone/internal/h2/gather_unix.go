//go:build unix

package h2

import (
	"io"
	"net"
	"os"
	"syscall"

	"github.com/isthmus-mesh/isthmus/hbone/internal/bufpool"
)

// fdConn reads and writes a file descriptor through Go's poller.
type fdConn struct {
	g     *Gather
	rc    syscall.RawConn
	read  func(fd uintptr) bool // made once: a closure a call would be an allocation a call
	write func(fd uintptr) bool
	rerr  error
	werr  error
}

// newRawConn gives nil where there is no such thing.
func newRawConn(g *Gather) rawConn {
	rc := rawOf(g.nc)
	if rc == nil {
		return nil
	}
	f := &fdConn{g: g, rc: rc}
	f.read, f.write = f.readReady, f.writeReady
	return f
}

func (f *fdConn) fill() error {
	if err := f.rc.Read(f.read); err != nil {
		return err
	}
	return f.rerr
}

func (f *fdConn) readReady(fd uintptr) bool {
	buf := bufpool.Get(f.g.ahead)
	for {
		n, err := syscall.Read(int(fd), buf.B[:f.g.ahead])
		switch {
		case err == syscall.EINTR:
			continue
		case n > 0:
			f.g.load.got(n)
			f.g.filled(buf, n)
			f.rerr = nil
			return true
		}
		buf.Free()
		if err == syscall.EAGAIN {
			f.g.load.pause()
			return false
		}
		f.rerr = io.EOF
		if err != nil {
			f.rerr = f.fail("read", err)
		}
		return true
	}
}

func (f *fdConn) tryWrite() error {
	f.werr = nil
	if err := f.rc.Write(f.write); err != nil {
		return err
	}
	return f.werr
}

func (f *fdConn) writeReady(fd uintptr) bool {
	g := f.g
	for g.sent < g.n {
		n, err := syscall.Write(int(fd), g.out.B[g.sent:g.n])
		switch {
		case n > 0:
			g.sent += n
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return true
		default:
			f.werr = f.fail("write", err)
			return true
		}
	}
	return true
}

func (f *fdConn) fail(op string, err error) error {
	nc := f.g.nc
	return &net.OpError{Op: op, Net: nc.LocalAddr().Network(), Source: nc.LocalAddr(), Addr: nc.RemoteAddr(), Err: os.NewSyscallError(op, err)}
}
