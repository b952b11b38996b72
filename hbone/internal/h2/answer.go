package h2

import (
	"context"
	"net/http"
	"sync"

	"golang.org/x/net/http2"
)

// Await blocks until the peer has answered the CONNECT or the stream has ended, and gives Answer. When ctx ends first the stream is reset. One
// goroutine at a time may wait.
func (s *Stream) Await(ctx context.Context) error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.answeredOnce {
		return s.answerErr()
	}
	answered := c.cfg.Signals.get()
	s.answered = answered
	for !s.answeredOnce {
		c.mu.Unlock()
		select {
		case <-answered:
			c.mu.Lock()
			continue // it may have been meant for somebody who waited before
		case <-ctx.Done():
		}
		c.mu.Lock()
		break
	}
	s.answered = nil
	c.cfg.Signals.put(answered)
	if s.answeredOnce {
		return s.answerErr()
	}
	s.reset(http2.ErrCodeCancel)
	c.flushSoon(len(c.streams) > 1)
	return context.Cause(ctx)
}

// Answer is what the peer answered: nil for 200, or when there is no answer yet; a *StatusError; or what ended the stream before, which is
// ErrUnprocessed when the peer did not act on it.
func (s *Stream) Answer() error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.answerErr()
}

// Stands reports whether the peer has answered 200. The stream may have ended since.
func (s *Stream) Stands() bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.status == http.StatusOK
}

// answerErr is Answer; mu is held.
func (s *Stream) answerErr() error {
	switch {
	case s.status == http.StatusOK:
		return nil
	case s.status != 0:
		return &StatusError{Status: int(s.status)}
	}
	return s.recvErr()
}

// Signals keeps channels for those who will wait for answers. The zero value is ready.
type Signals struct{ pool sync.Pool }

// get gives a channel for signal.
func (k *Signals) get() chan struct{} {
	if k != nil {
		if s, ok := k.pool.Get().(chan struct{}); ok {
			return s
		}
	}
	return make(chan struct{}, 1)
}

// put takes it back. A signal that comes late wakes somebody else, who looks again.
func (k *Signals) put(s chan struct{}) {
	select {
	case <-s:
	default:
	}
	if k != nil {
		k.pool.Put(s)
	}
}

// signal wakes who waits on s, now or later.
func signal(s chan struct{}) {
	select {
	case s <- struct{}{}:
	default:
	}
}
