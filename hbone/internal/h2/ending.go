package h2

import (
	"fmt"
	"io"
	"syscall"
)

// ending is how the directions of a stream end. It does not change, so that streams share the usual ones.
type ending struct {
	recv error // ends reading once in is empty
	send error // ends writing
}

var (
	errSentEnd = fmt.Errorf("write after the end of the stream: %w", syscall.EPIPE)
	errPeerEnd = fmt.Errorf("the stream has ended: %w", syscall.EPIPE) // the peer wants no more, and had sent all
)

var usualEndings = [...]*ending{
	{send: errSentEnd},
	{recv: io.ErrClosedPipe, send: errSentEnd},
	{send: errPeerEnd},
}

// setEnding says how the stream ends; mu is held.
func (s *Stream) setEnding(recv, send error) {
	for _, e := range usualEndings {
		if e.recv == recv && e.send == send { //nolint:errorlint // the same values, not the same kind
			s.ending = e
			return
		}
	}
	s.ending = &ending{recv, send}
}

// recvErr is how reading ends; mu is held.
func (s *Stream) recvErr() error {
	if s.ending == nil {
		return nil
	}
	return s.ending.recv
}

// sendErr is how writing ends; mu is held.
func (s *Stream) sendErr() error {
	if s.ending == nil {
		return nil
	}
	return s.ending.send
}
