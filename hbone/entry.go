package hbone

import (
	"context"
	"slices"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
)

const (
	maxDials   = 16          // handshakes at once to one place whose limit of streams is known
	growPause  = time.Second // after a connection that was to relieve others could not be made
	growWithin = 10 * time.Second
)

// clientWindow is what a peer may send ahead of a tunnel's Read, to begin with. Envoy throws away what waits for a window when its application has
// sent everything and closed, so an answer had better fit. 200 tunnels that nobody reads stay within what a connection holds unread.
const clientWindow = 2 << 20

// entry is what a Pool has for one place: a key and a set of accepted identities. The pool's mu guards it.
type entry struct {
	p     *Pool
	d     *Dialer // the first that came; all with this key dial alike
	key   poolKey
	hop   Hop // Addr and Peers are what all have in common
	next  *entry
	conns []*pooled // that take tunnels
	dials []*sharedDial
	limit int // of streams on a connection, as SETTINGS said last; 0: not known yet

	queue   []*waiter // in the order of their coming; those with an err have left
	waiting int       // of queue, without those that left
	noGrow  time.Time // until then no connection is made for relief
}

// waiter is a dial that found no room.
type waiter struct {
	avoid *pooled
	done  chan struct{} // closed with pc or err set
	pc    *pooled
	err   error
}

// sharedDial is a connection being made.
type sharedDial struct {
	cancel context.CancelCauseFunc
	relief bool // nobody waits for it
}

// entry finds or makes the one of gen and hop; p.mu is held.
func (p *Pool) entry(d *Dialer, gen *generation, hop *Hop) *entry {
	key := poolKey{gen: gen, addr: hop.Addr}
	if d.NetDial != nil {
		key.via = d
	}
	head := p.byKey[key]
	for e := head; e != nil; e = e.next {
		if samePeers(e.hop.Peers, hop.Peers) {
			return e
		}
	}
	e := &entry{p: p, d: d, key: key, next: head, hop: *hop}
	e.hop.Peers = slices.Clone(hop.Peers)
	p.byKey[key] = e
	gen.entries++
	return e
}

// forget takes the entry out of the pool when there is nothing in it.
func (e *entry) forget() {
	if len(e.conns) > 0 || len(e.dials) > 0 || e.waiting > 0 {
		return
	}
	for link, at := e.p.byKey[e.key], (*entry)(nil); link != nil; link, at = link.next, link {
		if link != e {
			continue
		}
		switch {
		case at != nil:
			at.next = e.next
		case e.next != nil:
			e.p.byKey[e.key] = e.next
		default:
			delete(e.p.byKey, e.key)
		}
		g := e.key.gen
		if g.entries--; g.entries == 0 && e.p.gens[g.owner] == g {
			delete(e.p.gens, g.owner)
		}
		return
	}
}

// pick finds a connection with room: the first that is not busy, else the one with the fewest tunnels.
func (e *entry) pick(avoid *pooled) *pooled {
	var best *pooled
	fewest := 0
	for _, pc := range e.conns {
		room, load := pc.room()
		switch {
		case room <= 0 || pc == avoid:
		case !load.Saturated:
			return pc
		case best == nil || load.Streams < fewest:
			best, fewest = pc, load.Streams
		}
	}
	switch {
	case best != nil:
		e.relieve()
	case avoid != nil && len(e.conns)+len(e.dials) >= e.p.maxConns():
		return e.pick(nil)
	}
	return best
}

// relieve makes a further connection since all are busy.
func (e *entry) relieve() {
	if len(e.conns)+len(e.dials) < e.p.maxConns() && !time.Now().Before(e.noGrow) && len(e.dials) == 0 {
		e.dial(true)
	}
}

func (e *entry) wait(w *waiter) {
	e.queue = append(e.queue, w)
	e.waiting++
}

// serve gives those who wait what room there is.
func (e *entry) serve() {
	for len(e.queue) > 0 {
		w := e.queue[0]
		if w.err == nil {
			if w.pc = e.pick(w.avoid); w.pc == nil {
				return
			}
			w.pc.granted++
			e.waiting--
			close(w.done)
		}
		e.queue[0] = nil
		e.queue = e.queue[1:]
	}
	e.queue = nil
}

// dialMore makes as many connections as those who wait need: one while the peer's limit is not known, for it may take them all.
func (e *entry) dialMore() {
	coming := len(e.dials)
	for _, pc := range e.conns {
		if !pc.settled && (e.limit == 0 || pc.taken() < e.limit) {
			coming++ // its SETTINGS may allow more
		}
	}
	for ; coming < maxDials && coming < e.waiting; coming++ {
		if coming > 0 && (e.limit == 0 || coming*e.limit >= e.waiting) {
			return
		}
		e.dial(false)
	}
}

// dialLess gives up connections that nobody waits for any more.
func (e *entry) dialLess() {
	if e.waiting > 0 {
		return
	}
	e.queue = nil
	e.dials = slices.DeleteFunc(e.dials, func(dial *sharedDial) bool {
		if !dial.relief {
			dial.cancel(context.Canceled)
		}
		return !dial.relief
	})
	e.forget()
}

// fail tells all who wait.
func (e *entry) fail(err error) {
	for _, w := range e.queue {
		if w.err == nil {
			w.err = err
			close(w.done)
		}
	}
	e.queue, e.waiting = nil, 0
}

// dial makes a connection.
func (e *entry) dial(relief bool) {
	p := e.p
	if p.closed {
		return
	}
	ctx, cancel := context.WithCancelCause(p.ctx)
	dial := &sharedDial{cancel: cancel, relief: relief}
	e.dials = append(e.dials, dial)
	p.wg.Go(func() {
		defer cancel(nil)
		if relief {
			var stop context.CancelFunc
			ctx, stop = context.WithTimeout(ctx, growWithin)
			defer stop()
		}
		nc, li, err := e.d.connect(ctx, &e.hop, e.key.gen.svid)
		p.mu.Lock()
		defer p.mu.Unlock()
		at := slices.Index(e.dials, dial) // -1: given up
		if at >= 0 {
			e.dials = slices.Delete(e.dials, at, at+1)
		}
		if err == nil && (p.closed || at < 0) {
			nc.Close()
			return
		}
		if err != nil {
			if at >= 0 {
				e.failed(dial, err)
			}
			return
		}
		pc := &pooled{e: e, h2: h2.NewClient(nc, h2.Config{StreamWindow: clientWindow, Signals: &p.kept}), link: li, stop: make(chan struct{})}
		e.conns = append(e.conns, pc)
		p.all[pc] = struct{}{}
		p.wg.Go(pc.watch)
		e.serve()
		e.dialMore()
	})
}

// failed is a connection that could not be made. Those who wait are told when none other is on its way.
func (e *entry) failed(dial *sharedDial, err error) {
	if dial.relief {
		e.noGrow = time.Now().Add(growPause)
	}
	e.serve()
	switch {
	case dial.relief:
		e.dialMore() // they counted on it
	case len(e.dials) == 0 && !slices.ContainsFunc(e.conns, func(pc *pooled) bool { return !pc.settled }):
		e.fail(e.key.gen.overtaken(err))
	}
	e.forget()
}
