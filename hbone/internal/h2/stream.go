package h2

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Stream is one tunnel. Read and Write may be called from different goroutines, as for a net.Conn. There may be a hundred thousand that do
// nothing: what only some need is made when they do.
type Stream struct {
	c        *Conn
	rmu, wmu sync.Mutex // one reader, one writer at a time

	// The connection's mu guards the rest.
	next         *Stream // in the outbox
	in           inbox
	rw, ww       *waiter       // the Read and the Write that wait
	answered     chan struct{} // of who waits for the answer; else nil
	extra        *extra        // nil until something in it is asked for
	fields       *headerList
	ending       *ending // nil while neither direction has failed or ended
	sendWindow   int32   // what we may send; less than nothing when the peer has taken it back
	recvWindow   int32   // what the peer may still send
	consumed     uint32
	window       uint32 // of the peer, what was not read included
	measured     uint32 // bytes consumed since
	measuredFrom uint32 // microseconds of the connection's life; at a server that has not answered: when it was opened, in milliseconds
	id           uint32
	status       uint16 // client: the answer; server: what was answered
	isDone       bool
	recvEnd      bool // END_STREAM came and in ends with it
	wantEnd      bool
	endSent      bool
	queued       bool // in the outbox
	listed       bool // among those whose Read is to be woken
	closedByUser bool
	answeredOnce bool
}

// extra is what few streams have, or few when there are many.
type extra struct {
	done        chan struct{} // nil until asked for
	read, write deadline
	forward     *forward // instead of Reads and Writes, once the stream is joined
}

// forward is what joins the stream with a socket, or nil; mu is held.
func (s *Stream) forward() *forward {
	if s.extra == nil {
		return nil
	}
	return s.extra.forward
}

// more gives the stream's extra; mu is held.
func (s *Stream) more() *extra {
	if s.extra == nil {
		s.extra = &extra{}
	}
	return s.extra
}

// begin makes a zero Stream one of the connection's; mu is held.
func (c *Conn) begin(s *Stream, id uint32) {
	s.c, s.id = c, id
	if !c.client {
		s.measuredFrom = c.age()
	}
	s.window, s.sendWindow = c.cfg.streamWindow(), int32(c.peerWindow)
	s.recvWindow = int32(s.window)
	c.streams[id] = s
	c.opened++
}

// Fields is the peer's header list: of the request at a server, until it is answered; of the answer at a client.
func (s *Stream) Fields() []hpack.HeaderField {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.fields == nil {
		return nil
	}
	return s.fields.fields
}

// closedChan is a channel that is closed.
var closedChan = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// Done is closed when both directions have ended.
func (s *Stream) Done() <-chan struct{} {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.isDone {
		return closedChan
	}
	x := s.more()
	if x.done == nil {
		x.done = make(chan struct{})
	}
	return x.done
}

// Conn is the connection that the stream is on.
func (s *Stream) Conn() *Conn { return s.c }

// Respond answers a CONNECT with 200 and fields; the tunnel stands.
func (s *Stream) Respond(fields ...hpack.HeaderField) error {
	return s.respond(http.StatusOK, fields)
}

// Refuse answers a CONNECT with another status and ends the stream.
func (s *Stream) Refuse(status int, fields ...hpack.HeaderField) error {
	return s.respond(status, fields)
}

func (s *Stream) respond(status int, fields []hpack.HeaderField) error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	err := s.queueAnswer(status, fields)
	s.c.flushSoon(len(s.c.streams) > 1)
	return err
}

// RespondSoon is Respond, but for the sending: the answer goes out with what is written next, or with Flush, which must follow.
func (s *Stream) RespondSoon(fields ...hpack.HeaderField) error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.queueAnswer(http.StatusOK, fields)
}

// Flush sends what RespondSoon left. It does not wait for the peer.
func (s *Stream) Flush() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.flushSoon(len(s.c.streams) > 1)
}

// queueAnswer puts an answer into the outbox; mu is held.
func (s *Stream) queueAnswer(status int, fields []hpack.HeaderField) error {
	c := s.c
	if err := s.sendErr(); err != nil {
		return err
	}
	if s.status != 0 {
		return errors.New("the CONNECT is answered already")
	}
	s.status, s.fields, s.measuredFrom = uint16(status), nil, 0
	if status == http.StatusOK && len(fields) == 0 && !c.encSized {
		c.out.ok(s.id)
	} else {
		list := append([]hpack.HeaderField{{Name: ":status", Value: strconv.Itoa(status)}}, fields...)
		c.writeHeaders(s.id, list, status != http.StatusOK)
	}
	if status != http.StatusOK {
		if !s.recvEnd { // else both sides have ended: nothing may follow
			_ = c.cw.WriteRSTStream(s.id, http2.ErrCodeNo)
		}
		s.endSent = true
		s.end(net.ErrClosed)
		s.forget()
	}
	return nil
}

// SetDeadline sets both deadlines; the zero Time means none.
func (s *Stream) SetDeadline(t time.Time) error {
	_ = s.SetReadDeadline(t)
	return s.SetWriteDeadline(t)
}

// SetReadDeadline ends Reads, also those under way, at t.
func (s *Stream) SetReadDeadline(t time.Time) error {
	s.setDeadline(t, func(x *extra) *deadline { return &x.read }, (*Stream).wakeReader)
	return nil
}

// SetWriteDeadline ends Writes, also those under way, at t.
func (s *Stream) SetWriteDeadline(t time.Time) error {
	s.setDeadline(t, func(x *extra) *deadline { return &x.write }, (*Stream).wakeWriter)
	return nil
}

// WaitDone blocks until both directions have ended or ctx has.
func (s *Stream) WaitDone(ctx context.Context) error {
	select {
	case <-s.Done():
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
