package h2

import (
	"sync"
	"time"
)

// deadline is a point in time that can be moved while somebody waits for it.
type deadline struct {
	mu     *sync.Mutex
	timer  *time.Timer
	closed chan struct{} // closed when the time has come
}

func makeDeadline() deadline { return deadline{mu: new(sync.Mutex)} }

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed == nil {
		if t.IsZero() {
			return
		}
		d.closed = make(chan struct{})
	}
	if d.timer != nil && !d.timer.Stop() {
		<-d.closed // the timer has fired: wait until it is done
	}
	d.timer = nil
	fired := isClosed(d.closed)
	if t.IsZero() {
		if fired {
			d.closed = make(chan struct{})
		}
		return
	}
	if left := time.Until(t); left > 0 {
		if fired {
			d.closed = make(chan struct{})
		}
		c := d.closed
		d.timer = time.AfterFunc(left, func() { close(c) })
		return
	}
	if !fired {
		close(d.closed)
	}
}

// wait is closed when the deadline has passed. A deadline set for the first time while somebody waits must wake him too.
func (d *deadline) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed == nil {
		d.closed = make(chan struct{})
	}
	return d.closed
}

func (d *deadline) passed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed != nil && isClosed(d.closed)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
