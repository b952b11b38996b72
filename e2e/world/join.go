package world

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// Join carries both directions of two connections until both have ended, and closes both. An end of stream passes on as one, all else as a reset: nobody takes a part for the
// whole. What an end has sent arrives although nothing can be written to it any more: who stops reading may have answered why. passed is called with the end that bytes
// came from, by two goroutines; nil is nobody. An end without CloseWrite cannot be told of an end of stream, and is reset.
func Join(a, b net.Conn, passed func(from net.Conn)) {
	if passed == nil {
		passed = func(net.Conn) {}
	}
	var wg sync.WaitGroup
	var deaf atomic.Bool // an end takes nothing more
	oneWay := func(dst, src net.Conn) {
		in := source{c: src, passed: passed}
		_, err := io.Copy(struct{ io.Writer }{dst}, &in)
		if in.err != nil { // it was reset, so it takes nothing either
			Reset(a)
			Reset(b)
			return
		}
		if half, ok := dst.(interface{ CloseWrite() error }); err != nil || !ok || half.CloseWrite() != nil {
			deaf.Store(true)
		}
	}
	wg.Go(func() { oneWay(a, b) })
	wg.Go(func() { oneWay(b, a) })
	wg.Wait()
	if deaf.Load() {
		Reset(a)
		Reset(b)
	}
	a.Close()
	b.Close()
}

// source is the reading side of a connection, and why it has ended, if that is no end of stream.
type source struct {
	c      net.Conn
	passed func(from net.Conn)
	err    error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.c.Read(p)
	if n > 0 {
		s.passed(s.c)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// Reset closes a connection so that the other side sees a reset. One that is closed already stays as it is.
func Reset(c net.Conn) {
	switch t := c.(type) {
	case interface{ SetLinger(sec int) error }:
		_ = t.SetLinger(0) // closed already: so be it
	case interface{ Reset() }:
		t.Reset()
	}
	c.Close()
}
