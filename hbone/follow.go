package hbone

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// changing is a Resolver that tells of changes, as wds.Client does.
type changing interface {
	// Changed returns a channel that is closed when an answer may have changed.
	Changed() <-chan struct{}
}

// maxFollowed bounds the addresses whose ways a Transport remembers; one more makes it forget all, and the tunnels that it keeps.
const maxFollowed = 4096

// follower remembers which ways the kept tunnels of a Transport go, so that none is used again when its way has changed: a request after the
// Resolver's answer goes through a waypoint that came, or not at all.
type follower struct {
	mu   sync.Mutex // guards ways; never held across I/O
	ways map[string]followed
}

// followed is the way to an address.
type followed struct {
	way  string
	seen <-chan struct{} // closed when it must be looked at again
}

// check says whether the way to address has changed since a tunnel may have been kept.
func (f *follower) check(ctx context.Context, resolver Resolver, address string) bool {
	c, ok := resolver.(changing)
	if !ok {
		return false
	}
	f.mu.Lock()
	last, known := f.ways[address]
	f.mu.Unlock()
	if known {
		select {
		case <-last.seen:
		default:
			return false
		}
	}
	seen := c.Changed() // before the answer: what changes after it closes this one
	route, err := resolver.Resolve(ctx, "tcp", address)
	if err != nil && ctx.Err() != nil {
		return false // nobody waits for the request any more; it fails by itself
	}
	now := followed{"nowhere", seen}
	if err == nil {
		now.way = route.way()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	full := !known && len(f.ways) >= maxFollowed
	if f.ways == nil || full {
		f.ways = map[string]followed{}
	}
	f.ways[address] = now
	return full || known && now.way != last.way
}

// way names what stands on a route, but for the choice among equals: the kinds of its hops, and who waypoints and gateways are.
func (r *Route) way() string {
	if len(r.Hops) == 0 {
		return "direct"
	}
	var b strings.Builder
	for _, h := range r.Hops {
		b.WriteString(string(h.Kind) + "\x00")
		if h.Kind == HopWorkload {
			continue
		}
		peers := make([]string, len(h.Peers))
		for i, p := range h.Peers {
			peers[i] = p.String()
		}
		slices.Sort(peers)
		b.WriteString(h.Authority + "\x00" + strings.Join(peers, "\x00"))
	}
	return b.String()
}

// renew gives up the tunnels that are kept: idle ones close, those with a request close when it has ended.
func (t *Transport) renew() {
	t.mu.Lock()
	old := t.base
	t.base = t.newBase()
	t.mu.Unlock()
	old.CloseIdleConnections()
	t.h2c.retireAll()
}

// follow renews the tunnels when the way of a request has changed.
func (t *Transport) follow(r *http.Request) {
	if t.Dialer == nil || t.Dialer.Resolver == nil {
		return // the dial says so
	}
	address := r.URL.Host
	if r.URL.Port() == "" {
		port := "80"
		if r.URL.Scheme == "https" {
			port = "443"
		}
		address = net.JoinHostPort(r.URL.Hostname(), port)
	}
	if t.ways.check(r.Context(), t.Dialer.Resolver, address) {
		t.renew()
	}
}
