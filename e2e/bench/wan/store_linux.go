package wan

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
)

// storesFor gives what holds the bytes between two connections.
func storesFor(dst, src net.Conn) *sync.Pool {
	for _, c := range []net.Conn{dst, src} {
		if _, ok := c.(*net.TCPConn); !ok {
			return buffers
		}
	}
	return pipes
}

// pipe is a store for TCP connections. Bytes pass through it without being copied, so that the line takes little of the processors whose
// ends are to be measured.
type pipe struct {
	r, w int
	n    int
	err  error
	in   func(fd uintptr) bool // made once
	out  func(fd uintptr) bool
}

var pipes = &sync.Pool{New: func() any { return newPipe() }}

// newPipe gives a buffer where there are no descriptors.
func newPipe() store {
	var fds [2]int
	if syscall.Pipe2(fds[:], syscall.O_CLOEXEC|syscall.O_NONBLOCK) != nil {
		return new(buffer)
	}
	const setPipeSize = 1031
	_, _, _ = syscall.Syscall(syscall.SYS_FCNTL, uintptr(fds[1]), setPipeSize, chunkSize) // else it holds less at once
	p := &pipe{r: fds[0], w: fds[1]}
	p.in, p.out = p.take, p.give
	runtime.AddCleanup(p, func(fds [2]int) {
		_ = errors.Join(syscall.Close(fds[0]), syscall.Close(fds[1]))
	}, fds)
	return p
}

func (p *pipe) fill(src net.Conn) (int, error) {
	p.n, p.err = 0, nil
	rc, err := src.(*net.TCPConn).SyscallConn()
	if err == nil {
		err = rc.Read(p.in)
	}
	return p.n, errors.Join(err, p.err)
}

const withoutWaiting = 2 // SPLICE_F_NONBLOCK

func (p *pipe) take(fd uintptr) bool {
	for {
		n, err := syscall.Splice(int(fd), nil, p.w, nil, chunkSize, withoutWaiting)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN: // the pipe is empty, so it is the socket that has nothing
			return false
		case err != nil:
			p.err = os.NewSyscallError("splice", err)
		case n == 0:
			p.err = io.EOF
		default:
			p.n = int(n)
		}
		return true
	}
}

func (p *pipe) drain(dst net.Conn) error {
	rc, err := dst.(*net.TCPConn).SyscallConn()
	if err == nil {
		err = rc.Write(p.out)
	}
	return errors.Join(err, p.err)
}

func (p *pipe) give(fd uintptr) bool {
	for p.n > 0 {
		n, err := syscall.Splice(p.r, nil, int(fd), nil, p.n, withoutWaiting)
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return false
		case err != nil:
			p.err = os.NewSyscallError("splice", err)
			return true
		default:
			p.n -= int(n)
		}
	}
	return true
}

var _ store = (*pipe)(nil)
