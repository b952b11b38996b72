package hbone

import (
	"cmp"
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
)

// Pool shares the connections of first hops among Dialers. Two tunnels share one only when own identity and certificate, accepted
// identities, address and the way TCP connections are made are the same. The zero value is ready. Set its fields before the first use; it must
// not be copied afterwards. The user closes it.
//
// A further connection to the same place is made when all there are carry as many tunnels as the peer allows, and, up to MaxConns, when they are
// busy sending. A connection takes no more tunnels, and ends with its last one, when the peer sends GOAWAY, when it is old or has carried
// much, and when the Identity has changed.
type Pool struct {
	// MaxConns bounds the connections to one place that are made because others are busy. Zero means 4, or the number of cores where that is less;
	// negative means 1. Tunnels beyond a peer's limit take as many as they need.
	MaxConns int
	// IdleTimeout is how long a connection without tunnels is kept, up to a quarter longer. Zero means 5 min; negative keeps it.
	IdleTimeout time.Duration
	// MaxAge is when a connection is replaced, by chance up to a tenth sooner. Zero means 1 h; negative never.
	MaxAge time.Duration
	// MaxBytes is when a connection is replaced, counted each way. Zero means 64 GiB; negative never. AES-GCM keys wear out at some 390 GB
	// (RFC 8446, section 5.5), so leave room for what the tunnels that are open then still carry.
	MaxBytes int64

	once   sync.Once
	ctx    context.Context // ends with the pool
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup // dials and watchers
	kept   h2.Signals

	mu     sync.Mutex // guards the fields below, and those of entries and pooled connections; never held across I/O
	byKey  map[poolKey]*entry
	gens   map[any]*generation
	all    map[*pooled]struct{} // also those that take no more tunnels
	closed bool
}

func (p *Pool) maxConns() int {
	if p.MaxConns == 0 {
		return min(4, runtime.GOMAXPROCS(0))
	}
	return max(1, p.MaxConns)
}
func (p *Pool) idleTimeout() time.Duration { return cmp.Or(p.IdleTimeout, 5*time.Minute) }
func (p *Pool) maxBytes() int64            { return cmp.Or(p.MaxBytes, 64<<30) }

// jittered is d, or def when that is zero, less up to a tenth by chance.
func jittered(d, def time.Duration) time.Duration {
	d = cmp.Or(d, def)
	return d - time.Duration(rand.Float64()*float64(d)/10)
}

func (p *Pool) init() {
	p.once.Do(func() {
		p.ctx, p.cancel = context.WithCancelCause(context.Background())
		p.byKey, p.gens, p.all = map[poolKey]*entry{}, map[any]*generation{}, map[*pooled]struct{}{}
	})
}

// get returns a connection with room for one tunnel; the caller calls begun or dropped on it once. avoid, where not nil, is a connection
// that has just refused and is taken only if there can be no other. reused says that it did not have to wait.
func (p *Pool) get(ctx context.Context, d *Dialer, hop *Hop, avoid *pooled) (pc *pooled, reused bool, err error) {
	p.init()
	owner := d.owner()
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, false, errPoolClosed
	}
	gen, err := p.generation(d, owner)
	if err != nil {
		p.mu.Unlock()
		return nil, false, err
	}
	e := p.entry(d, gen, hop)
	if pc := e.pick(avoid); pc != nil {
		pc.granted++
		p.mu.Unlock()
		return pc, true, nil
	}
	w := &waiter{avoid: avoid, done: make(chan struct{})}
	e.wait(w)
	e.dialMore()
	p.mu.Unlock()
	select {
	case <-w.done:
		return w.pc, false, w.err
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case w.pc != nil:
		w.pc.dropped++
		e.serve()
	case w.err == nil:
		w.err = context.Cause(ctx)
		e.waiting--
		e.dialLess()
	}
	return nil, false, context.Cause(ctx)
}

// CloseIdle closes the connections that carry no tunnel.
func (p *Pool) CloseIdle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for pc := range p.all {
		if pc.unused() {
			pc.retire()
		}
	}
}

// Close closes all connections, and with them every tunnel on them. Later dials fail. It is idempotent and waits.
func (p *Pool) Close() error {
	p.init()
	p.mu.Lock()
	p.closed = true
	p.cancel(errPoolClosed)
	for _, e := range p.byKey {
		for ; e != nil; e = e.next {
			e.fail(errPoolClosed)
		}
	}
	var conns []*h2.Conn
	for pc := range p.all {
		conns = append(conns, pc.h2)
	}
	p.mu.Unlock()
	closeAll(conns)
	p.wg.Wait()
	return nil
}

// closeAll closes connections at the same time: each gives its peer a moment to end too.
func closeAll(conns []*h2.Conn) {
	var wg sync.WaitGroup
	for _, c := range conns {
		wg.Go(func() { c.Close() })
	}
	wg.Wait()
}
