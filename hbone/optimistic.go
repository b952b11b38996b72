package hbone

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/net/http2"
)

// maxKept is how much of what is written before the answer is kept, so that it can be sent again elsewhere.
const maxKept = 16 << 10

// optimistic is a tunnel that its user has before the peer has answered. As long as no peer acts on the CONNECT it is opened again on
// another connection, from the Read or Write on that learns of it.
type optimistic struct {
	settled atomic.Bool   // answered 200: nothing is kept, s and way stay
	writing chan struct{} // holds a token of who writes, which keeps what is written in order; before mu

	mu       sync.Mutex // guards the fields below; never held across I/O
	s        *h2.Stream
	next     *h2.Stream // where it is opened again, while that is given what was kept
	way      *way
	kept     []byte
	first    [64]byte // of kept, which a short request needs no more than
	over     bool     // more was written than is kept
	sent     bool     // something was given to s
	ended    bool     // CloseWrite
	closed   bool
	err      error // why the tunnel never stood
	attempts int
	network  string          // of DialContext, which has this tried again
	ctx      context.Context // its own, for the values in it; nil: it was not DialContext, or the answer is there
	retry    *retry          // once it was
	read     time.Time       // deadlines
	write    time.Time
	opening  chan struct{} // not nil while it is opened again; closed afterwards
	cancel   context.CancelCauseFunc
	poke     chan struct{} // closed when a deadline changes or the tunnel is closed, while it is opened again
}

func newOptimistic(s *h2.Stream, w *way) *optimistic {
	o := &optimistic{s: s, way: w, attempts: 1, writing: make(chan struct{}, 1)}
	o.kept = o.first[:0]
	return o
}

// now is where the tunnel is. settled says that it stays there.
func (o *optimistic) now() (s *h2.Stream, w *way) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.s, o.way
}

// Read is Conn.Read before the answer has been seen.
func (o *optimistic) Read(p []byte) (int, error) {
	for {
		o.mu.Lock()
		s, err := o.s, o.err
		o.mu.Unlock()
		if err != nil {
			return 0, err
		}
		n, err := s.Read(p)
		o.look(s)
		if n > 0 || err == nil || !o.again(s, err) {
			return n, err
		}
		if err := o.await(true); err != nil {
			return 0, err
		}
	}
}

// Write is Conn.Write before the answer has been seen.
func (o *optimistic) Write(p []byte) (int, error) {
	n, s, err := o.send(p)
	if err == nil || !o.again(s, err) {
		return n, err
	}
	// What was kept is sent again, so it counts as written, also when the deadline comes first.
	if err := o.await(false); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, err
	}
	return len(p), nil
}

// turn waits for the token of who writes. Another Write gives it back by its deadline; what was kept has none, so that this one looks itself.
func (o *optimistic) turn() error {
	for {
		o.mu.Lock()
		poke, by, closed := o.poke, o.write, o.closed
		o.mu.Unlock()
		if closed {
			return net.ErrClosed
		}
		select {
		case o.writing <- struct{}{}:
			return nil
		default:
		}
		var late <-chan time.Time
		if poke != nil && !by.IsZero() {
			timer := time.NewTimer(time.Until(by))
			defer timer.Stop() // one for each change of the deadline
			late = timer.C
		}
		select {
		case o.writing <- struct{}{}:
			return nil
		case <-poke:
		case <-late:
			return os.ErrDeadlineExceeded
		}
	}
}

// send keeps p, where there is room for it, and writes it.
func (o *optimistic) send(p []byte) (int, *h2.Stream, error) {
	if err := o.turn(); err != nil {
		return 0, nil, err
	}
	defer func() { <-o.writing }()
	o.mu.Lock()
	s, before, err := o.s, len(o.kept), o.err
	if err != nil {
		o.mu.Unlock()
		return 0, s, err
	}
	o.keep(p)
	o.mu.Unlock()
	n, err := s.Write(p)
	o.look(s)
	if err != nil && !o.unsent(s, err) {
		o.mu.Lock()
		if !o.passing(s, err) {
			o.kept = o.kept[:min(len(o.kept), before+n)] // the user will write the rest again, or not
		}
		o.mu.Unlock()
	}
	return n, s, err
}

// keep keeps p, which is about to be written, if there is room for it; mu is held.
func (o *optimistic) keep(p []byte) {
	if o.opening == nil && len(p) > 0 {
		o.sent = true
	}
	switch {
	case o.over || o.settled.Load():
	case len(o.kept)+len(p) > maxKept:
		o.over, o.kept = true, nil
	default:
		o.kept = append(o.kept, p...)
	}
}

// closeWrite is Conn.CloseWrite before the answer has been seen.
func (o *optimistic) closeWrite() error {
	o.mu.Lock()
	if o.opening != nil { // the end will follow what was kept
		o.ended = true
		o.mu.Unlock()
		return nil
	}
	o.mu.Unlock()
	if err := o.turn(); err != nil {
		return err
	}
	defer func() { <-o.writing }()
	o.mu.Lock()
	o.ended = true
	s, err := o.s, o.err
	o.mu.Unlock()
	if err != nil {
		return err
	}
	if err := s.CloseWrite(); err != nil && !o.again(s, err) {
		return err
	}
	return nil
}

// close ends the tunnel and what opens it again, and says where it is.
func (o *optimistic) close() *h2.Stream {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	if o.cancel != nil {
		o.cancel(net.ErrClosed)
	}
	if o.next != nil {
		o.next.Reset(http2.ErrCodeCancel) // ends the writing of what was kept
	}
	o.nudge()
	return o.s
}

// deadline sets one or both, now and wherever the tunnel goes.
func (o *optimistic) deadline(t time.Time, read, write bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.nudge()
	var err error
	if read {
		o.read = t
		err = o.s.SetReadDeadline(t)
	}
	if write {
		o.write = t
		err = errors.Join(err, o.s.SetWriteDeadline(t))
	}
	return err
}

// nudge wakes who awaits; mu is held.
func (o *optimistic) nudge() {
	if o.poke != nil {
		close(o.poke)
		o.poke = make(chan struct{})
	}
}

// look frees what was kept when the peer has answered.
func (o *optimistic) look(s *h2.Stream) {
	if !s.Stands() {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.s == s {
		o.kept, o.ctx = nil, nil
		o.settled.Store(true)
		if o.retry != nil {
			o.retry.d.retried()
			o.retry = nil
		}
	}
}

// unsent reports whether err, which s ended with, says that nobody has acted on the tunnel, and that it may be opened again.
func (o *optimistic) unsent(s *h2.Stream, err error) bool {
	if errors.Is(err, h2.ErrUnprocessed) {
		return true
	}
	if !refusedByPeer(err) {
		return false
	}
	now, w := o.now()
	return s != now || w.overtaken(err) // elsewhere it is for that reason
}

// passing reports whether err, which s ended with, is a refusal of the moment, so that the tunnel may be opened again on the way that is right by then; mu is
// held. Of a connection that was lost nobody knows what it has delivered, unless nothing was written.
func (o *optimistic) passing(s *h2.Stream, err error) bool {
	if _, refused := errors.AsType[*h2.StatusError](err); !refused {
		if _, lost := errors.AsType[*h2.LostError](err); !lost || o.sent && o.s == s && o.opening == nil {
			return false
		}
	}
	return o.ctx != nil && o.way.d.retryWithin() > 0 && !s.Stands() && passing(o.way.hop().fail(o.way.link.peer, true, err))
}

// again reports whether the tunnel is, or has been, opened again after s ended with err.
func (o *optimistic) again(s *h2.Stream, err error) bool {
	unsent := o.unsent(s, err)
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case !unsent && !o.passing(s, err):
		return false
	case o.s != s || o.opening != nil:
		return true
	case o.over || o.closed || o.err != nil:
		return false
	}
	values := context.Background()
	if o.ctx != nil {
		values = context.WithoutCancel(o.ctx)
	}
	ctx, cancel := context.WithCancelCause(values)
	o.cancel, o.opening, o.poke = cancel, make(chan struct{}), make(chan struct{})
	go o.reopen(ctx)
	return true
}

// await waits until the tunnel has been opened again.
func (o *optimistic) await(read bool) error {
	for {
		o.mu.Lock()
		opening, poke, by, closed, err := o.opening, o.poke, o.write, o.closed, o.err
		if read {
			by = o.read
		}
		o.mu.Unlock()
		switch {
		case closed:
			return net.ErrClosed
		case opening == nil:
			return err
		}
		var late <-chan time.Time
		if !by.IsZero() {
			timer := time.NewTimer(time.Until(by))
			defer timer.Stop() // one for each change of the deadline
			late = timer.C
		}
		select {
		case <-opening:
		case <-poke:
		case <-late:
			return os.ErrDeadlineExceeded
		}
	}
}

// reopen opens the tunnel again on another connection.
func (o *optimistic) reopen(ctx context.Context) {
	s, w, err := o.restart(ctx)
	o.writing <- struct{}{}
	defer func() { <-o.writing }()
	if err == nil {
		// Nobody else writes meanwhile, and no deadline is set: a part of it would spoil the tunnel.
		o.mu.Lock()
		kept, closed := o.kept, o.closed
		o.next = s
		o.mu.Unlock()
		if len(kept) > 0 && !closed {
			_, _ = s.Write(kept) // what ends the stream will be seen by the next Read or Write
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if err == nil && o.ended && !o.closed {
		_ = s.CloseWrite()
	}
	o.cancel(nil)
	close(o.opening)
	o.cancel, o.opening, o.poke, o.next = nil, nil, nil, nil
	switch {
	case err != nil:
		o.err = err
	case o.closed:
		s.Reset(http2.ErrCodeCancel)
	default:
		_ = s.SetReadDeadline(o.read)
		_ = s.SetWriteDeadline(o.write)
		if from, to := o.way.route.Endpoint, w.route.Endpoint; from != to {
			if from != nil {
				from.Closed()
			}
			if to != nil {
				to.Opened()
			}
		}
		o.s, o.way, o.sent = s, w, len(o.kept) > 0
	}
}

// restart sends the CONNECT again: on the same way while nobody has acted on it, else on the one that is right by now.
func (o *optimistic) restart(ctx context.Context) (*h2.Stream, *way, error) {
	s, before := o.now()
	route, last := before.route, s.Answer()
	o.mu.Lock()
	passing, again := o.passing(s, last), o.ctx != nil
	o.mu.Unlock()
	err := error(before.hop().fail(before.link.peer, true, last))
	if !passing {
		var w *way
		if s, w, err = o.restartOn(ctx, before.d, &route, before.pc, before.link.peer, last); err == nil || !again {
			return s, w, err
		}
	}
	if o.retry == nil {
		o.retry = &retry{d: before.d, network: o.network, address: route.Target, begun: time.Now()}
	}
	for {
		next, ok := o.retry.next(ctx, &route, err)
		if !ok {
			return nil, nil, o.retry.gaveUp(&route, err)
		}
		route, o.attempts = next, 0
		var w *way
		if s, w, err = o.restartOn(ctx, before.d, &route, nil, spiffeid.ID{}, nil); err == nil {
			return s, w, nil
		}
	}
}

// restartOn sends the CONNECT along a route. avoid, where not nil, is the connection that it was on before, with peer; last is what that ended with.
func (o *optimistic) restartOn(ctx context.Context, d *Dialer, route *Route, avoid *pooled, peer spiffeid.ID, last error) (*h2.Stream, *way, error) {
	hop := &route.Hops[len(route.Hops)-1]
	for o.attempts < maxAttempts { // only restart uses it
		o.attempts++
		if len(route.Hops) > 1 { // what is inside of another tunnel ends with it
			conn, err := d.tunnel(ctx, route)
			if err != nil {
				return nil, nil, err
			}
			return &conn.own, conn.currentWay(), nil
		}
		pc, _, err := d.pool().get(ctx, d, hop, avoid)
		if errors.Is(err, errOvertaken) {
			last = err
			continue
		}
		if err != nil {
			if last != nil {
				err = fmt.Errorf("%w; and no other connection: %w", last, err)
			}
			failed := hop.fail(peer, false, err)
			if route.Endpoint != nil && unreachable(failed) {
				route.Endpoint.Failed(time.Now())
			}
			return nil, nil, failed
		}
		next := pc.way(d, route)
		s, err := pc.h2.Start(next.fields)
		if err == nil {
			return s, next, nil
		}
		pc.drop()
		last = err
		if !errors.Is(err, h2.ErrUnprocessed) && !next.overtaken(err) {
			return nil, nil, hop.fail(pc.link.peer, true, err)
		}
	}
	return nil, nil, hop.fail(peer, false, last)
}
