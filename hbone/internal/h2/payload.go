package h2

import (
	"errors"

	"github.com/isthmus-mesh/isthmus/hbone/internal/bufpool"
)

// deliver gives b to s: into the buffer of a Read that waits, or into the inbox. mu is held.
func (rd *reader) deliver(s *Stream, b []byte) {
	if len(b) == 0 {
		return
	}
	if w := s.rw; w != nil && s.in.n == 0 {
		n := copy(w.room(), b)
		w.put(n)
		s.credit(n)
		b = b[n:]
	}
	if len(b) > 0 {
		s.in.write(b)
		rd.c.unread += int64(len(b))
	}
	rd.list(s)
}

// payload reads n bytes of DATA into s, or away. It gives nil when s ended meanwhile. mu is held if there is a stream.
func (rd *reader) payload(s *Stream, n int) (*Stream, error) {
	if s == nil {
		rd.unlock()
		return nil, rd.discard(n)
	}
	small := n < bulk // more of its size will follow
	for n > 0 {
		if small && rd.r == rd.w {
			if err := rd.refill(record); err != nil {
				return nil, err
			}
		}
		rd.lock()
		if s.isDone || s.closedByUser {
			rd.unlock()
			return nil, rd.discard(n)
		}
		var m int
		var err error
		if rd.r < rd.w {
			m = min(rd.w-rd.r, n)
			rd.deliver(s, rd.buf.B[rd.r:rd.r+m])
			rd.advance(m)
		} else if w := s.rw; w != nil && s.in.n == 0 && len(w.room()) > 0 {
			m, err = rd.intoRead(s, w, n)
		} else {
			m, err = rd.intoInbox(s, n)
		}
		n -= m
		if err != nil {
			if !errors.Is(err, errDry) {
				return nil, err
			}
			rd.wait()
		} else if rd.since += m; rd.since >= wakeAfter && (s.forward() == nil || rd.since >= writeAfter) {
			rd.settle()
		}
	}
	rd.lock()
	return s, nil
}

// intoRead reads payload straight to where a blocked Read wants it. mu is held, but for that.
func (rd *reader) intoRead(s *Stream, w *waiter, n int) (int, error) {
	room := w.room()
	w.flying = true
	rd.unlock()
	m, err := rd.try(room[:min(n, len(room))])
	rd.lock()
	w.flying = false
	if m > 0 {
		w.put(m)
		s.credit(m)
		rd.list(s)
	}
	if s.rw != w {
		w.wake() // it wanted to leave
	} else if m == len(room) {
		rd.settle()
	}
	return m, err
}

// intoInbox reads payload into the inbox. mu is held, but for that.
func (rd *reader) intoInbox(s *Stream, wanted int) (int, error) {
	n := wanted
	most := maxChunk
	if f := s.forward(); f != nil && rd.since >= record && f.keepsUp() {
		n, most = max(n, maxJoined), maxJoined
	}
	k := s.in.space(n, most)
	k.refs++
	room := k.buf.B[k.w:min(len(k.buf.B), k.w+wanted)]
	rd.unlock()
	m, err := rd.try(room)
	rd.lock()
	if s.in.tail != k { // dropped meanwhile
		k.release()
		return m, err
	}
	k.w += m
	k.refs--
	s.in.n += uint32(m)
	s.in.trim()
	rd.c.unread += int64(m)
	if m > 0 {
		rd.list(s)
	}
	return m, err
}

// refill borrows the buffer and reads up to size bytes into it.
func (rd *reader) refill(size int) error {
	buf := bufpool.Get(size)
	n, err := rd.pull(buf.B[:size])
	if err != nil {
		buf.Free()
		return err
	}
	rd.buf, rd.r, rd.w = buf, 0, n
	return nil
}

// discard reads n bytes away.
func (rd *reader) discard(n int) error {
	for n > 0 {
		if rd.r == rd.w {
			if err := rd.refill(record); err != nil {
				return err
			}
		}
		m := min(n, rd.w-rd.r)
		rd.advance(m)
		n -= m
	}
	return nil
}
