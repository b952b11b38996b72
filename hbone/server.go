package hbone

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// maxHandshakes bounds the peers that have connected and not yet shown who they are.
const maxHandshakes = 512

// Server ends HBONE tunnels: it forwards them (Connect) or hands them over as connections (Admit and Accept; a Server is a net.Listener).
// Set its fields before the first use. The zero value has no identity and serves nobody; a Server without Connect and Admit refuses every tunnel.
type Server struct {
	// Identity is who we are and whom we trust. Required.
	Identity Identity
	// Connect decides one CONNECT and returns the connection to forward to, which the Server then owns. It is called in a goroutine of its own after
	// TLS has verified the peer; 200 is sent when it has returned. ctx ends when the peer gives the tunnel up. A *Refusal
	// chooses the answer, any other error is 503. Without Connect and Admit every tunnel is refused with 403. ForwardLocal makes one.
	Connect func(ctx context.Context, r *ConnectRequest) (net.Conn, error)
	// Admit decides one CONNECT whose tunnel Accept then returns, and otherwise is as Connect. When both are set Connect is used.
	Admit func(ctx context.Context, r *ConnectRequest) error
	// MaxStreams is how many tunnels a connection may carry at once. Zero means 200.
	MaxStreams uint32
	// HandshakeTimeout bounds a TLS handshake. Zero means 10 s; negative is not allowed and means 10 s too.
	HandshakeTimeout time.Duration
	// IdleTimeout ends a connection that carries no tunnel for so long. Zero means 10 min; negative never.
	IdleTimeout time.Duration
	// Trace is told what happens. It may be nil.
	Trace *Trace

	once    sync.Once
	stopped chan struct{} // closed by Shutdown and Close
	accepts chan *Conn

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

func (s *Server) init() {
	s.once.Do(func() {
		s.stopped, s.accepts = make(chan struct{}), make(chan *Conn, backlog)
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
	if s.closed || len(s.handshakes) >= maxHandshakes {
		return false
	}
	s.handshakes[nc] = struct{}{}
	s.wg.Add(1)
	return true
}

// serve is one connection.
func (s *Server) serve(nc net.Conn, config *tls.Config) {
	defer s.wg.Done()
	start := s.Trace.now()
	tc, li, err := s.handshake(nc, config)
	s.Trace.handshakeDone(addrPort(nc.RemoteAddr()), li, start, err)
	s.mu.Lock()
	delete(s.handshakes, nc)
	if err != nil || s.closed {
		s.mu.Unlock()
		nc.Close()
		return
	}
	c := h2.NewServer(tc, h2.Config{MaxStreams: s.MaxStreams}, func(st *h2.Stream) { s.tunnel(st, li) })
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	s.watchIdle(c)
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.Trace.connClosed(li, c.Stats().Age, c.Err())
}

// watchIdle waits for the end of c, and drains it when it is of no use for long.
func (s *Server) watchIdle(c *h2.Conn) {
	keep := s.idleTimeout()
	if keep < 0 {
		<-c.Done()
		return
	}
	tick := time.NewTicker(keep)
	defer tick.Stop()
	for {
		select {
		case <-c.Done():
			return
		case <-tick.C:
			if c.Streams() == 0 {
				ctx, cancel := context.WithTimeout(context.Background(), s.handshakeTimeout())
				_ = c.Shutdown(ctx) // a peer that does not answer is closed
				cancel()
			}
		}
	}
}

func (s *Server) handshake(nc net.Conn, config *tls.Config) (net.Conn, *link, error) {
	ctx, cancel := context.WithTimeout(context.Background(), s.handshakeTimeout())
	defer cancel()
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
	return tc, &link{local: nc.LocalAddr(), remote: nc.RemoteAddr(), self: svid.ID, peer: peer}, nil
}

// tunnel is one CONNECT from its request to its end, or until Accept has it.
func (s *Server) tunnel(st *h2.Stream, l *link) {
	r, err := newConnectRequest(st, l)
	r.start = s.Trace.now()
	if err != nil {
		s.refuse(st, r, &Refusal{Status: http.StatusBadRequest, Err: err})
		return
	}
	switch ctx := (tunnelContext{st}); {
	case s.Connect != nil:
		s.forward(ctx, st, r)
	case s.Admit != nil:
		if err := s.Admit(ctx, r); err != nil {
			s.refuse(st, r, err)
			return
		}
		s.offer(st, r)
	default:
		s.refuse(st, r, &Refusal{Status: http.StatusForbidden, Err: errors.New("the Server has neither Connect nor Admit")})
	}
}

// forward joins a tunnel with the connection that Connect makes.
func (s *Server) forward(ctx context.Context, st *h2.Stream, r *ConnectRequest) {
	backend, err := s.Connect(ctx, r)
	if err == nil && backend == nil {
		err = errors.New("hbone: Server.Connect returned no connection")
	}
	if err != nil {
		s.refuse(st, r, err)
		return
	}
	if err := st.Respond(); err != nil {
		abort(backend)
		return
	}
	s.stands(r)
	splice(st, backend)
}

// tunnelContext ends with its tunnel.
type tunnelContext struct{ st *h2.Stream }

// Deadline is there for context.Context: there is none.
func (tunnelContext) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done is closed when the tunnel has ended.
func (c tunnelContext) Done() <-chan struct{} { return c.st.Done() }

// Err is context.Canceled when the tunnel has ended.
func (c tunnelContext) Err() error {
	select {
	case <-c.st.Done():
		return context.Canceled
	default:
		return nil
	}
}

// Value is there for context.Context: there are none.
func (tunnelContext) Value(any) any { return nil }

func (s *Server) refuse(st *h2.Stream, r *ConnectRequest, err error) {
	status := http.StatusServiceUnavailable
	if refusal, ok := errors.AsType[*Refusal](err); ok {
		status = refusal.status()
	}
	_ = st.Refuse(status) // a peer that is gone needs no answer
	s.Trace.answered(r.link, r.Authority, r, status, r.start, err)
}

// stands tells of a tunnel that was answered 200.
func (s *Server) stands(r *ConnectRequest) {
	s.Trace.answered(r.link, r.Authority, r, http.StatusOK, r.start, nil)
}

// Shutdown stops listening and drains: peers are told to open no further tunnels, those that are open go on. It returns when all
// have ended, or closes what is left and returns ctx's cause.
func (s *Server) Shutdown(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, c := range s.stop() {
		wg.Go(func() { _ = c.Shutdown(ctx) }) // the only error is ctx's
	}
	wg.Wait()
	s.wg.Wait()
	return context.Cause(ctx)
}

// Close ends every connection and tunnel at once and waits for their goroutines.
func (s *Server) Close() error {
	for _, c := range s.stop() {
		c.Close()
	}
	s.wg.Wait()
	return nil
}

// stop closes listeners and handshakes under way and lists the connections.
func (s *Server) stop() []*h2.Conn {
	s.init()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.stopped)
		s.turnAway()
	}
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
