package hbone

import (
	"errors"
	"net"
	"net/http"
)

// backlog is how many tunnels may wait for Accept after they were answered; further ones wait for room, unanswered.
const backlog = 128

// Accept returns the next tunnel that Admit let in, a *Conn, which the caller closes. Like a TCP connection it stands already, and may have
// ended. Accept blocks until there is one, or until the Server is closed or has been shut down: net.ErrClosed. Go on with it during Shutdown.
// Serve must run beside it.
func (s *Server) Accept() (net.Conn, error) {
	s.init()
	select {
	case <-s.stopped:
		return nil, errServerClosed
	default:
	}
	select {
	case c := <-s.accepts:
		<-s.room
		return c, nil
	case <-s.stopped:
		return nil, errServerClosed
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

// offer answers a tunnel and hands it to Accept.
func (s *Server) offer(c *Conn, r *ConnectRequest) {
	st := &c.own
	select {
	case s.room <- struct{}{}: // most often there is room, and nothing to be made to wait with
	default:
		select {
		case s.room <- struct{}{}:
		case <-st.Done():
			return
		case <-s.stopped:
			s.refuse(st, r, &Refusal{Status: http.StatusServiceUnavailable, Err: errors.New("the server is closing")})
			return
		}
	}
	if err := st.RespondSoon(s.beside...); err != nil {
		<-s.room
		st.Close() // the peer has given up
		return
	}
	s.stands(r)
	c.in = r.in
	s.accepts <- c
	st.Flush() // by now there may be more to send, since the peer may have written behind its CONNECT
}

// halt ends Accept, and resets what waits for it.
func (s *Server) halt() {
	s.haltOnce.Do(func() { close(s.stopped) })
	for {
		select {
		case c := <-s.accepts:
			<-s.room
			c.Reset()
		default:
			return
		}
	}
}

var _ net.Listener = (*Server)(nil)
