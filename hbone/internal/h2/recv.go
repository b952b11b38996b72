package h2

import (
	"io"
	"net"
	"os"
)

// Read reads what the peer sent. It ends with io.EOF after the peer's END_STREAM, and with an error that is ECONNRESET
// when the stream was reset or the connection lost before.
func (s *Stream) Read(p []byte) (int, error) {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	c := s.c
	c.mu.Lock()
	for {
		if err := s.readErr(); err != nil {
			c.mu.Unlock()
			return 0, err
		}
		if s.in.n > 0 || len(p) == 0 {
			n := s.take(p)
			c.flushSoon(false)
			c.mu.Unlock()
			return n, nil
		}
		if err := s.ended(); err != nil {
			c.mu.Unlock()
			return 0, err
		}
		n := s.await(p)
		if n > 0 {
			return n, nil
		}
		c.mu.Lock()
	}
}

// readErr is why nothing can be read even if there is something; mu is held.
func (s *Stream) readErr() error {
	switch {
	case s.extra != nil && s.extra.read.passed:
		return os.ErrDeadlineExceeded
	case s.closedByUser:
		return net.ErrClosed
	}
	return nil
}

// ended is the end of what can be read; mu is held.
func (s *Stream) ended() error {
	if s.recvEnd {
		return io.EOF
	}
	return s.recvErr()
}

// await waits for bytes or the end, and says how many came into p meanwhile. mu is held at first, and released.
func (s *Stream) await(p []byte) int {
	c, w := s.c, getWaiter(p)
	s.rw = w
	c.mu.Unlock()
	n, loose := w.wait()
	if !loose {
		c.mu.Lock()
		if s.rw == w {
			s.rw = nil
		}
		for w.flying { // not for long: the connection's reader does not wait meanwhile
			c.mu.Unlock()
			w.wait()
			c.mu.Lock()
		}
		n = w.filled()
		c.mu.Unlock()
	}
	w.free()
	return n
}

// take copies out of the inbox; larger pieces without the lock. mu is held.
func (s *Stream) take(p []byte) int {
	total := 0
	for total < len(p) && s.in.n > 0 {
		k := s.in.head()
		if n := min(k.w-k.r, len(p)-total); n <= 1<<10 {
			total += copy(p[total:], k.buf.B[k.r:k.r+n])
			s.skip(n)
		} else {
			total += s.lend(k, func(b []byte) int { return copy(p[total:], b) })
		}
	}
	return total
}

// lend shows what k holds to use, without the lock, and takes away what it used. mu is held, but for that.
func (s *Stream) lend(k *chunk, use func([]byte) int) int {
	b := k.buf.B[k.r:k.w]
	k.refs++
	s.c.mu.Unlock()
	n := use(b)
	s.c.mu.Lock()
	if s.in.head() != k { // dropped meanwhile
		k.release()
		return n
	}
	k.refs--
	s.skip(n)
	return n
}

// skip takes n bytes off the inbox; mu is held.
func (s *Stream) skip(n int) {
	s.in.skip(n)
	s.c.unread -= int64(n)
	s.c.returnCredit()
	s.credit(n)
}
