package world

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// NS is a network namespace. Its methods may be called by several goroutines at once.
type NS struct {
	name string

	mu   sync.Mutex // guards file; held for one system call at most
	file *os.File   // nil after Close
}

// NewNS makes a network namespace whose loopback is up. The name is for errors only. The caller closes it; it lives on
// for as long as processes or sockets are in it.
func NewNS(name string) (*NS, error) {
	var file *os.File
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		if err := linkUp("lo"); err != nil {
			return err
		}
		var err error
		file, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make network namespace %s: %w", name, err)
	}
	return &NS{name: name, file: file}, nil
}

// CurrentNS returns the network namespace that the calling process is in. The caller closes it.
func CurrentNS() (*NS, error) {
	file, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("open own network namespace: %w", err)
	}
	return &NS{name: "current", file: file}, nil
}

// onThread runs f on a thread whose network namespace f may change, and gives the thread its former one back. A
// thread that cannot go back ends with its goroutine.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		err := errors.New("the function ended its goroutine")
		defer func() { done <- err }()
		runtime.LockOSThread()
		home, openErr := os.Open("/proc/thread-self/ns/net")
		if openErr != nil {
			runtime.UnlockOSThread()
			err = openErr
			return
		}
		defer func() {
			if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
			home.Close()
		}()
		err = f()
	}()
	return <-done
}

// Name is the name given to NewNS.
func (n *NS) Name() string { return n.name }

// Do runs f in the namespace, on a thread of its own. What f itself creates is in the namespace: sockets, processes;
// goroutines that f starts are not. A panic in f ends the program.
func (n *NS) Do(f func() error) error {
	return onThread(func() error {
		if err := n.enter(); err != nil {
			return err
		}
		return f()
	})
}

// enter moves the calling thread.
func (n *NS) enter() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.file == nil {
		return fmt.Errorf("enter network namespace %s: %w", n.name, os.ErrClosed)
	}
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", n.name, err)
	}
	return nil
}

// Start starts cmd in the namespace. The caller waits for it.
func (n *NS) Start(cmd *exec.Cmd) error { return n.Do(cmd.Start) }

// DialContext connects from inside the namespace. The address is an IP address and a port: names are refused, since
// their look-up would happen elsewhere. It satisfies the dial functions of net/http, grpc and client-go.
func (n *NS) DialContext(ctx context.Context, network, address string) (conn net.Conn, err error) {
	if err := literal(network, address); err != nil {
		return nil, fmt.Errorf("dial %s in network namespace %s: %w", address, n.name, err)
	}
	var d net.Dialer
	err = n.Do(func() error {
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Listen listens inside the namespace on an IP address and a port.
func (n *NS) Listen(network, address string) (l net.Listener, err error) {
	if err := literal(network, address); err != nil {
		return nil, fmt.Errorf("listen on %s in network namespace %s: %w", address, n.name, err)
	}
	var lc net.ListenConfig
	err = n.Do(func() error {
		l, err = lc.Listen(context.Background(), network, address)
		return err
	})
	return l, err
}

// ListenPacket listens for datagrams inside the namespace on an IP address and a port.
func (n *NS) ListenPacket(network, address string) (c net.PacketConn, err error) {
	if err := literal(network, address); err != nil {
		return nil, fmt.Errorf("listen on %s in network namespace %s: %w", address, n.name, err)
	}
	var lc net.ListenConfig
	err = n.Do(func() error {
		c, err = lc.ListenPacket(context.Background(), network, address)
		return err
	})
	return c, err
}

// literal refuses what would make the net package start goroutines before it makes its socket.
func literal(network, address string) error {
	if strings.HasPrefix(network, "unix") {
		return nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if host == "" {
		return nil // all addresses
	}
	if _, err := netip.ParseAddr(host); err != nil {
		return errors.New("only IP addresses, no names")
	}
	return nil
}

// FD is the namespace's file descriptor, valid until Close, or -1 after it. It is what netlink calls to move a link take.
func (n *NS) FD() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.file == nil {
		return -1
	}
	return int(n.file.Fd())
}

// Close lets go of the namespace; the kernel removes it with its last process and socket. A second call does nothing.
func (n *NS) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.file == nil {
		return nil
	}
	err := n.file.Close()
	n.file = nil
	return err
}
