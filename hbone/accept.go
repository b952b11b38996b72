package hbone

import (
	"errors"
	"net"
	"net/http"

	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
)

// backlog is how many tunnels that Admit let in may wait for Accept; further ones wait for room, unanswered.
const backlog = 128

// Accept returns the next tunnel that Admit let in, a *Conn; 200 is sent by it. It blocks until there is one, or until the Server is closed
// or has been shut down: net.ErrClosed. Go on with it during Shutdown. Serve must run beside it.
func (s *Server) Accept() (net.Conn, error) {
	s.init()
	for {
		select {
		case <-s.stopped:
			return nil, errServerClosed
		default:
		}
		select {
		case c := <-s.accepts:
			if err := c.s.Respond(s.answer()...); err != nil {
				c.s.Close() // the peer has given up
				continue
			}
			s.stands(c.req)
			return c, nil
		case <-s.stopped:
			return nil, errServerClosed
		}
	}
}

// Addr is the address of the first listener that Serve was given, an empty one before.
func (s *Server) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.addr == nil {
		return &net.TCPAddr{}
	}
	return s.addr
}

// offer hands a tunnel to Accept.
func (s *Server) offer(st *h2.Stream, c *Conn) {
	select {
	case s.accepts <- c: // most often there is room, and nothing to be made to wait with
		return
	default:
	}
	select {
	case s.accepts <- c:
	case <-st.Done():
	case <-s.stopped:
		s.refuse(st, c.req, &Refusal{Status: http.StatusServiceUnavailable, Err: errors.New("the server is closing")})
	}
}

// halt ends Accept, and refuses what waits for it.
func (s *Server) halt() {
	s.haltOnce.Do(func() { close(s.stopped) })
	for {
		select {
		case c := <-s.accepts:
			s.refuse(c.s, c.req, &Refusal{Status: http.StatusServiceUnavailable, Err: errors.New("the server is closing")})
		default:
			return
		}
	}
}

var _ net.Listener = (*Server)(nil)
