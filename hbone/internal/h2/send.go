package h2

import (
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/net/http2"
)

// Write sends p. What is small is copied, and may go out with what others write; a larger one returns when its last byte was taken. After a
// deadline the count says how much was taken.
func (s *Stream) Write(p []byte) (int, error) {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := s.writeErr(); err != nil || len(p) == 0 {
		return 0, err
	}
	if n := len(p); n <= maxSmall && len(c.out.buf)+n <= maxOutbox && int64(n) <= min(c.sendWindow, int64(s.sendWindow)) {
		c.out.data(s.id, p, false)
		c.sent(s, n)
		c.flushSoon(len(c.streams) > 1)
		return n, nil
	}
	w := getWaiter(p)
	s.ww = w
	if s.sendWindow > 0 {
		c.out.push(s)
	}
	var err error
	for {
		if !w.flying {
			if len(w.p) == 0 {
				break
			}
			if err = s.cutOff(); err != nil {
				break
			}
			if s.queued && !c.out.flushing && c.hasWork() {
				c.flush(w, false)
				continue
			}
		}
		c.mu.Unlock()
		w.wait()
		c.mu.Lock()
	}
	s.ww = nil
	n := len(p) - len(w.p)
	w.free()
	if s.wantEnd && s.sendErr() == nil { // CloseWrite came meanwhile, and counted on the last frame
		s.sendEnd()
		c.flushSoon(false)
	}
	return n, err
}

// writeErr is why nothing can be written; mu is held.
func (s *Stream) writeErr() error {
	if err := s.cutOff(); err != nil {
		return err
	}
	if s.wantEnd {
		return fmt.Errorf("write after CloseWrite: %w", syscall.EPIPE)
	}
	return nil
}

// cutOff is why a Write under way cannot go on; mu is held.
func (s *Stream) cutOff() error {
	switch {
	case s.extra != nil && s.extra.write.passed:
		return os.ErrDeadlineExceeded
	case s.closedByUser:
		return net.ErrClosed
	}
	return s.sendErr()
}

// CloseWrite sends END_STREAM after what was written, a Write under way included. The other direction goes on.
func (s *Stream) CloseWrite() error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.closedByUser {
		return net.ErrClosed
	}
	if err := s.sendErr(); err != nil {
		return err
	}
	s.closeWrite()
	c.flushSoon(len(c.streams) > 1)
	return nil
}

// closeWrite is CloseWrite without the flush; mu is held.
func (s *Stream) closeWrite() {
	if s.wantEnd || s.sendErr() != nil {
		return
	}
	s.wantEnd = true
	if s.ww != nil && len(s.ww.p) > 0 {
		return // the END_STREAM goes with its last frame, or when it gives up
	}
	s.sendEnd()
}

// sendEnd queues an END_STREAM of its own; mu is held.
func (s *Stream) sendEnd() {
	s.c.out.data(s.id, nil, true)
	s.sentEnd()
}

// sentEnd follows END_STREAM; mu is held.
func (s *Stream) sentEnd() {
	s.endSent = true
	s.setEnding(s.recvErr(), errSentEnd)
	switch {
	case s.recvEnd || s.recvErr() != nil:
		s.finish()
		s.forget()
	case s.closedByUser:
		s.c.out.reset(s.id, http2.ErrCodeCancel)
		s.end(io.ErrClosedPipe)
		s.forget()
	}
}
