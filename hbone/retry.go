package hbone

import (
	"cmp"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
)

const (
	// retryFirst is the longest wait before a way that has refused is tried again; it doubles with each. By chance it is up to half shorter, so that those who
	// were refused at once do not come back at once.
	retryFirst = 40 * time.Millisecond
	// retryNot is how long a way is not waited for that went on refusing until a dial gave up.
	retryNot = 30 * time.Second
	// maxRefusing bounds the ways that are remembered for it; one more makes a Dialer forget all.
	maxRefusing = 1024
)

// What all dials of a Dialer may be tried again: as often as one in five that opened, and so many a second, since a Dialer that has opened few has something to
// begin with. Where many are refused the peers have enough to do.
const (
	retryShare  = 0.2
	retryRate   = 10
	retryAtOnce = 100
)

// retry is a dial that was refused for the moment, or whose peer could not be reached.
type retry struct {
	d                *Dialer
	network, address string
	begun            time.Time
	tried            []Route
	waits            int
}

// retryWithin is 0 when nothing is tried again.
func (d *Dialer) retryWithin() time.Duration { return max(0, cmp.Or(d.RetryWithin, time.Second)) }

// dialAgain tries a dial again that has failed for err on route, as long as there is reason to.
func (d *Dialer) dialAgain(ctx context.Context, network, address string, begun time.Time, route Route, err error) (*Conn, error) {
	r := &retry{d: d, network: network, address: address, begun: begun}
	for {
		next, ok := r.next(ctx, &route, err)
		if !ok {
			return nil, r.gaveUp(&route, err)
		}
		route = next
		var c *Conn
		if c, err = d.dialRoute(ctx, route); err == nil {
			d.retried()
			return c, nil
		}
	}
}

// next gives the route to try after last has failed for err; it blocks while that is to be waited for. False: err stands.
func (r *retry) next(ctx context.Context, last *Route, err error) (Route, bool) {
	r.tried = append(r.tried, *last)
	elsewhere := last.Endpoint != nil && len(r.tried) < maxEndpoints && unreachable(err)
	within := r.d.retryWithin()
	soon := within > 0 && len(r.tried) < maxAttempts && passing(err)
	if soon {
		soon = time.Since(r.begun) < within
	}
	if ctx.Err() != nil || !elsewhere && !soon {
		return Route{}, false
	}
	changes, _ := r.d.Resolver.(changing)
	var changed <-chan struct{}
	if changes != nil {
		changed = changes.Changed() // before the answer: what changes after it closes this one
	}
	start := time.Now()
	if route, ok := r.another(ctx, last, elsewhere); ok {
		return route, (elsewhere || r.d.spend()) && r.tell(start, true, err)
	}
	if !soon || !r.d.waitsFor(last) || !r.d.spend() {
		return Route{}, false
	}
	wait := retryFirst << r.waits
	r.waits++
	timer := time.NewTimer(wait - rand.N(wait/2))
	defer timer.Stop()
	for {
		select {
		case <-changed:
			changed = changes.Changed()
			if route, ok := r.another(ctx, last, false); ok {
				return route, r.tell(start, true, err)
			}
		case <-timer.C:
			if route, ok := r.resolve(ctx); ok {
				return route, r.tell(start, !r.was(&route), err)
			}
			return Route{}, false
		case <-ctx.Done():
			return Route{}, false
		}
	}
}

// resolve asks for the way anew. One without tunnels is none.
func (r *retry) resolve(ctx context.Context) (Route, bool) {
	route, err := r.d.Resolver.Resolve(ctx, r.network, r.address)
	if err != nil || len(route.Hops) == 0 {
		return Route{}, false
	}
	route.Target = cmp.Or(route.Target, r.address)
	return route, true
}

// another is a route that is worth to be tried at once after last. All pods of a waypoint are told of a Service at about the same time: where one of them has
// refused, the others are no better yet.
func (r *retry) another(ctx context.Context, last *Route, elsewhere bool) (Route, bool) {
	route, ok := r.resolve(ctx)
	if !ok || r.was(&route) {
		return Route{}, false
	}
	anew := elsewhere || route.way() != last.way()
	return route, anew || route.Hops[0].Kind != HopWaypoint && len(r.tried) < maxEndpoints
}

// was reports whether a way has been tried.
func (r *retry) was(route *Route) bool {
	return slices.ContainsFunc(r.tried, func(o Route) bool {
		return slices.EqualFunc(o.Hops, route.Hops, func(a, b Hop) bool {
			return a.Addr == b.Addr && a.Authority == b.Authority && a.Kind == b.Kind
		})
	})
}

// tell tells of a further try. It is true.
func (r *retry) tell(start time.Time, elsewhere bool, err error) bool {
	r.d.retrying(TraceRetry{Address: r.address, Try: len(r.tried) + 1, Elsewhere: elsewhere, Waited: time.Since(start), Err: err})
	return true
}

// retrying counts a further try, and tells of it.
func (d *Dialer) retrying(r TraceRetry) {
	d.mu.Lock()
	d.retries.Tries++
	d.mu.Unlock()
	if d.Trace != nil && d.Trace.Retrying != nil {
		d.Trace.Retrying(r)
	}
}

// retried counts what has come to something after all.
func (d *Dialer) retried() {
	d.mu.Lock()
	d.retries.Saved++
	d.mu.Unlock()
}

// gaveUp makes err, of the last try, say how often it was tried. A way that was waited for in vain is not waited for again for a while.
func (r *retry) gaveUp(last *Route, err error) error {
	if e, ok := errors.AsType[*DialError](err); ok && len(r.tried) > 1 {
		e.Tries = len(r.tried)
	}
	if passing(err) && r.waits > 0 && (len(r.tried) == maxAttempts || time.Since(r.begun) >= r.d.retryWithin()) {
		r.d.refuses(last)
	}
	return err
}

// passing reports whether err, of a dial, may be of the moment, and no byte of the user's has been delivered: the peer does not know the target (yet), or cannot reach
// it, or there was no answer as its connection ended. A peer that answers anything but 200 has forwarded nothing (RFC 9110, section 9.3.6).
func passing(err error) bool {
	e, ok := errors.AsType[*DialError](err)
	switch {
	case !ok:
		return false
	case e.Status != 0:
		return e.Status == http.StatusServiceUnavailable || e.Status == http.StatusNotFound
	}
	if lost, ok := errors.AsType[*h2.LostError](e.Err); ok {
		return gone(lost.Cause)
	}
	_, reset := errors.AsType[*h2.ResetError](e.Err) // of the CONNECT, unless nothing was sent: then it is of the tunnel around it
	return gone(e.Err) && (!reset || !e.Sent)
}

// gone reports whether err is of a peer that is not there, or went away.
func gone(err error) bool {
	for _, is := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, is) {
			return !errors.Is(err, h2.ErrUnprocessed) // that was tried again already
		}
	}
	return false
}

// spend takes from what may be tried again, if something is left.
func (d *Dialer) spend() bool {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.spent = max(0, d.spent-retryRate*max(0, now.Sub(d.spentAt).Seconds()))
	d.spentAt = now
	if d.spent+1 > retryAtOnce {
		d.retries.Spared++
		return false
	}
	d.spent++
	return true
}

// earn pays back for a tunnel that opened; d.mu is held.
func (d *Dialer) earn() {
	if d.spent > 0 {
		d.spent -= retryShare
	}
}

// waitsFor reports whether a way that has just refused may be waited for.
func (d *Dialer) waitsFor(route *Route) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.refusing) == 0 {
		return true
	}
	key := route.Target + "\x00" + route.way()
	until, known := d.refusing[key]
	if known && !time.Now().Before(until) {
		delete(d.refusing, key)
		known = false
	}
	if known {
		d.retries.Spared++
	}
	return !known
}

// refuses remembers that a way was waited for in vain.
func (d *Dialer) refuses(route *Route) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refusing == nil || len(d.refusing) >= maxRefusing {
		d.refusing = map[string]time.Time{}
	}
	d.refusing[route.Target+"\x00"+route.way()] = time.Now().Add(retryNot)
}
