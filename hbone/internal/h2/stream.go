package h2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Stream is one tunnel. Read and Write may be called from different goroutines, as for a net.Conn.
type Stream struct {
	c  *Conn
	id uint32

	rmu, wmu     sync.Mutex    // one reader, one writer at a time
	readable     chan struct{} // capacity 1
	writable     chan struct{} // capacity 1
	answered     chan struct{} // client: closed with the answer or the end
	done         chan struct{} // closed when both directions have ended
	readBy       deadline
	writeBy      deadline
	fields       []hpack.HeaderField // the peer's header list
	isDone       bool                // c.mu, as all below
	status       int                 // client: the answer; server: what was answered
	recv         queue
	recvWindow   int64 // what the peer may still send
	consumed     uint32
	recvEnd      bool  // END_STREAM came and recv ends with it
	recvErr      error // ends reading once recv is empty
	pending      []byte
	sendWindow   int64
	sendErr      error // ends writing
	wantEnd      bool
	endSent      bool
	queued       bool // in c.sendable
	closedByUser bool
}

// newStream registers a stream; mu is held.
func (c *Conn) newStream(id uint32) *Stream {
	s := &Stream{
		c: c, id: id,
		readable:   make(chan struct{}, 1),
		writable:   make(chan struct{}, 1),
		answered:   make(chan struct{}),
		done:       make(chan struct{}),
		readBy:     makeDeadline(),
		writeBy:    makeDeadline(),
		recvWindow: int64(c.cfg.streamWindow()),
		sendWindow: c.peerWindow,
	}
	c.streams[id] = s
	c.opened++
	return s
}

// Fields is the peer's header list: of the request at a server, of the answer at a client.
func (s *Stream) Fields() []hpack.HeaderField { return s.fields }

// Answered is closed when the peer has answered the CONNECT or the stream has ended.
func (s *Stream) Answered() <-chan struct{} { return s.answered }

// Answer is what the peer answered: nil for 200, or when there is no answer yet; a *StatusError; or what ended the stream before, which is
// ErrUnprocessed when the peer did not act on it.
func (s *Stream) Answer() error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	switch {
	case s.status == 200:
		return nil
	case s.status != 0:
		return &StatusError{Status: s.status}
	}
	return s.recvErr
}

// Done is closed when both directions have ended.
func (s *Stream) Done() <-chan struct{} { return s.done }

// Conn is the connection that the stream is on.
func (s *Stream) Conn() *Conn { return s.c }

// Respond answers a CONNECT with 200 and fields; the tunnel stands.
func (s *Stream) Respond(fields ...hpack.HeaderField) error { return s.respond(200, fields) }

// Refuse answers a CONNECT with another status and ends the stream.
func (s *Stream) Refuse(status int, fields ...hpack.HeaderField) error {
	return s.respond(status, fields)
}

func (s *Stream) respond(status int, fields []hpack.HeaderField) error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.sendErr != nil {
		return s.sendErr
	}
	if s.status != 0 {
		return errors.New("the CONNECT is answered already")
	}
	s.status = status
	list := append([]hpack.HeaderField{{Name: ":status", Value: strconv.Itoa(status)}}, fields...)
	c.writeHeaders(s.id, list, status != 200)
	if status != 200 {
		_ = c.cw.WriteRSTStream(s.id, http2.ErrCodeNo)
		s.endSent = true
		s.end(net.ErrClosed)
		s.forget()
	}
	c.kick()
	return nil
}

// Read reads what the peer sent. It ends with io.EOF after the peer's END_STREAM, and with an error that is ECONNRESET
// when the stream was reset or the connection lost before.
func (s *Stream) Read(p []byte) (int, error) {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	for {
		if s.readBy.passed() {
			return 0, os.ErrDeadlineExceeded
		}
		s.c.mu.Lock()
		if s.closedByUser {
			s.c.mu.Unlock()
			return 0, net.ErrClosed
		}
		if n := s.recv.read(p); n > 0 || len(p) == 0 {
			s.credit(n)
			s.c.mu.Unlock()
			return n, nil
		}
		end, err := s.recvEnd, s.recvErr
		s.c.mu.Unlock()
		switch {
		case end:
			return 0, io.EOF
		case err != nil:
			return 0, err
		}
		select {
		case <-s.readable:
		case <-s.readBy.wait():
		}
	}
}

// credit returns n bytes of stream window once a quarter of it is consumed; mu is held.
func (s *Stream) credit(n int) {
	s.consumed += uint32(n)
	if s.recvEnd || s.recvErr != nil || s.consumed < s.c.cfg.streamWindow()/4 {
		return
	}
	_ = s.c.cw.WriteWindowUpdate(s.id, s.consumed)
	s.recvWindow += int64(s.consumed)
	s.consumed = 0
	s.c.kick()
}

// Write sends p; it returns when the last of it is on its way to the connection. After a deadline the count says how much was taken.
func (s *Stream) Write(p []byte) (int, error) {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	c := s.c
	if s.writeBy.passed() {
		return 0, os.ErrDeadlineExceeded
	}
	c.mu.Lock()
	if err := s.writeErr(); err != nil {
		c.mu.Unlock()
		return 0, err
	}
	if len(p) == 0 {
		c.mu.Unlock()
		return 0, nil
	}
	s.pending = p
	s.enqueue()
	c.mu.Unlock()
	c.kick()
	for {
		select {
		case <-s.writable:
		case <-s.writeBy.wait():
		}
		c.mu.Lock()
		left := len(s.pending)
		err := s.writeErr()
		if left == 0 {
			c.mu.Unlock()
			return len(p), nil
		}
		if err == nil && s.writeBy.passed() {
			err = os.ErrDeadlineExceeded
		}
		if err != nil {
			s.pending = nil
			c.mu.Unlock()
			return len(p) - left, err
		}
		c.mu.Unlock()
	}
}

// ReadFrom writes what r gives until it ends, and returns how much that was.
func (s *Stream) ReadFrom(r io.Reader) (int64, error) {
	buf := make([]byte, 64<<10)
	var total int64
	for {
		n, err := r.Read(buf)
		if n > 0 {
			m, werr := s.Write(buf[:n])
			total += int64(m)
			if werr != nil {
				return total, werr
			}
		}
		if err == io.EOF { //nolint:errorlint // as io.Copy: io.EOF is never wrapped
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// WriteTo writes to w what the peer sends until its END_STREAM, and returns how much that was.
func (s *Stream) WriteTo(w io.Writer) (int64, error) {
	buf := make([]byte, 64<<10)
	var total int64
	for {
		n, err := s.Read(buf)
		if n > 0 {
			m, werr := w.Write(buf[:n])
			total += int64(m)
			if werr != nil {
				return total, werr
			}
		}
		if err == io.EOF { //nolint:errorlint // Read gives it so
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// writeErr is why nothing can be written; mu is held.
func (s *Stream) writeErr() error {
	switch {
	case s.closedByUser:
		return net.ErrClosed
	case s.sendErr != nil:
		return s.sendErr
	case s.wantEnd:
		return fmt.Errorf("write after CloseWrite: %w", syscall.EPIPE)
	}
	return nil
}

// enqueue puts the stream into the writer's turn; mu is held.
func (s *Stream) enqueue() {
	if !s.queued && s.sendErr == nil {
		s.queued = true
		s.c.sendable = append(s.c.sendable, s)
	}
}

// CloseWrite sends END_STREAM after what was written. The other direction goes on.
func (s *Stream) CloseWrite() error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.closedByUser {
		return net.ErrClosed
	}
	if s.sendErr != nil {
		return s.sendErr
	}
	s.closeWrite()
	return nil
}

func (s *Stream) closeWrite() {
	if s.wantEnd || s.sendErr != nil {
		return
	}
	s.wantEnd = true
	s.enqueue()
	s.c.kick()
}

// Close ends the stream: cleanly when the peer has ended its direction and all it sent was read, else with RST_STREAM CANCEL. It does not
// wait; what a returned Write took is still sent.
func (s *Stream) Close() error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.closedByUser {
		return nil
	}
	s.closedByUser = true
	notify(s.readable)
	notify(s.writable)
	if s.isDone {
		return nil
	}
	if s.recvEnd && s.recv.n == 0 {
		s.closeWrite()
		return nil
	}
	s.recv.drop()
	// What was written goes first: END_STREAM, then the reset that says we read no more.
	if s.sendErr == nil && !s.endSent && s.status == 200 {
		s.closeWrite()
		return nil
	}
	s.reset(http2.ErrCodeCancel)
	return nil
}

// Reset ends the stream at once with RST_STREAM.
func (s *Stream) Reset(code http2.ErrCode) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.reset(code)
}

// reset is Reset with mu held.
func (s *Stream) reset(code http2.ErrCode) {
	if s.isDone {
		return
	}
	_ = s.c.cw.WriteRSTStream(s.id, code)
	s.end(&ResetError{Code: code})
	s.forget()
	s.c.kick()
}

// end makes err the end of both directions that have not ended; mu is held.
func (s *Stream) end(err error) {
	if s.recvErr == nil && !s.recvEnd {
		s.recvErr = err
	}
	if s.sendErr == nil {
		s.sendErr = err
		if s.recvEnd {
			s.sendErr = fmt.Errorf("the stream has ended: %w", syscall.EPIPE)
		}
	}
	s.finish()
	notify(s.readable)
	notify(s.writable)
}

// finish closes the channels that tell of the end; mu is held.
func (s *Stream) finish() {
	if s.isDone {
		return
	}
	s.isDone = true
	close(s.done)
	s.answer()
}

// answer wakes Open; mu is held.
func (s *Stream) answer() {
	select {
	case <-s.answered:
	default:
		close(s.answered)
	}
}

// forget takes the stream out of the table; mu is held.
func (s *Stream) forget() {
	if s.c.streams[s.id] == s {
		delete(s.c.streams, s.id)
		s.c.maybeDrained()
	}
}

// SetDeadline sets both deadlines; the zero Time means none.
func (s *Stream) SetDeadline(t time.Time) error {
	s.readBy.set(t)
	s.writeBy.set(t)
	return nil
}

// SetReadDeadline ends Reads, also those under way, at t.
func (s *Stream) SetReadDeadline(t time.Time) error { s.readBy.set(t); return nil }

// SetWriteDeadline ends Writes, also those under way, at t.
func (s *Stream) SetWriteDeadline(t time.Time) error { s.writeBy.set(t); return nil }

// WaitDone blocks until both directions have ended or ctx has.
func (s *Stream) WaitDone(ctx context.Context) error {
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
