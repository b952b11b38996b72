package hbone

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/net/http2/hpack"
)

// Server ends HBONE tunnels: it forwards them (Forward or Connect) or hands them over as connections (Admit and Accept; a Server is a
// net.Listener). Set its fields before the first use. The zero value has no identity and serves nobody; a Server without Forward, Connect and Admit
// refuses every tunnel.
type Server struct {
	// Identity is who we are and whom we trust. Required.
	Identity Identity
	// Forward decides one CONNECT and returns the address to forward to by TCP. It is called in a goroutine of its own after TLS has verified the
	// peer; 200 is sent when the connection to that address stands. ctx ends when the peer gives the tunnel up. A *Refusal chooses the answer, any
	// other error, and that of the connection, is 503. "return r.Target, r.CheckLocal()" forwards only where a connection was meant to go. Without
	// Forward, Connect and Admit every tunnel is refused with 403.
	Forward func(ctx context.Context, r *ConnectRequest) (netip.AddrPort, error)
	// Connect is as Forward, but makes the connection itself, which the Server then owns; it costs a little more. 200 is sent when it has
	// returned. Of a *net.TCPConn or *net.UnixConn the Server may take the descriptor: then deadlines that were set on it end, and to close it has no
	// effect; to end the tunnel use Abort. When Forward is set Connect is not used. ForwardLocal makes one.
	Connect func(ctx context.Context, r *ConnectRequest) (net.Conn, error)
	// Admit decides one CONNECT whose tunnel Accept then returns, and otherwise is as Forward. When Forward or Connect is set it is not used.
	Admit func(ctx context.Context, r *ConnectRequest) error
	// Baggage is sent with every 200 as a claim about ourselves ("k8s.pod.name=orders,service.name=orders"). Empty sends none.
	Baggage string
	// MaxStreams is how many tunnels a connection may carry at once. Zero means 200.
	MaxStreams uint32
	// MaxHeaderBytes bounds the header list of a CONNECT. Zero means 64 KiB.
	MaxHeaderBytes uint32
	// MaxConns is how many connections there may be at once; further ones are closed at once. One that was lost counts until its applications have
	// what it left them. Zero means 16384; negative sets no limit.
	MaxConns int
	// MaxHandshakes bounds the peers that have connected and not yet shown who they are; further ones are closed at once. Zero means 512; negative sets
	// no limit.
	MaxHandshakes int
	// HandshakeTimeout bounds a TLS handshake, and then the time until the peer's first frame. Zero or less means 10 s.
	HandshakeTimeout time.Duration
	// IdleTimeout ends a connection that carries no tunnel for so long, or up to a quarter longer. Zero means 10 min; negative never.
	IdleTimeout time.Duration
	// MaxAge is when a connection is drained, by chance up to a tenth sooner: the peer is asked to take another, and its tunnels go on. Zero
	// means 1 h; negative never.
	MaxAge time.Duration
	// Trace is told what happens. It may be nil.
	Trace *Trace

	once    sync.Once
	accepts chan *Conn          // answered, and not accepted yet
	room    chan struct{}       // has a token for each of these
	stopped chan struct{}       // closed when Accept has no more to give
	beside  []hpack.HeaderField // what is sent with 200

	haltOnce sync.Once

	mu         sync.Mutex // guards the fields below
	addr       net.Addr
	listeners  map[net.Listener]struct{}
	conns      map[*h2.Conn]struct{}
	handshakes map[net.Conn]struct{}
	closed     bool
	wg         sync.WaitGroup
}

// errServerClosed is what Serve returns after Shutdown or Close.
var errServerClosed = fmt.Errorf("the HBONE server is closed: %w", net.ErrClosed)

func (s *Server) handshakeTimeout() time.Duration {
	if s.HandshakeTimeout <= 0 {
		return 10 * time.Second
	}
	return s.HandshakeTimeout
}

func (s *Server) idleTimeout() time.Duration { return cmp.Or(s.IdleTimeout, 10*time.Minute) }
func (s *Server) maxConns() int              { return noLimit(cmp.Or(s.MaxConns, 1<<14)) }
func (s *Server) maxHandshakes() int         { return noLimit(cmp.Or(s.MaxHandshakes, 512)) }

func noLimit(n int) int {
	if n < 0 {
		return math.MaxInt
	}
	return n
}

func (s *Server) init() {
	s.once.Do(func() {
		s.stopped, s.accepts, s.room = make(chan struct{}), make(chan *Conn, backlog), make(chan struct{}, backlog)
		if s.Baggage != "" {
			s.beside = []hpack.HeaderField{{Name: "baggage", Value: s.Baggage}}
		}
		s.listeners, s.conns, s.handshakes = map[net.Listener]struct{}{}, map[*h2.Conn]struct{}{}, map[net.Conn]struct{}{}
	})
}

// Serve takes connections from l until it is closed, and closes it. It blocks; after Shutdown or Close the error is net.ErrClosed.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	if s.Identity == nil {
		return errors.New("hbone: the Server has no Identity")
	}
	s.init()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errServerClosed
	}
	if s.addr == nil {
		s.addr = l.Addr()
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	config := serverTLS(s.Identity)
	pause := 5 * time.Millisecond
	for {
		nc, err := l.Accept()
		if err != nil {
			s.mu.Lock()
			closed := s.closed
			delete(s.listeners, l)
			s.mu.Unlock()
			if closed {
				return errServerClosed
			}
			if isTimeout(err) || isTooMany(err) { // out of descriptors: others will be closed
				time.Sleep(pause)
				pause = min(2*pause, time.Second)
				s.mu.Lock()
				s.listeners[l] = struct{}{}
				s.mu.Unlock()
				continue
			}
			return fmt.Errorf("hbone: accept: %w", err)
		}
		pause = 5 * time.Millisecond
		if !s.admit(nc) {
			nc.Close()
			continue
		}
		go s.serve(nc, config)
	}
}

// admit counts a handshake in.
func (s *Server) admit(nc net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.handshakes) >= s.maxHandshakes() || len(s.conns)+len(s.handshakes) >= s.maxConns() {
		return false
	}
	s.handshakes[nc] = struct{}{}
	s.wg.Add(1)
	return true
}

// serve is one connection.
func (s *Server) serve(nc net.Conn, config *tls.Config) {
	defer s.wg.Done()
	var changed <-chan struct{}
	if r, ok := s.Identity.(Rotator); ok {
		changed = r.Changed() // before the identity is shown
	}
	start := s.Trace.now()
	tc, li, err := s.handshake(nc, config)
	s.Trace.handshakeDone(addrPort(nc.RemoteAddr()), li, start, err)
	if err != nil {
		linger(nc)
	}
	s.mu.Lock()
	delete(s.handshakes, nc)
	if err != nil || s.closed {
		s.mu.Unlock()
		nc.Close()
		return
	}
	c := h2.NewTunnels(tc, h2.Config{MaxStreams: s.MaxStreams, MaxHeaderBytes: s.MaxHeaderBytes, SettingsTimeout: s.handshakeTimeout()}, s.arrivals(li))
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	s.watch(c, li, changed)
	s.Trace.connClosed(li, c.Stats().Age, c.Err())
	c.WaitServed() // it counts on while an application takes what a client has left behind
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}

const (
	lingerFor   = time.Second
	lingerBytes = 64 << 10
)

// linger ends our side of a connection whose handshake has failed and waits for the peer's end, so that the peer can read why: what it has sent
// meanwhile would, unread, make the kernel reset the connection.
func linger(nc net.Conn) {
	half, ok := nc.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || nc.SetReadDeadline(time.Now().Add(lingerFor)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, nc, lingerBytes)
}

func (s *Server) handshake(nc net.Conn, config *tls.Config) (net.Conn, *link, error) {
	ctx, cancel := context.WithTimeout(context.Background(), s.handshakeTimeout())
	defer cancel()
	rv := newReview(s.Identity)
	tc := tls.Server(h2.NewGather(nc), config)
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, nil, err
	}
	peer, err := spiffeid.FromURI(tc.ConnectionState().PeerCertificates[0].URIs[0]) // VerifyConnection saw it
	if err != nil {
		return nil, nil, err
	}
	svid, err := s.Identity.GetX509SVID()
	if err != nil {
		return nil, nil, err
	}
	rv.chain = tc.ConnectionState().PeerCertificates
	return tc, &link{local: nc.LocalAddr(), remote: nc.RemoteAddr(), self: svid.ID, peer: peer, review: rv}, nil
}

// Shutdown stops listening and drains: peers are told to open no further tunnels, those that are open go on. It returns when all
// have ended, or closes what is left and returns ctx's cause.
func (s *Server) Shutdown(ctx context.Context) error {
	var wg sync.WaitGroup
	var cut atomic.Bool
	for _, c := range s.stop() {
		wg.Go(func() {
			if c.Shutdown(ctx) != nil {
				cut.Store(true)
			}
		})
	}
	wg.Wait()
	s.halt()
	s.wg.Wait()
	if cut.Load() {
		return context.Cause(ctx)
	}
	return nil
}

// Close ends every connection and tunnel at once and waits for their goroutines.
func (s *Server) Close() error {
	list := s.stop()
	s.halt()
	closeAll(list)
	s.wg.Wait()
	return nil
}

// stop closes listeners and handshakes under way and lists the connections.
func (s *Server) stop() []*h2.Conn {
	s.init()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for l := range s.listeners {
		l.Close()
	}
	for nc := range s.handshakes {
		nc.Close()
	}
	var list []*h2.Conn
	for c := range s.conns {
		list = append(list, c)
	}
	return list
}
