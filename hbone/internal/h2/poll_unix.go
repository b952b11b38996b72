//go:build unix

package h2

import (
	"io"
	"net"
	"os"
	"syscall"

	"github.com/isthmus-mesh/isthmus/hbone/internal/bufpool"
)

// poller reads from a socket into a buffer that it borrows only when there are bytes.
type poller struct {
	rc   syscall.RawConn
	read func(fd uintptr) bool
	size int
	buf  *bufpool.Buf
	n    int
	err  error
}

// rawOf is for the connections of package net alone, else nil: another type may have a Read or Write of its own that must not be passed by.
func rawOf(c any) syscall.RawConn {
	var sc syscall.Conn
	switch nc := c.(type) {
	case *net.TCPConn:
		sc = nc
	case *net.UnixConn:
		sc = nc
	default:
		return nil
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	return rc
}

// pollReader makes one, or gives nil.
func pollReader(r io.Reader) *poller {
	rc := rawOf(r)
	if rc == nil {
		return nil
	}
	p := &poller{rc: rc}
	p.read = p.ready
	return p
}

// next waits for bytes, and gives the buffer that has them.
func (p *poller) next(size int) (*bufpool.Buf, int, error) {
	p.size, p.buf, p.n, p.err = size, nil, 0, nil
	if err := p.rc.Read(p.read); err != nil {
		return nil, 0, err
	}
	return p.buf, p.n, p.err
}

func (p *poller) ready(fd uintptr) bool {
	buf := bufpool.Get(p.size)
	for {
		n, err := syscall.Read(int(fd), buf.B[:p.size])
		switch {
		case err == syscall.EINTR:
			continue
		case n > 0:
			p.buf, p.n = buf, n
			return true
		}
		buf.Free()
		if err == syscall.EAGAIN {
			return false
		}
		p.err = io.EOF
		if err != nil {
			p.err = os.NewSyscallError("read", err)
		}
		return true
	}
}
