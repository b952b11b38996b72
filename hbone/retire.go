package hbone

import (
	"context"
)

// Retire ends what goes a way that is not right any more: call it when a route has changed, so that nothing keeps walking past a new
// waypoint. old tells which routes those are; it is called outside all locks. New dials ask the Resolver and need no Retire.
//
// Connections that carry nothing but such tunnels take no more of them, and idle ones close. The tunnels themselves may end in peace until ctx
// ends; then those that are left are reset. Retire blocks until all have ended, and returns how many it had to reset. With a ctx that has ended
// already it resets all at once. An http.Transport keeps tunnels open between requests: close its idle connections first.
func (d *Dialer) Retire(ctx context.Context, old func(Route) bool) int {
	byWay := func(w *way) bool { return old(w.route) }
	tunnels := d.tunnels(byWay)
	d.pool().retire(d, tunnels, byWay)
	reset := 0
	for _, c := range tunnels {
		s, _ := c.at()
		select {
		case <-s.Done():
			continue
		default:
		}
		select {
		case <-s.Done():
		case <-ctx.Done():
			c.Reset()
			reset++
		}
	}
	return reset
}

// tunnels lists the open ones whose way is old.
func (d *Dialer) tunnels(old func(*way) bool) []*Conn {
	d.mu.Lock()
	var all []*Conn
	for c := d.open.next; c != nil && c != &d.open; c = c.next {
		all = append(all, c)
	}
	d.mu.Unlock()
	var list []*Conn
	for _, c := range all {
		if old(c.currentWay()) {
			list = append(list, c)
		}
	}
	return list
}

// retire takes the connections that carry only those tunnels, or none since the last went an old way. It reports whether there are some that went an
// old way last and carry more: tunnels of other ways, or such as are just beginning or ending, which the Dialer does not list.
func (p *Pool) retire(d *Dialer, tunnels []*Conn, old func(*way) bool) (undecided bool) {
	on := make(map[*pooled]int, len(tunnels))
	for _, c := range tunnels {
		if pc := c.currentWay().pc; pc != nil {
			on[pc]++
		}
	}
	p.mu.Lock()
	var all []*pooled
	for pc := range p.all {
		all = append(all, pc)
	}
	p.mu.Unlock()
	for _, pc := range all {
		w := pc.last.Load()
		unused := w == nil && pc.e.d == d // it came too late for who wanted it, and nobody knows which way that was
		if !unused && (w == nil || w.d != d || on[pc] == 0 && !old(w)) {
			continue
		}
		p.mu.Lock()
		switch {
		case unused && !pc.settled:
			undecided = true // somebody may wait for its SETTINGS
		case pc.taken() <= on[pc]:
			pc.retire()
		case !pc.retired:
			undecided = true
		}
		p.mu.Unlock()
	}
	return undecided
}
