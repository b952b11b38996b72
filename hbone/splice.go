package hbone

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
	"golang.org/x/net/http2"
)

// grace is how long a backend may go on sending to nobody, once it has been given all that its client sent.
const grace = 10 * time.Second

// stall is how long it may take nothing of what is in its socket then.
const stall = 2 * time.Minute

// splice joins a tunnel and a connection until both directions have ended, and closes both. An end of stream passes on as one, a reset
// or a failure as a reset: nobody takes a part for the whole. What the backend had sent before it was reset goes first.
func splice(st *h2.Stream, backend net.Conn) {
	forget := st.WhenCut(backend, func() { fail(st, backend) })
	defer forget()
	var wg sync.WaitGroup
	var deaf atomic.Bool        // the backend takes no more
	down := make(chan struct{}) // closed when nothing more is read from the backend
	wg.Go(func() {
		to := sink{c: backend, failed: &deaf}
		_, err := st.WriteTo(&to)
		switch {
		case err == nil && closeWrite(backend):
			giveUp(st, backend, down)
		case err != nil && !deaf.Load() || !canCloseWrite(backend):
			fail(st, backend)
		default: // it was reset, and may have answered before that
			deaf.Store(true)
			giveUp(st, backend, down)
		}
	})
	_, err := st.ReadFrom(backend)
	if err == nil && !deaf.Load() {
		err = st.CloseWrite()
	}
	switch {
	case errors.Is(err, syscall.EPIPE): // the client has sent all, ended that, and wants no more
		// A backend comes to read what its client sent when it can send. Closing or resetting now could destroy that.
		_, _ = io.Copy(io.Discard, onlyReader{backend}) // whatever its end is, it is one
	case err != nil:
		fail(st, backend)
	}
	close(down)
	wg.Wait()
	if deaf.Load() {
		fail(st, backend)
	}
	st.Close()
	backend.Close()
}

// fail makes both ends see a reset.
func fail(st *h2.Stream, backend net.Conn) {
	st.Reset(http2.ErrCodeConnect)
	abort(backend)
}

// giveUp ends a backend that sends to nobody, once it has been given all that its client sent.
func giveUp(st *h2.Stream, backend net.Conn, down <-chan struct{}) {
	select {
	case <-down:
		return
	case <-st.Done():
	}
	unsent, before := h2.Unsent(backend), 0
	timer := time.NewTimer(grace)
	defer timer.Stop()
	for {
		select {
		case <-down:
			return
		case <-timer.C:
		}
		n := unsent()
		if n == 0 || n == before {
			abort(backend)
			return
		}
		before = n
		timer.Reset(stall)
	}
}

// onlyReader hides what else a connection can do, which could be slow to end.
type onlyReader struct{ io.Reader }

var copyBuffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// copyThrough copies until src ends with io.EOF, which is no error.
func copyThrough(dst io.Writer, src io.Reader) (int64, error) {
	buf := copyBuffers.Get().(*[64 << 10]byte)
	defer copyBuffers.Put(buf)
	var total int64
	for {
		n, err := src.Read(buf[:])
		if n > 0 {
			m, werr := dst.Write(buf[:n])
			if total += int64(m); werr != nil {
				return total, werr
			}
		}
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// sink is the writing side of a connection, and notes that it has failed.
type sink struct {
	c      net.Conn
	failed *atomic.Bool
}

func (s *sink) Write(p []byte) (int, error) {
	n, err := s.c.Write(p)
	if err != nil {
		s.failed.Store(true)
	}
	return n, err
}

func closeWrite(c net.Conn) bool {
	half, ok := c.(interface{ CloseWrite() error })
	return ok && half.CloseWrite() == nil
}

func canCloseWrite(c net.Conn) bool {
	_, ok := c.(interface{ CloseWrite() error })
	return ok
}

// abort closes a connection so that its peer sees a reset.
func abort(c net.Conn) {
	switch t := c.(type) {
	case interface{ SetLinger(int) error }:
		_ = t.SetLinger(0) // closed already: so be it
	case interface{ Reset() }:
		t.Reset()
	}
	c.Close()
}
