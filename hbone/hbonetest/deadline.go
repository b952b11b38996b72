package hbonetest

import (
	"sync"
	"time"
)

// deadline is a point in time that can be moved while somebody waits for it.
type deadline struct {
	mu    *sync.Mutex
	state *deadlineState
}

type deadlineState struct {
	timer  *time.Timer
	passed chan struct{} // closed when the time has come
}

func newDeadline() deadline {
	return deadline{mu: new(sync.Mutex), state: &deadlineState{passed: make(chan struct{})}}
}

func (d deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.state
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	if isClosed(s.passed) {
		s.passed = make(chan struct{})
	}
	if t.IsZero() {
		return
	}
	passed := s.passed
	left := time.Until(t)
	if left <= 0 {
		close(passed)
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(left, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if s.timer == timer { // not moved meanwhile
			close(passed)
			s.timer = nil
		}
	})
	s.timer = timer
}

func (d deadline) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state.passed
}

func (d deadline) passed() bool { return isClosed(d.wait()) }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
