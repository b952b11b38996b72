package hbone

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
)

// assumed is how many tunnels a connection gets before the peer has said how many it takes (RFC 9113, section 6.5.2, and what Envoy bears).
const assumed = 100

// tick is how often a connection's bytes are looked at.
const tick = 10 * time.Second

// pooled is a connection. The pool's mu guards what changes.
type pooled struct {
	e    *entry
	h2   *h2.Conn
	link *link
	stop chan struct{} // closed when it is to take no more tunnels
	last atomic.Pointer[way]

	granted, dropped uint64 // what get gave, and what of it came to no stream
	settled          bool   // the peer's SETTINGS are known
	retired          bool
}

// room is for how many more tunnels there is room.
func (pc *pooled) room() (int, h2.Load) {
	load := pc.h2.Load()
	free := load.Available - int(pc.granted-pc.dropped-load.Opened)
	if limit := pc.e.limit; !pc.settled && limit > 0 && limit < assumed {
		free -= assumed - limit
	}
	return free, load
}

// taken is how many tunnels it has, or will have.
func (pc *pooled) taken() int {
	load := pc.h2.Load()
	return load.Streams + int(pc.granted-pc.dropped-load.Opened)
}

func (pc *pooled) unused() bool { return pc.taken() == 0 }

// drop says that a get came to no stream.
func (pc *pooled) drop() {
	p := pc.e.p
	p.mu.Lock()
	pc.dropped++
	p.mu.Unlock()
}

// retire lets a connection end with its last tunnel.
func (pc *pooled) retire() {
	if pc.retired {
		return
	}
	pc.retired = true
	close(pc.stop)
	pc.leave()
}

// leave takes it from those that take tunnels.
func (pc *pooled) leave() {
	e := pc.e
	e.conns = slices.DeleteFunc(e.conns, func(o *pooled) bool { return o == pc })
	e.dialMore() // who waits for its SETTINGS waits in vain
	e.forget()
}

// watch looks after a connection until it has ended.
func (pc *pooled) watch() {
	p := pc.e.p
	pc.untilRetired()
	p.mu.Lock()
	pc.tellRefused()
	pc.retire()
	p.mu.Unlock()
	pc.h2.Drain()
	pc.untilEnded()
	p.mu.Lock()
	delete(p.all, pc)
	p.mu.Unlock()
	pc.e.d.Trace.connClosed(pc.link, pc.h2.Stats().Age, pc.h2.Err())
}

// untilEnded returns when its last tunnel has ended, or closes it with the pool.
func (pc *pooled) untilEnded() {
	for {
		select {
		case <-pc.h2.Done():
			return
		case <-pc.e.p.ctx.Done():
			pc.h2.Close()
			return
		case <-pc.link.review.again:
			pc.link.lookAgain(pc.h2)
		}
	}
}

// untilRetired returns when the connection shall take no more tunnels.
func (pc *pooled) untilRetired() {
	p := pc.e.p
	var old <-chan time.Time
	if age := jittered(p.MaxAge, time.Hour); age > 0 {
		t := time.NewTimer(age)
		defer t.Stop()
		old = t.C
	}
	keep := p.idleTimeout()
	every := tick
	if keep > 0 {
		every = max(min(every, keep/4), time.Millisecond)
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	ready := pc.h2.Ready()
	busy, opened := time.Now(), uint64(0)
	for {
		select {
		case <-pc.h2.Done():
			return
		case <-pc.h2.GoingAway():
			return
		case <-pc.stop:
			return
		case <-pc.e.key.gen.changed:
			return
		case <-pc.e.key.gen.replaced:
			return
		case <-old:
			return
		case <-pc.link.review.again:
			pc.link.lookAgain(pc.h2)
		case <-ready:
			ready = nil
			pc.settle()
		case now := <-ticker.C:
			stats := pc.h2.Stats()
			if most := p.maxBytes(); most > 0 && max(stats.BytesIn, stats.BytesOut) >= uint64(most) {
				return
			}
			if stats.Streams > 0 || stats.Opened != opened {
				busy, opened = now, stats.Opened
			}
			if keep > 0 && now.Sub(busy) >= keep && pc.retireUnused() {
				return
			}
		}
	}
}

// settle takes note of the peer's limit and lets those in who waited for it.
func (pc *pooled) settle() {
	e := pc.e
	e.p.mu.Lock()
	defer e.p.mu.Unlock()
	pc.settled = true
	e.limit = pc.limit()
	if pc.retired {
		return
	}
	e.serve()
	e.dialMore()
}

// limit is how many tunnels the peer takes.
func (pc *pooled) limit() int {
	load := pc.h2.Load()
	return max(1, load.Available+load.Streams)
}

func (pc *pooled) retireUnused() bool {
	p := pc.e.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if !pc.unused() {
		return false
	}
	pc.retire()
	return true
}
