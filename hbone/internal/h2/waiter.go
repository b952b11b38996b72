package h2

import "sync"

// waiter is a Read or a Write that is blocked. It is borrowed for the call, so that an idle stream has none. A wake-up may come when nobody
// waits any more, or somebody else does: who waits looks at his condition again.
type waiter struct {
	mu    sync.Mutex
	cond  sync.Cond
	ready bool
	n     int  // Read: bytes that the connection's reader has put into p
	loose bool // Read: the stream and the connection's reader know it no more

	// The connection's mu guards these.
	p      []byte // Read: where to put bytes; Write: what is left to send
	flying bool   // p is in use outside the lock: being filled, or encrypted
}

var waiters = sync.Pool{New: func() any {
	w := &waiter{}
	w.cond.L = &w.mu
	return w
}}

func getWaiter(p []byte) *waiter {
	w := waiters.Get().(*waiter)
	w.mu.Lock()
	w.ready, w.n, w.loose = false, 0, false
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

// room is the part of p that nothing was put into yet. The connection's mu is held, and its reader calls.
func (w *waiter) room() []byte { return w.p[w.n:] }

// put notes that the connection's reader has put n bytes into room.
func (w *waiter) put(n int) {
	w.mu.Lock()
	w.n += n
	w.mu.Unlock()
}

// let takes a Read away from the connection's reader; wake follows. The connection's mu is held.
func (w *waiter) let() {
	w.mu.Lock()
	w.loose = true
	w.mu.Unlock()
}

// wait blocks until wake, and gives how much has been put into p, and whether more may come.
func (w *waiter) wait() (n int, loose bool) {
	w.mu.Lock()
	for !w.ready {
		w.cond.Wait()
	}
	w.ready = false
	n, loose = w.n, w.loose
	w.mu.Unlock()
	return n, loose
}

// filled is how much has been put into p.
func (w *waiter) filled() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n
}
