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

// Server ends HBONE tunnels and forwards them. Set its fields before Serve. The zero value has no identity and serves nobody; a
// Server without Connect refuses every tunnel.
type Server struct {
	// Identity is who we are and whom we trust. Required.
	Identity Identity
	// Connect decides one CONNECT and returns the connection to forward to, which the Server then owns. It is called in a goroutine of its own after
	// TLS has verified the peer; 200 is sent when it has returned. ctx ends when the peer gives the tunnel up. A *Refusal
	// chooses the answer, any other error is 503. Nil refuses every tunnel with 403. ForwardLocal makes one.
	Connect func(ctx context.Context, r *ConnectRequest) (net.Conn, error)
	// MaxStreams is how many tunnels a connection may carry at once. Zero means 200.
	MaxStreams uint32
	// HandshakeTimeout bounds a TLS handshake. Zero means 10 s; negative is not allowed and means 10 s too.
	HandshakeTimeout time.Duration
	// IdleTimeout ends a connection that carries no tunnel for so long. Zero means 10 min; negative never.
	IdleTimeout time.Duration
	// Refused is called, where set, for each CONNECT that was not answered 200, outside all locks.
	Refused func(r *ConnectRequest, status int, err error)

	mu         sync.Mutex // guards the fields below
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

// Serve takes connections from l until it is closed, and closes it. It blocks; after Shutdown or Close the error is net.ErrClosed.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	if s.Identity == nil {
		return errors.New("hbone: the Server has no Identity")
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errServerClosed
	}
	if s.listeners == nil {
		s.listeners, s.conns, s.handshakes = map[net.Listener]struct{}{}, map[*h2.Conn]struct{}{}, map[net.Conn]struct{}{}
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
	tc, peer, err := s.handshake(nc, config)
	s.mu.Lock()
	delete(s.handshakes, nc)
	if err != nil || s.closed {
		s.mu.Unlock()
		nc.Close()
		return
	}
	c := h2.NewServer(tc, h2.Config{MaxStreams: s.MaxStreams}, func(st *h2.Stream) { s.tunnel(st, nc, peer) })
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	s.watchIdle(c)
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
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

func (s *Server) handshake(nc net.Conn, config *tls.Config) (net.Conn, spiffeid.ID, error) {
	ctx, cancel := context.WithTimeout(context.Background(), s.handshakeTimeout())
	defer cancel()
	tc := tls.Server(nc, config)
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, spiffeid.ID{}, err
	}
	id, err := spiffeid.FromURI(tc.ConnectionState().PeerCertificates[0].URIs[0]) // VerifyConnection saw it
	return tc, id, err
}

// tunnel is one CONNECT from its request to its end.
func (s *Server) tunnel(st *h2.Stream, nc net.Conn, peer spiffeid.ID) {
	r, err := newConnectRequest(st, nc, peer)
	if err != nil {
		s.refuse(st, r, &Refusal{Status: http.StatusBadRequest, Err: err})
		return
	}
	if s.Connect == nil {
		s.refuse(st, r, &Refusal{Status: http.StatusForbidden, Err: errors.New("the Server has no Connect")})
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stop := make(chan struct{})
	go func() {
		select {
		case <-st.Done():
			cancel()
		case <-stop:
		}
	}()
	backend, err := s.Connect(ctx, r)
	close(stop)
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
	splice(st, backend)
}

func (s *Server) refuse(st *h2.Stream, r *ConnectRequest, err error) {
	status := http.StatusServiceUnavailable
	if refusal, ok := errors.AsType[*Refusal](err); ok {
		status = refusal.status()
	}
	_ = st.Refuse(status) // a peer that is gone needs no answer
	if s.Refused != nil {
		s.Refused(r, status, err)
	}
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
