package h2

import (
	"fmt"
	"net/http"
	"syscall"

	"golang.org/x/net/http2"
)

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
	unread := s.in.n > 0
	s.drop()
	s.wakeReader()
	s.wakeWriter()
	if s.isDone {
		return nil
	}
	switch {
	case s.recvEnd && !unread:
		s.closeWrite()
	// What was written goes first: END_STREAM, then the reset that says we read no more.
	case s.sendErr() == nil && !s.endSent && s.status == http.StatusOK:
		s.closeWrite()
	default:
		s.reset(http2.ErrCodeCancel)
	}
	c.flushSoon(len(c.streams) > 1)
	return nil
}

// drop gives back what was not read; mu is held.
func (s *Stream) drop() {
	s.c.unread -= int64(s.in.n)
	s.c.returnCredit()
	s.in.drop()
}

// Reset ends the stream at once with RST_STREAM.
func (s *Stream) Reset(code http2.ErrCode) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	s.reset(code)
	c.flushSoon(len(c.streams) > 1)
}

// reset is Reset without the flush; mu is held.
func (s *Stream) reset(code http2.ErrCode) {
	if s.isDone {
		return
	}
	_ = s.c.cw.WriteRSTStream(s.id, code)
	s.end(&ResetError{Code: code})
	s.forget()
}

// end makes err the end of both directions that have not ended; mu is held.
func (s *Stream) end(err error) {
	e := s.endings()
	if e.recv == nil && !s.recvEnd {
		e.recv = err
	}
	if e.send == nil {
		e.send = err
		if s.recvEnd {
			e.send = fmt.Errorf("the stream has ended: %w", syscall.EPIPE)
		}
	}
	s.finish()
	s.wakeReader()
	s.wakeWriter()
}

// finish closes the channels that tell of the end; mu is held.
func (s *Stream) finish() {
	if s.isDone {
		return
	}
	s.isDone = true
	if s.done != nil {
		close(s.done)
		s.done = nil
	}
	s.answer()
}

// answer wakes Open; mu is held.
func (s *Stream) answer() {
	if s.answeredOnce {
		return
	}
	s.answeredOnce = true
	if s.answered != nil {
		close(s.answered)
		s.answered = nil
	}
}

// forget takes the stream out of the table; mu is held.
func (s *Stream) forget() {
	if s.c.streams[s.id] != s {
		return
	}
	delete(s.c.streams, s.id)
	s.c.past.add(s.id, s.recvEnd)
	if s.c.latest == s {
		s.c.latest = nil
	}
	s.c.growth -= int64(s.window) - int64(s.c.cfg.streamWindow())
	s.c.maybeDrained()
}

// wakeReader makes a blocked Read look again; mu is held.
func (s *Stream) wakeReader() {
	if s.rw != nil {
		s.rw.wake()
	}
}

// wakeWriter makes a blocked Write look again; mu is held.
func (s *Stream) wakeWriter() {
	if s.ww != nil {
		s.ww.wake()
	}
}
