package hbone

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
)

// rotationSpread is the time in which a server drains its connections after its identity has changed, each at its own moment.
const rotationSpread = time.Minute

// arrival is a Conn whose CONNECT has just come.
type arrival Conn

// Stream is there for h2.Tunnel.
func (a *arrival) Stream() *h2.Stream { return &a.own }

// Serve is there for h2.Tunnel.
func (a *arrival) Serve() { a.in.server.tunnel((*Conn)(a)) }

// arrivals makes the tunnels of a connection.
func (s *Server) arrivals(l *link) func() h2.Tunnel {
	first := &inbound{link: l, server: s}
	return func() h2.Tunnel { return &arrival{in: first} }
}

// tunnel is one CONNECT from its request to its end, or until Accept has it.
func (s *Server) tunnel(c *Conn) {
	st := &c.own
	r, err := newConnectRequest(st, c.in.link)
	r.start = s.Trace.now()
	if err != nil {
		s.refuse(st, r, &Refusal{Status: http.StatusBadRequest, Err: err})
		return
	}
	switch ctx := (tunnelContext{st}); {
	case s.Forward != nil:
		s.forward(ctx, st, r)
	case s.Connect != nil:
		s.connect(ctx, st, r)
	case s.Admit != nil:
		if err := s.Admit(ctx, r); err != nil {
			s.refuse(st, r, err)
			return
		}
		s.offer(c, r)
	default:
		s.refuse(st, r, &Refusal{Status: http.StatusForbidden, Err: errors.New("the Server has neither Forward nor Connect nor Admit")})
	}
}

// forward connects to where Forward says, and joins the tunnel with that.
func (s *Server) forward(ctx context.Context, st *h2.Stream, r *ConnectRequest) {
	addr, err := s.Forward(ctx, r)
	if err == nil && !addr.IsValid() {
		err = errors.New("hbone: Server.Forward returned no address")
	}
	if err != nil {
		s.refuse(st, r, err)
		return
	}
	switch err := st.Connect(addr, s.beside...); {
	case err == nil:
		s.stands(r)
	case errors.Is(err, h2.ErrCannotConnect):
		backend, err := new(net.Dialer).DialContext(ctx, "tcp", addr.String())
		s.join(st, r, backend, err)
	default:
		s.refuse(st, r, err)
	}
}

// connect joins a tunnel with the connection that Connect makes.
func (s *Server) connect(ctx context.Context, st *h2.Stream, r *ConnectRequest) {
	backend, err := s.Connect(ctx, r)
	if err == nil && backend == nil {
		err = errors.New("hbone: Server.Connect returned no connection")
	}
	s.join(st, r, backend, err)
}

// join answers a tunnel and joins it with a connection, if there is one.
func (s *Server) join(st *h2.Stream, r *ConnectRequest, backend net.Conn, err error) {
	if err != nil {
		s.refuse(st, r, err)
		return
	}
	if err := st.Respond(s.beside...); err != nil {
		abort(backend)
		return
	}
	s.stands(r)
	if !st.Join(backend) {
		splice(st, backend)
	}
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
	s.Trace.answered(r.in.link, r.Authority, r, status, r.start, err)
}

// stands tells of a tunnel that was answered 200.
func (s *Server) stands(r *ConnectRequest) {
	s.Trace.answered(r.in.link, r.Authority, r, http.StatusOK, r.start, nil)
}

// watch waits for the end of c, and drains it when it is old, of no use for long, or made with an identity that has changed since.
// A peer that is believed no more loses it at once.
func (s *Server) watch(c *h2.Conn, l *link, changed <-chan struct{}) {
	drain := s.untilDrain(c, l, changed)
	if drain {
		c.Drain()
	}
	l.reviewUntil(c.Done(), c)
	if drain {
		_ = c.Shutdown(context.Background()) // its end is all there is to know
	}
}

// untilDrain returns when c is to be drained, or false when it has ended or its end has begun.
func (s *Server) untilDrain(c *h2.Conn, l *link, changed <-chan struct{}) bool {
	age := jittered(s.MaxAge, time.Hour)
	old := time.NewTimer(max(age, time.Millisecond))
	defer old.Stop()
	if age <= 0 {
		old.Stop()
	}
	var tick <-chan time.Time
	keep := s.idleTimeout()
	if keep > 0 {
		ticker := time.NewTicker(max(keep/4, time.Millisecond))
		defer ticker.Stop()
		tick = ticker.C
	}
	busy, opened := time.Now(), uint64(0)
	for {
		select {
		case <-c.Done():
			return false
		case <-c.GoingAway():
			return false
		case <-l.review.again:
			l.lookAgain(c)
		case <-old.C:
			return true
		case <-changed:
			changed = nil
			old.Reset(time.Duration(rand.Int64N(int64(rotationSpread))))
		case now := <-tick:
			if stats := c.Stats(); stats.Streams > 0 || stats.Opened != opened {
				busy, opened = now, stats.Opened
			}
			if now.Sub(busy) >= keep {
				// What comes at this moment is served; a peer that does not answer is closed.
				ctx, cancel := context.WithTimeout(context.Background(), s.handshakeTimeout())
				_ = c.Shutdown(ctx)
				cancel()
				return false
			}
		}
	}
}
