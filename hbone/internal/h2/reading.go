package h2

import "sync"

// muchRead is what a connection must bring in the time that busyness looks at, so that a further one would help: below it the reader is busy with
// frames that are small, and better off with many at a time.
const muchRead = 8 << 20

// reading tells whether the connection's reader has its hands full.
type reading struct {
	mu    sync.Mutex
	busy  busyness
	bytes int  // since busy.from
	much  bool // that many came in the time before
	waits bool
}

// pause notes that the reader waits for bytes.
func (r *reading) pause() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waits {
		return
	}
	from := r.busy.from
	if r.busy.end(); r.busy.from != from {
		r.much, r.bytes = r.bytes >= muchRead, 0
	}
	r.waits = true
}

// got notes that n bytes came.
func (r *reading) got(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bytes += n; r.waits {
		r.waits = false
		r.busy.begin()
	}
}

func (r *reading) saturated() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return (r.much || r.bytes >= muchRead) && r.busy.high(!r.waits)
}
