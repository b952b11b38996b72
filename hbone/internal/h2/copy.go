package h2

import (
	"io"

	"github.com/isthmus-mesh/isthmus/hbone/internal/bufpool"
)

// WriteTo writes to w what the peer sends until its END_STREAM, and returns how much that was. The bytes are not copied on their way. (The
// connection's reader must not write to w, not even without waiting: others may, and package net has no lock that is only tried.)
func (s *Stream) WriteTo(w io.Writer) (int64, error) {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	c := s.c
	var total int64
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if err := s.readErr(); err != nil {
			return total, err
		}
		if s.in.n > 0 {
			var err error
			n := s.lend(s.in.head(), func(b []byte) (n int) {
				n, err = w.Write(b)
				return n
			})
			total += int64(n)
			c.flushSoon(false)
			if err != nil {
				return total, err
			}
			continue
		}
		if err := s.ended(); err == io.EOF { //nolint:errorlint // ended gives it so
			return total, nil
		} else if err != nil {
			return total, err
		}
		s.await(nil)
		c.mu.Lock()
	}
}

// ReadFrom writes what r gives until it ends, and returns how much that was. A buffer is borrowed while r has bytes, where r can tell.
func (s *Stream) ReadFrom(r io.Reader) (int64, error) {
	if from := pollReader(r); from != nil {
		return s.readFrom(from.next)
	}
	return s.readFrom(func(size int) (*bufpool.Buf, int, error) {
		buf := bufpool.Get(size)
		n, err := r.Read(buf.B)
		return buf, n, err
	})
}

// readFrom writes what next gives: a borrowed buffer, or nil, and what is in it.
func (s *Stream) readFrom(next func(size int) (*bufpool.Buf, int, error)) (total int64, err error) {
	const least, most = 16 << 10, 256 << 10
	for size := least; ; {
		buf, n, err := next(size)
		if n > 0 {
			m, werr := s.Write(buf.B[:n])
			total += int64(m)
			err = first(werr, err)
		}
		if buf != nil {
			buf.Free()
		}
		switch {
		case err == io.EOF: //nolint:errorlint // as io.Copy: a Reader gives it so
			return total, nil
		case err != nil:
			return total, err
		}
		// As much as comes at once, and no more.
		switch {
		case n == size:
			size = min(4*size, most)
		case n < size/8:
			size = max(size/4, least)
		}
	}
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

var (
	_ io.WriterTo   = (*Stream)(nil)
	_ io.ReaderFrom = (*Stream)(nil)
)
