package hbone

import (
	"errors"
	"io"
	"net"
	"sync"

	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
	"golang.org/x/net/http2"
)

var copyBuffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// splice joins a tunnel and a connection until both directions have ended, and closes both. An end of stream passes on as one, a reset
// or a failure as a reset: nobody takes a part for the whole.
func splice(st *h2.Stream, backend net.Conn) {
	var wg sync.WaitGroup
	wg.Go(func() {
		if !carry(backend, st) || !closeWrite(backend) {
			st.Reset(http2.ErrCodeConnect)
			abort(backend)
		}
	})
	if !carry(st, backend) || st.CloseWrite() != nil {
		st.Reset(http2.ErrCodeConnect)
		abort(backend)
	}
	wg.Wait()
	st.Close()
	backend.Close()
}

// carry copies until src ends, and reports whether that was its proper end.
func carry(dst io.Writer, src io.Reader) bool {
	buf := copyBuffers.Get().(*[64 << 10]byte)
	defer copyBuffers.Put(buf)
	for {
		n, err := src.Read(buf[:])
		if n > 0 {
			if _, werr := dst.Write(buf[:n]); werr != nil {
				return false
			}
		}
		if err != nil {
			return errors.Is(err, io.EOF)
		}
	}
}

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

func closeWrite(c net.Conn) bool {
	half, ok := c.(interface{ CloseWrite() error })
	return ok && half.CloseWrite() == nil
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
