package hbonetest

import (
	"errors"
	"time"
)

// Call is a function that runs beside a test.
type Call[T any] struct {
	done  chan struct{}
	value T
	err   error
}

// ErrRunning says that a call did not return in time.
var ErrRunning = errors.New("the call has not returned")

// Go runs f in a goroutine, so that the test can play the peer that f talks to.
func Go[T any](f func() (T, error)) *Call[T] {
	c := &Call[T]{done: make(chan struct{})}
	go func() {
		defer close(c.done)
		c.value, c.err = f()
	}()
	return c
}

// Wait waits for f's results. The error is ErrRunning after ten seconds.
func (c *Call[T]) Wait() (T, error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-c.done:
		return c.value, c.err
	case <-timer.C:
		var zero T
		return zero, ErrRunning
	}
}
