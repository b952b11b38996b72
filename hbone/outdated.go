package hbone

import (
	"context"
	"time"
)

const (
	// lookAgain is how often the ways of what is open are looked at without a change; the Resolver learns thereby what is in use.
	lookAgain = 30 * time.Second
	// lookPause is between two looks, at least; a look that takes long is followed by a longer one.
	lookPause = 20 * time.Millisecond
	// lookSoon is when connections are looked at again that could not be judged, since tunnels were just beginning or ending there. It doubles.
	lookSoon = 50 * time.Millisecond
)

// admitting is a Resolver that can say without blocking whether a way still is right, as wds.Client does.
type admitting interface {
	// Admits reports whether r is a way to r.Target. r may have less hops than the way.
	Admits(r Route) bool
}

// followWays sees to it that the ways of tunnels are looked at when they may have changed: from before on, when the tunnel that was just
// opened was not yet known.
func (d *Dialer) followWays(changes changing, before <-chan struct{}) {
	if changes == nil {
		return
	}
	d.mu.Lock()
	running := d.following
	if !running {
		if d.nudge == nil {
			d.nudge = make(chan struct{}, 1)
		}
		pool := d.pool()
		pool.init()
		running = d.own.spawn(func(ctx context.Context) {
			ctx, cancel := context.WithCancel(ctx)
			defer context.AfterFunc(pool.ctx, cancel)()
			d.follow(ctx, changes, before)
		})
		d.following = running
	}
	d.mu.Unlock()
	select {
	case <-before:
		select {
		case d.nudge <- struct{}{}:
		default:
		}
	default:
	}
}

// spawn runs f until the pool is closed, which waits for it; false: it is closed already.
func (p *Pool) spawn(f func(ctx context.Context)) bool {
	p.init()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.wg.Go(func() { f(p.ctx) })
	return true
}

// follow looks at ways, first when changed is closed, until nothing is open or the Dialer is closed.
func (d *Dialer) follow(ctx context.Context, changes changing, changed <-chan struct{}) {
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	var soon <-chan time.Time
	wait := lookSoon
	for {
		select {
		case <-changed:
			wait = lookSoon
		case <-d.nudge:
			wait = lookSoon
		case <-soon:
			wait = min(2*wait, lookAgain)
		case <-tick.C:
			if d.unfollow() {
				return
			}
		case <-ctx.Done():
			return
		}
		changed = changes.Changed() // before the look: what changes after it closes this one
		start := time.Now()
		soon = nil
		if d.look(ctx) {
			soon = time.After(wait)
		}
		pause := time.NewTimer(max(lookPause, 20*time.Since(start)))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return
		}
	}
}

// unfollow ends follow when there is nothing to look at; the next dial starts it again.
func (d *Dialer) unfollow() bool {
	p := d.pool()
	p.mu.Lock()
	for pc := range p.all {
		if w := pc.last.Load(); w != nil && w.d == d {
			p.mu.Unlock()
			return false
		}
	}
	p.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open.next != nil && d.open.next != &d.open {
		return false
	}
	d.following = false
	return true
}

// look retires what goes a way that has changed, and reports whether it is worth another look.
func (d *Dialer) look(ctx context.Context) (again bool) {
	seen := map[*way]bool{} // many tunnels share one
	old := func(w *way) bool {
		was, known := seen[w]
		if !known {
			was = w.route.Target != "" && !d.admits(ctx, w.route) // else DialRoute was given it, and nobody knows what it should be
			seen[w] = was
		}
		return was
	}
	tunnels := d.tunnels(old)
	again = d.pool().retire(d, tunnels, old)
	var fresh []*Conn
	d.mu.Lock()
	before := d.outdated
	d.outdated = map[*Conn]struct{}{}
	for _, c := range tunnels {
		if c.next == nil {
			continue // closed meanwhile
		}
		d.outdated[c] = struct{}{}
		if _, known := before[c]; !known {
			fresh = append(fresh, c)
		}
	}
	d.mu.Unlock()
	if d.Drain != 0 && len(fresh) > 0 {
		d.own.spawn(func(ctx context.Context) { d.drain(ctx, fresh) })
	}
	return again
}

// drain resets those of tunnels whose ways still are not right when their time is over.
func (d *Dialer) drain(ctx context.Context, tunnels []*Conn) {
	over := time.NewTimer(max(0, d.Drain))
	defer over.Stop()
	select {
	case <-over.C:
	case <-ctx.Done():
		return
	}
	for _, c := range tunnels {
		d.mu.Lock()
		_, still := d.outdated[c]
		d.mu.Unlock()
		if still {
			c.Reset()
		}
	}
}

// admits reports whether r still is right, as far as the Resolver knows.
func (d *Dialer) admits(ctx context.Context, r Route) bool {
	if a, ok := d.Resolver.(admitting); ok {
		return a.Admits(r)
	}
	now, err := d.Resolver.Resolve(ctx, "tcp", r.Target)
	if err != nil {
		return ctx.Err() != nil
	}
	now.Hops = now.Hops[:min(len(now.Hops), len(r.Hops))]
	return now.way() == r.way()
}
