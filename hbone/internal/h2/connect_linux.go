package h2

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/net/http2/hpack"
)

// Connect makes a TCP connection to addr, answers the stream with 200 and fields, and forwards from then on as Join does. It waits until the
// connection stands, or the stream has ended. After an error the stream is not answered; ErrCannotConnect is for addresses with a zone.
func (s *Stream) Connect(addr netip.AddrPort, fields ...hpack.HeaderField) error {
	if addr.Addr().Zone() != "" {
		return ErrCannotConnect
	}
	fd, stands, err := dial(addr)
	if err != nil {
		return dialError(addr, err)
	}
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	j, err := c.join()
	if err != nil {
		syscall.Close(fd)
		return err
	}
	f := j.hold(s, fd)
	if f.closing {
		return s.recvErr()
	}
	f.writable = stands
	if !stands {
		f.watched, f.pending = true, getWaiter(nil)
	}
	err = j.add(f)
	if err == nil && !stands {
		err = f.await()
	}
	if err == nil && !f.closing && toItself(fd, addr) {
		err, f.aborted = os.NewSyscallError("connect", syscall.ECONNREFUSED), true // a reset, so that the port is free at once
	}
	switch {
	case f.closing:
		return s.recvErr()
	case err != nil:
		f.closing = true
		f.settle()
		return dialError(addr, err)
	}
	if err := s.queueAnswer(200, fields); err != nil {
		f.abort()
		return err
	}
	f.up()
	f.down()
	c.flushSoon(len(c.streams) > 1)
	return nil
}

// await waits for the connection, or the end of the stream. mu is held, but meanwhile.
func (f *forward) await() error {
	c, w := f.s.c, f.pending
	for !f.writable && !f.closing && !f.nobody {
		c.mu.Unlock()
		w.wait()
		c.mu.Lock()
	}
	f.pending = nil
	w.free()
	if f.closing {
		return nil
	}
	errno, err := syscall.GetsockoptInt(f.fd, syscall.SOL_SOCKET, syscall.SO_ERROR)
	switch {
	case err != nil:
		return os.NewSyscallError("getsockopt", err)
	case errno != 0:
		return os.NewSyscallError("connect", syscall.Errno(errno))
	case !f.writable:
		return errors.New("the peer has given up") // nobody
	}
	return nil
}

// dial begins a connection, and reports whether it stands already, as one to this machine does.
func dial(addr netip.AddrPort) (fd int, stands bool, err error) {
	family, to := sockaddr(addr)
	fd, err = syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, false, os.NewSyscallError("socket", err)
	}
	options := dialOptions
	if addr.Addr().Unmap().IsLoopback() {
		options = options[:1]
	}
	for _, o := range options {
		if err := syscall.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			syscall.Close(fd)
			return -1, false, os.NewSyscallError("setsockopt", err)
		}
	}
	err = syscall.Connect(fd, to)
	if err == syscall.EINPROGRESS {
		err = syscall.Connect(fd, to) // has it come to stand meanwhile?
	}
	switch err {
	case nil, syscall.EISCONN:
		return fd, true, nil
	case syscall.EALREADY, syscall.EINTR:
		return fd, false, nil
	}
	syscall.Close(fd)
	return -1, false, os.NewSyscallError("connect", err)
}

// toItself reports whether a connection has both ends in one socket: TCP makes that of a port that nobody listens on, when the system has just chosen
// it for our end. It would echo, and keep the application from its port.
func toItself(fd int, addr netip.AddrPort) bool {
	if addr.Port() < 1024 { // not among those that are chosen from
		return false
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		return false
	}
	switch name := name.(type) {
	case *syscall.SockaddrInet4:
		return name.Port == int(addr.Port()) && netip.AddrFrom4(name.Addr) == addr.Addr().Unmap()
	case *syscall.SockaddrInet6:
		return name.Port == int(addr.Port()) && netip.AddrFrom16(name.Addr) == addr.Addr()
	}
	return false
}

// dialOptions are those of package net: small packets leave at once, and an application that is gone without a word is found, which cannot be
// so on this machine.
var dialOptions = []struct{ level, name, value int }{
	{syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1},
	{syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
	{syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, 15},
	{syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, 15},
}

func sockaddr(addr netip.AddrPort) (family int, to syscall.Sockaddr) {
	port := int(addr.Port())
	if ip := addr.Addr().Unmap(); ip.Is4() {
		return syscall.AF_INET, &syscall.SockaddrInet4{Port: port, Addr: ip.As4()}
	}
	return syscall.AF_INET6, &syscall.SockaddrInet6{Port: port, Addr: addr.Addr().As16()}
}

func dialError(addr netip.AddrPort, err error) error {
	return &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(addr), Err: err}
}
