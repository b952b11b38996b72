//go:build linux

package h2

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// connecting is a connection whose server forwards to addr, and what Connect gave.
func connecting(t *testing.T, addr netip.AddrPort) (*Conn, *Conn, <-chan error) {
	outcome := make(chan error, 16)
	client, server := gathered(t, Config{}, Config{}, func(s *Stream) {
		err := s.Connect(addr)
		if err != nil {
			_ = s.Refuse(503)
		}
		outcome <- err
	})
	return client, server, outcome
}

func TestConnectForwards(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1", "::ffff:127.0.0.1"} {
		t.Run(host, func(t *testing.T) {
			l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
			if err != nil && os.Getenv("CI") != "true" {
				t.Skip(err) // no IPv6 here
			}
			if err != nil {
				t.Fatalf("CI must have it, IPv6 on loopback as well: %v", err)
			}
			defer l.Close()
			port := l.Addr().(*net.TCPAddr).AddrPort().Port()
			client, _, outcome := connecting(t, netip.AddrPortFrom(netip.MustParseAddr(host), port))
			s, err := client.Open(t.Context(), connect("10.0.0.1:80"))
			if err != nil {
				t.Fatal(err)
			}
			if err := <-outcome; err != nil {
				t.Fatal(err)
			}
			app, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			write4(t, app)
			read4(t, s)
			write4(t, s)
			read4(t, app)
			s.Close()
			wantEnd(t, app, nil)
			app.Close()
		})
	}
}

func TestConnectSaysWhatIsWrong(t *testing.T) {
	client, server, outcome := connecting(t, netip.MustParseAddrPort("127.0.0.1:1"))
	_, err := client.Open(t.Context(), connect("10.0.0.1:80"))
	if status, ok := errors.AsType[*StatusError](err); !ok || status.Status != 503 {
		t.Errorf("Open gave %v", err)
	}
	if err := <-outcome; !errors.Is(err, syscall.ECONNREFUSED) || err.Error() != "dial tcp 127.0.0.1:1: connect: connection refused" {
		t.Errorf("Connect gave %v", err)
	}
	server.serving.Wait()
	server.mu.Lock()
	defer server.mu.Unlock()
	if server.handlers != 0 {
		t.Errorf("%d handlers are left", server.handlers)
	}
}

// full is an address that takes no connection until room is called.
func full(t *testing.T) (addr netip.AddrPort, room func()) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(name.(*syscall.SockaddrInet4).Port))
	first, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { first.Close() })
	return addr, func() {
		for range 2 {
			in, _, err := syscall.Accept(fd)
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { syscall.Close(in) })
		}
	}
}

// A connection that does not stand at once is waited for.
func TestConnectWaits(t *testing.T) {
	addr, room := full(t)
	client, server, outcome := connecting(t, addr)
	s, err := client.Start(connect("10.0.0.1:80"))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is waiting", func() bool {
		server.mu.Lock()
		defer server.mu.Unlock()
		for _, s := range server.streams {
			return s.forward() != nil && s.forward().pending != nil
		}
		return false
	})
	room() // the kernel tries again a second after the first time
	if err := errors.Join(s.Await(t.Context()), <-outcome); err != nil {
		t.Fatal(err)
	}
	s.Reset(http2.ErrCodeCancel)
}

// A client that gives up, with or without an end, ends what is being connected.
func TestConnectEndsWithItsStream(t *testing.T) {
	for name, end := range map[string]func(s *Stream, server *Conn){
		"reset": func(s *Stream, _ *Conn) { s.Reset(http2.ErrCodeCancel) },
		"closed": func(s *Stream, _ *Conn) {
			_, _ = s.Write([]byte("x"))
			_ = s.CloseWrite()
			s.Reset(http2.ErrCodeCancel)
		},
		"dropped": func(_ *Stream, server *Conn) { server.fail(io.ErrClosedPipe) },
	} {
		t.Run(name, func(t *testing.T) {
			addr, _ := full(t)
			before := sockets(t)
			client, server, outcome := connecting(t, addr)
			s, err := client.Start(connect("10.0.0.1:80"))
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "it is connecting", func() bool { return sockets(t) > before+2 })
			select {
			case err := <-outcome:
				t.Fatalf("Connect returned %v", err)
			case <-time.After(20 * time.Millisecond): // a real clock: the kernel is part of this
			}
			end(s, server)
			if err := <-outcome; err == nil {
				t.Error("it was answered")
			}
			client.Close()
			server.Close()
			if n := sockets(t); n > before {
				t.Errorf("%d sockets are left", n-before)
			}
		})
	}
}

// A port that nobody listens on may be the one that the system chooses for our end: then TCP makes a connection to itself, which is none.
func TestAConnectionToItselfIsKnown(t *testing.T) {
	for _, family := range []int{syscall.AF_INET, syscall.AF_INET6} {
		fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer syscall.Close(fd)
		var own syscall.Sockaddr = &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
		if family == syscall.AF_INET6 {
			own = &syscall.SockaddrInet6{Addr: [16]byte{15: 1}}
		}
		if err := syscall.Bind(fd, own); err != nil {
			continue // no IPv6 here
		}
		name, err := syscall.Getsockname(fd)
		if err == nil {
			err = syscall.Connect(fd, name)
		}
		if err != nil {
			t.Fatal(err)
		}
		var addr netip.AddrPort
		switch name := name.(type) {
		case *syscall.SockaddrInet4:
			addr = netip.AddrPortFrom(netip.AddrFrom4(name.Addr), uint16(name.Port))
		case *syscall.SockaddrInet6:
			addr = netip.AddrPortFrom(netip.AddrFrom16(name.Addr), uint16(name.Port))
		}
		if !toItself(fd, addr) {
			t.Errorf("a connection of %v to itself is taken for one", addr)
		}
		if other := netip.AddrPortFrom(addr.Addr(), addr.Port()^1); toItself(fd, other) {
			t.Errorf("one to %v is not", other)
		}
	}
}
