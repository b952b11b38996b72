package hbone

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// pool shares the connections of first hops. Two tunnels share one only when own certificate, accepted identities and address are
// the same; so a rotated certificate takes new connections, and the old ones end with their last tunnel.
type pool struct {
	mu     sync.Mutex // guards the fields below and those of the entries
	byKey  map[string]*entry
	closed bool
	dials  sync.WaitGroup
}

// entry is what there is for one key.
type entry struct {
	conns []*pooled
	dial  *sharedDial
}

// sharedDial is a handshake that several callers wait for. It ends with its last waiter.
type sharedDial struct {
	done    chan struct{}
	cancel  context.CancelCauseFunc
	waiters int
	err     error // after done
}

// pooled is a connection.
type pooled struct {
	p          *pool
	h2         *h2.Conn
	self, peer spiffeid.ID
	keep       time.Duration
	users      int // callers between get and release
	idle       *time.Timer
}

func poolKey(d *Dialer, hop Hop) (string, spiffeid.ID, error) {
	svid, err := ownSVID(d.Identity)
	if err != nil {
		return "", spiffeid.ID{}, err
	}
	peers := make([]string, len(hop.Peers))
	for i, id := range hop.Peers {
		peers[i] = id.String()
	}
	slices.Sort(peers)
	return fmt.Sprintf("%s\x00%s\x00%x\x00%s", svid.ID, hop.Addr, svid.Certificates[0].SerialNumber, strings.Join(peers, "\x00")), svid.ID, nil
}

// get returns a connection with room for a stream; the caller releases it. At most one handshake a key is under way, and a
// further connection is made only when the limits of all there are, known by their SETTINGS, are reached.
func (p *pool) get(ctx context.Context, d *Dialer, hop Hop) (*pooled, error) {
	key, self, err := poolKey(d, hop)
	if err != nil {
		return nil, err
	}
	for {
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return nil, errDialerClosed
		}
		if p.byKey == nil {
			p.byKey = map[string]*entry{}
		}
		e := p.byKey[key]
		if e == nil {
			e = &entry{}
			p.byKey[key] = e
		}
		pc, unsettled := e.pick()
		if pc != nil {
			pc.users++
			pc.stopIdle()
			p.mu.Unlock()
			return pc, nil
		}
		if unsettled != nil {
			p.mu.Unlock()
			select {
			case <-unsettled.h2.Ready():
			case <-unsettled.h2.GoingAway():
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
			continue
		}
		dial := e.dial
		if dial == nil {
			dial = p.startDial(d, hop, key, self, e)
		}
		dial.waiters++
		p.mu.Unlock()
		if err := p.wait(ctx, dial); err != nil {
			return nil, err
		}
	}
}

// pick finds a connection with room. unsettled is one that is full as far as we know before its SETTINGS. p.mu is held.
func (e *entry) pick() (pc, unsettled *pooled) {
	e.conns = slices.DeleteFunc(e.conns, func(pc *pooled) bool {
		select {
		case <-pc.h2.GoingAway():
			pc.retire()
			return true
		default:
			return false
		}
	})
	for _, pc := range e.conns {
		if pc.h2.Available() > pc.users {
			return pc, nil
		}
		select {
		case <-pc.h2.Ready():
		default:
			unsettled = pc
		}
	}
	return nil, unsettled
}

// startDial begins the handshake that all callers of a key share; p.mu is held.
func (p *pool) startDial(d *Dialer, hop Hop, key string, self spiffeid.ID, e *entry) *sharedDial {
	ctx, cancel := context.WithCancelCause(context.Background())
	dial := &sharedDial{done: make(chan struct{}), cancel: cancel}
	e.dial = dial
	p.dials.Go(func() {
		defer cancel(nil)
		nc, peer, err := d.connect(ctx, hop)
		p.mu.Lock()
		defer p.mu.Unlock()
		e.dial = nil
		dial.err = err
		defer close(dial.done)
		switch {
		case err != nil:
			if len(e.conns) == 0 && p.byKey[key] == e {
				delete(p.byKey, key)
			}
		case p.closed:
			nc.Close()
			dial.err = errDialerClosed
		default:
			pc := &pooled{p: p, h2: h2.NewClient(nc, h2.Config{}), self: self, peer: peer, keep: d.idleTimeout()}
			e.conns = append(e.conns, pc)
			pc.startIdle()
			go p.forgetWhenDone(key, e, pc)
		}
	})
	return dial
}

// forgetWhenDone takes a connection that has ended out of the pool.
func (p *pool) forgetWhenDone(key string, e *entry, pc *pooled) {
	<-pc.h2.Done()
	p.mu.Lock()
	defer p.mu.Unlock()
	pc.stopIdle()
	e.conns = slices.DeleteFunc(e.conns, func(o *pooled) bool { return o == pc })
	if len(e.conns) == 0 && e.dial == nil && p.byKey[key] == e {
		delete(p.byKey, key)
	}
}

// wait waits for a shared dial; the last who gives up ends it.
func (p *pool) wait(ctx context.Context, dial *sharedDial) error {
	select {
	case <-dial.done:
		return dial.err
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if dial.waiters--; dial.waiters == 0 {
		dial.cancel(context.Cause(ctx))
	}
	return context.Cause(ctx)
}

// release ends a get. The connection's idle time begins when nobody uses it.
func (pc *pooled) release() {
	pc.p.mu.Lock()
	defer pc.p.mu.Unlock()
	if pc.users--; pc.users == 0 {
		pc.startIdle()
	}
}

// startIdle looks after the idle time whether a tunnel is open; p.mu is held.
func (pc *pooled) startIdle() {
	pc.stopIdle()
	pc.idle = time.AfterFunc(max(pc.keep, 0), func() {
		pc.p.mu.Lock()
		defer pc.p.mu.Unlock()
		if pc.users > 0 {
			return
		}
		if pc.h2.Streams() > 0 {
			pc.idle.Reset(max(pc.keep, time.Second))
			return
		}
		pc.retire()
	})
}

func (pc *pooled) stopIdle() {
	if pc.idle != nil {
		pc.idle.Stop()
	}
}

// retire lets a connection end with its last tunnel.
func (pc *pooled) retire() {
	pc.stopIdle()
	go func() { _ = pc.h2.Shutdown(context.Background()) }() // its own end is all there is to know
}

func (p *pool) all() []*pooled {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []*pooled
	for _, key := range slices.Sorted(maps.Keys(p.byKey)) {
		list = append(list, p.byKey[key].conns...)
	}
	return list
}

func (p *pool) closeIdle() {
	for _, pc := range p.all() {
		if pc.h2.Streams() == 0 {
			pc.retire()
		}
	}
}

func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	for _, e := range p.byKey {
		if e.dial != nil {
			e.dial.cancel(errDialerClosed)
		}
	}
	p.mu.Unlock()
	p.dials.Wait()
	for _, pc := range p.all() {
		pc.h2.Close()
	}
}
