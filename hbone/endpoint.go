package hbone

import (
	"sync/atomic"
	"time"
)

// Endpoint is what a Resolver's choice among endpoints goes by: how many tunnels there are to one of them, and whether it could be reached of
// late. A Resolver gives the same Endpoint with every Route that begins at the same place, and the Dialer keeps it up to date. The zero
// value is ready; all methods may be called from several goroutines.
type Endpoint struct {
	open   atomic.Int64
	failed atomic.Int64 // failures one after the other; 0 since the last success
	until  atomic.Int64 // unix nanoseconds; before then it is left out. 0: it is not
}

// How long an endpoint that could not be reached is left out: the first, doubled with each further failure, up to the last.
const (
	failingFirst = time.Second
	failingLast  = 30 * time.Second
)

// Opened counts a tunnel. What was wrong before is forgotten.
func (e *Endpoint) Opened() {
	e.open.Add(1)
	if e.failed.Load() != 0 {
		e.failed.Store(0)
		e.until.Store(0)
	}
}

// Closed takes a tunnel from the count.
func (e *Endpoint) Closed() { e.open.Add(-1) }

// Failed notes at now that no connection could be made: for a second, and twice as long each time up to 30 s, others are better. Failures
// at one moment, of many dials that waited for the same connection, count as one.
func (e *Endpoint) Failed(now time.Time) {
	if leftOut(e.until.Load(), now) {
		return
	}
	n := min(e.failed.Add(1), 16) - 1
	e.until.Store(now.Add(min(failingFirst<<n, failingLast)).UnixNano())
}

// Open is how many tunnels there are.
func (e *Endpoint) Open() int64 { return e.open.Load() }

// Failing reports whether it is to be left out. The clock is asked only where there was a failure.
func (e *Endpoint) Failing(now func() time.Time) bool {
	until := e.until.Load()
	return until != 0 && leftOut(until, now())
}

// leftOut reports whether until is yet to come. What is further away than any failure makes it is of before the clock was set back, and is over.
func leftOut(until int64, now time.Time) bool {
	left := until - now.UnixNano()
	return left > 0 && left <= int64(failingLast)
}

// Forgettable reports whether there is nothing left to remember at now: no tunnel, and no failure that still says something.
func (e *Endpoint) Forgettable(now time.Time) bool {
	until := e.until.Load()
	return e.open.Load() == 0 && !leftOut(until, now) && !leftOut(until+int64(failingLast), now)
}
