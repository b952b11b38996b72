package hbone

import (
	"context"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Pool shares the connections of first hops among Dialers. Two tunnels share one only when own identity and certificate, accepted
// identities, address and the way TCP connections are made are the same; so a rotated certificate takes new connections, and the old ones
// end with their last tunnel. The zero value is ready; it must not be copied. The user closes it, after which dials fail.
type Pool struct {
	mu     sync.Mutex // guards the fields below and those of the entries
	byKey  map[poolKey]*entry
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
	p     *Pool
	h2    *h2.Conn
	link  link
	keep  time.Duration
	users int // callers between get and release
	idle  *time.Timer
}

// poolKey is what two tunnels on one connection have in common.
type poolKey struct {
	owner  any // the Identity: another one may trust other authorities
	via    any // the Dialer, when it makes TCP connections its own way
	self   spiffeid.ID
	serial string
	addr   netip.AddrPort
	peers  string
}

func (d *Dialer) poolKey(hop Hop) (poolKey, error) {
	svid, err := ownSVID(d.Identity)
	if err != nil {
		return poolKey{}, err
	}
	peers := make([]string, len(hop.Peers))
	for i, id := range hop.Peers {
		peers[i] = id.String()
	}
	slices.Sort(peers)
	key := poolKey{owner: d, self: svid.ID, serial: svid.Certificates[0].SerialNumber.String(), addr: hop.Addr, peers: strings.Join(peers, " ")}
	if reflect.ValueOf(d.Identity).Comparable() {
		key.owner = d.Identity
	}
	if d.NetDial != nil {
		key.via = d
	}
	return key, nil
}

// get returns a connection with room for a stream; the caller releases it. At most one handshake a key is under way, and a
// further connection is made only when the limits of all there are, known by their SETTINGS, are reached.
func (p *Pool) get(ctx context.Context, d *Dialer, hop Hop) (*pooled, error) {
	key, err := d.poolKey(hop)
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
			p.byKey = map[poolKey]*entry{}
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
			dial = p.startDial(d, hop, key, e)
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
func (p *Pool) startDial(d *Dialer, hop Hop, key poolKey, e *entry) *sharedDial {
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
			pc := &pooled{p: p, h2: h2.NewClient(nc, h2.Config{}), keep: d.idleTimeout()}
			pc.link = link{local: nc.LocalAddr(), remote: nc.RemoteAddr(), self: key.self, peer: peer}
			e.conns = append(e.conns, pc)
			pc.startIdle()
			go p.forgetWhenDone(key, e, pc)
		}
	})
	return dial
}

// forgetWhenDone takes a connection that has ended out of the pool.
func (p *Pool) forgetWhenDone(key poolKey, e *entry, pc *pooled) {
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
func (p *Pool) wait(ctx context.Context, dial *sharedDial) error {
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

func (p *Pool) all() []*pooled {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []*pooled
	for _, e := range p.byKey {
		list = append(list, e.conns...)
	}
	return list
}

// CloseIdle closes the connections that carry no tunnel.
func (p *Pool) CloseIdle() {
	for _, pc := range p.all() {
		if pc.h2.Streams() == 0 {
			pc.retire()
		}
	}
}

// Close closes all connections, and with them every tunnel on them. Later dials fail. It is idempotent and waits.
func (p *Pool) Close() error {
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
	return nil
}
