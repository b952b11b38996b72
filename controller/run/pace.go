package run

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// gather is how long changes for an edge are gathered after one was taken up: the answers to many writes come one by one, and are one thing
// to look at.
const gather = 100 * time.Millisecond

// pace keeps edges from being reconciled more often than is of use, however much happens. The zero value is ready.
type pace struct {
	mu sync.Mutex // guards the field below
	of map[types.NamespacedName]*turn
}

// turn is that of an edge.
type turn struct {
	began   time.Time // when it was reconciled last
	running bool
	since   time.Time // when the first change came that it was not reconciled for yet; zero: none has
}

func (p *pace) turn(e types.NamespacedName) *turn {
	if p.of == nil {
		p.of = map[types.NamespacedName]*turn{}
	}
	if p.of[e] == nil {
		p.of[e] = &turn{}
	}
	return p.of[e]
}

// changed notes that something has changed for an edge, and says how long it may wait for more.
func (p *pace) changed(e types.NamespacedName) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	t, now := p.turn(e), time.Now()
	if t.since.IsZero() {
		t.since = now
	}
	if t.running {
		return gather
	}
	return max(0, gather-now.Sub(t.began))
}

// begin a reconciliation. It says since when a change has waited for it; zero if none has.
func (p *pace) begin(e types.NamespacedName) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.turn(e)
	since := t.since
	t.began, t.running, t.since = time.Now(), true, time.Time{}
	return since
}

// end it. A change since then is still to be answered; zero: none is.
func (p *pace) end(e types.NamespacedName, since time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.of[e]
	if t == nil {
		return // it is gone
	}
	t.running = false
	if !since.IsZero() {
		t.since = since
	}
}

// forget an edge that is gone.
func (p *pace) forget(e types.NamespacedName) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.of, e)
}
