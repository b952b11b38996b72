package hbonetest

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
)

// backlog is how many connections wait for Accept before a dial does.
const backlog = 1024

// Network is a network in memory. The zero value is ready. Methods may be called from several goroutines.
type Network struct {
	// Source is the address that connections come from. Zero means 10.0.0.1.
	Source netip.Addr

	mu        sync.Mutex // guards the fields below
	listeners map[netip.AddrPort]*Listener
	lastPort  uint16
}

// Listener takes the connections to one address. The user closes it.
type Listener struct {
	network *Network
	addr    netip.AddrPort
	queue   chan *Conn
	closed  chan struct{}
	once    sync.Once

	mu    sync.Mutex // guards the fields below
	conns []*Conn    // this end of those that were made
}

// Listen takes addr. It fails with syscall.EADDRINUSE when that is taken.
func (n *Network) Listen(addr netip.AddrPort) (*Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners == nil {
		n.listeners = map[netip.AddrPort]*Listener{}
	}
	if n.listeners[addr] != nil {
		return nil, &net.OpError{Op: "listen", Net: "memory", Addr: net.TCPAddrFromAddrPort(addr), Err: syscall.EADDRINUSE}
	}
	l := &Listener{network: n, addr: addr, queue: make(chan *Conn, backlog), closed: make(chan struct{})}
	n.listeners[addr] = l
	return l, nil
}

// DialContext connects to a listener's "ip:port". Without a listener the error is syscall.ECONNREFUSED. It blocks while the
// listener's queue is full, and obeys ctx.
func (n *Network) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	addr, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("dial %s %s: %w", network, address, err)
	}
	n.mu.Lock()
	l := n.listeners[addr]
	if n.lastPort++; n.lastPort < 32768 {
		n.lastPort = 32768
	}
	from := netip.AddrPortFrom(n.Source, n.lastPort)
	n.mu.Unlock()
	if !n.Source.IsValid() {
		from = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, 1}), from.Port())
	}
	local, remote := net.TCPAddrFromAddrPort(from), net.TCPAddrFromAddrPort(addr)
	refused := &net.OpError{Op: "dial", Net: "memory", Source: local, Addr: remote, Err: syscall.ECONNREFUSED}
	if l == nil {
		return nil, refused
	}
	ours, theirs := connect(local, remote, bufferSize)
	select {
	case l.queue <- theirs:
		l.mu.Lock()
		l.conns = append(l.conns, theirs)
		l.mu.Unlock()
		return ours, nil
	case <-l.closed:
		return nil, refused
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Accept waits for a connection. The error after Close is net.ErrClosed. What Accept returns is a *Conn.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, l.closedError()
	default:
	}
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.closed:
		return nil, l.closedError()
	}
}

func (l *Listener) closedError() error {
	return &net.OpError{Op: "accept", Net: "memory", Addr: l.Addr(), Err: net.ErrClosed}
}

// Close frees the address. Connections that nobody accepted are reset, the others go on.
func (l *Listener) Close() error {
	l.once.Do(func() {
		l.network.mu.Lock()
		delete(l.network.listeners, l.addr)
		l.network.mu.Unlock()
		close(l.closed)
		for {
			select {
			case c := <-l.queue:
				c.Reset()
			default:
				return
			}
		}
	})
	return nil
}

// Vanish is the end of a machine whose last packets are lost: the address is free, and the connections to it are cut. The
// other ends learn nothing.
func (l *Listener) Vanish() {
	l.mu.Lock()
	for _, c := range l.conns {
		c.Cut()
	}
	l.mu.Unlock()
	l.Close()
}

// Made is how many connections were made to the listener so far.
func (l *Listener) Made() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}

// Addr is a *net.TCPAddr.
func (l *Listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

var _ net.Listener = (*Listener)(nil)
