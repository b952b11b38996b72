package h2

import "sync"

// waiter is a Read or a Write that is blocked. It is borrowed for the call, so that an idle stream has none. A wake-up may come when nobody
// waits any more, or somebody else does: who waits looks at his condition again.
type waiter struct {
	mu    sync.Mutex
	cond  sync.Cond
	ready bool
	n     int // Read: bytes that the connection's reader has put into p

	p      []byte // Read: where to put bytes; Write: what is left to send (the connection's mu)
	flying bool   // Write: p is being encrypted, outside the lock (the connection's mu)
}

var waiters = sync.Pool{New: func() any {
	w := &waiter{}
	w.cond.L = &w.mu
	return w
}}

func getWaiter(p []byte) *waiter {
	w := waiters.Get().(*waiter)
	w.mu.Lock()
	w.ready, w.n = false, 0
	w.mu.Unlock()
	w.p, w.flying = p, false
	return w
}

func (w *waiter) free() {
	w.p = nil
	waiters.Put(w)
}

// wake ends wait, also one that comes later.
func (w *waiter) wake() {
	w.mu.Lock()
	w.ready = true
	w.mu.Unlock()
	w.cond.Signal()
}

// fill copies b into the buffer of a blocked Read; wake follows. The connection's mu is held.
func (w *waiter) fill(b []byte) int {
	w.mu.Lock()
	w.n = copy(w.p, b)
	n := w.n
	w.mu.Unlock()
	return n
}

// wait blocks until wake, and gives what fill has copied.
func (w *waiter) wait() int {
	w.mu.Lock()
	for !w.ready {
		w.cond.Wait()
	}
	w.ready = false
	n := w.n
	w.mu.Unlock()
	return n
}

// filled is what fill has copied.
func (w *waiter) filled() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n
}
