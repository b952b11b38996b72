package h2

import (
	"net/http"

	"golang.org/x/net/http2"
)

// Close ends the stream: cleanly when the peer has ended its direction and all it sent was read, else with RST_STREAM CANCEL. It does not
// wait; what a returned Write took is still sent, and a Write that waits ends the stream with a reset.
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
	case s.ww != nil && len(s.ww.p) > 0: // a Write is cut off: nobody is to take what came for all
		s.reset(http2.ErrCodeCancel)
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

// Reset ends the stream at once with RST_STREAM, and resets the socket that it is joined with, also when the peer has sent all and ended.
func (s *Stream) Reset(code http2.ErrCode) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	s.reset(code)
	if f := s.forward(); f != nil {
		f.abort()
	}
	c.flushSoon(len(c.streams) > 1)
}

// reset is Reset without the flush; mu is held.
func (s *Stream) reset(code http2.ErrCode) {
	if s.isDone {
		return
	}
	s.c.out.reset(s.id, code)
	s.end(&ResetError{Code: code})
	s.forget()
}

// end makes err the end of both directions that have not ended; mu is held.
func (s *Stream) end(err error) {
	recv, send := s.recvErr(), s.sendErr()
	if recv == nil && !s.recvEnd {
		recv = err
	}
	if send == nil {
		send = err
		if s.recvEnd {
			send = errPeerEnd
		}
	}
	s.setEnding(recv, send)
	if f := s.forward(); f != nil {
		f.ended()
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
	if f := s.forward(); f != nil {
		f.drift()
	}
	s.watchCut()
	if x := s.extra; x != nil && x.done != nil {
		close(x.done)
		x.done = nil
	}
	s.answer()
}

// answer wakes who waits for the answer; mu is held.
func (s *Stream) answer() {
	if s.answeredOnce {
		return
	}
	s.answeredOnce = true
	switch rd := &s.c.rd; {
	case s.answered == nil:
	case rd.locked:
		rd.answers = append(rd.answers, s.answered)
	default:
		signal(s.answered)
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

// wakeReader makes a blocked Read look again; mu is held. The connection's reader wakes when it has seen what came together, for who is woken
// wants mu.
func (s *Stream) wakeReader() {
	switch {
	case s.rw == nil:
	case s.c.rd.locked:
		s.c.rd.list(s)
	default:
		s.rw.wake()
	}
}

// wakeWriter makes a blocked Write look again; mu is held.
func (s *Stream) wakeWriter() {
	if s.ww != nil {
		s.ww.wake()
	}
}
