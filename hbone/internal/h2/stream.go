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
	next           *Stream // in the outbox
	in             inbox
	rw, ww         *waiter       // the Read and the Write that wait
	answered, done chan struct{} // nil until asked for
	rdl, wdl       *deadline     // nil until set
	fields         *headerList
	ending         *ending // nil while neither direction has failed or ended
	sendWindow     int64
	recvWindow     int32 // what the peer may still send
	consumed       uint32
	window         uint32 // of the peer, what was not read included
	measured       uint32 // bytes consumed since
	measuredFrom   uint32 // microseconds of the connection's life
	id             uint32
	opened         uint32 // age of the connection then
	status         uint16 // client: the answer; server: what was answered
	isDone         bool
	recvEnd        bool // END_STREAM came and in ends with it
	wantEnd        bool
	endSent        bool
	queued         bool // in the outbox
	listed         bool // among those whose Read is to be woken
	closedByUser   bool
	answeredOnce   bool
}

// ending is how the directions of a stream end.
type ending struct {
	recv error // ends reading once in is empty
	send error // ends writing
}

// newStream registers a stream; mu is held.
func (c *Conn) newStream(id uint32) *Stream {
	s := &Stream{c: c, id: id, window: c.cfg.streamWindow(), sendWindow: c.peerWindow, opened: c.age()}
	s.recvWindow = int32(s.window)
	c.streams[id] = s
	c.opened++
	return s
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

// lazily makes a channel in slot that somebody will close, or gives a closed one; mu is held.
func lazily(slot *chan struct{}, closed bool) <-chan struct{} {
	if *slot == nil {
		if closed {
			return closedChan
		}
		*slot = make(chan struct{})
	}
	return *slot
}

// Answered is closed when the peer has answered the CONNECT or the stream has ended.
func (s *Stream) Answered() <-chan struct{} {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return lazily(&s.answered, s.answeredOnce)
}

// Answer is what the peer answered: nil for 200, or when there is no answer yet; a *StatusError; or what ended the stream before, which is
// ErrUnprocessed when the peer did not act on it.
func (s *Stream) Answer() error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	switch {
	case s.status == http.StatusOK:
		return nil
	case s.status != 0:
		return &StatusError{Status: int(s.status)}
	}
	return s.recvErr()
}

// Done is closed when both directions have ended.
func (s *Stream) Done() <-chan struct{} {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return lazily(&s.done, s.isDone)
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
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := s.sendErr(); err != nil {
		return err
	}
	if s.status != 0 {
		return errors.New("the CONNECT is answered already")
	}
	s.status, s.fields = uint16(status), nil
	if status == http.StatusOK && len(fields) == 0 {
		c.out.buf = append(c.out.buf, 0, 0, 1, byte(http2.FrameHeaders), byte(http2.FlagHeadersEndHeaders), byte(s.id>>24), byte(s.id>>16), byte(s.id>>8), byte(s.id), statusOK)
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
	c.flushSoon(len(c.streams) > 1)
	return nil
}

// statusOK is the header field ":status: 200" (RFC 7541, appendix A).
const statusOK = 0x88

func (s *Stream) recvErr() error {
	if s.ending == nil {
		return nil
	}
	return s.ending.recv
}

func (s *Stream) sendErr() error {
	if s.ending == nil {
		return nil
	}
	return s.ending.send
}

func (s *Stream) endings() *ending {
	if s.ending == nil {
		s.ending = &ending{}
	}
	return s.ending
}

// SetDeadline sets both deadlines; the zero Time means none.
func (s *Stream) SetDeadline(t time.Time) error {
	_ = s.SetReadDeadline(t)
	return s.SetWriteDeadline(t)
}

// SetReadDeadline ends Reads, also those under way, at t.
func (s *Stream) SetReadDeadline(t time.Time) error {
	s.setDeadline(&s.rdl, t, (*Stream).wakeReader)
	return nil
}

// SetWriteDeadline ends Writes, also those under way, at t.
func (s *Stream) SetWriteDeadline(t time.Time) error {
	s.setDeadline(&s.wdl, t, (*Stream).wakeWriter)
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
