package hbone

import (
	"context"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// h2cPool has the h2c connections of a Transport, whose number of requests and whose age are bounded: http.Transport would keep one for ever.
type h2cPool struct {
	base       *http.Transport
	maxAge     time.Duration
	maxStreams int

	mu    sync.Mutex // guards hosts and what they hold; never held across I/O
	hosts map[string]*h2cHost
}

// h2cHost is what there is for one host:port.
type h2cHost struct {
	conns []*h2cConn
	dial  *h2cDial
}

// h2cConn is a connection.
type h2cConn struct {
	cc      *http.ClientConn
	retired bool
	timer   *time.Timer // retires it
}

// h2cDial is a connection being made, which ends with the last request that waits for it.
type h2cDial struct {
	done    chan struct{}
	cancel  context.CancelFunc
	waiters int
	err     error // after done
}

// roundTrip sends r, and again when its connection was lost and that is safe.
func (p *h2cPool) roundTrip(r *http.Request) (*http.Response, error) {
	address := r.URL.Host
	if r.URL.Port() == "" {
		address = net.JoinHostPort(r.URL.Hostname(), "80")
	}
	for attempt := 1; ; attempt++ {
		c, reused, err := p.get(r.Context(), address)
		if err != nil {
			if r.Body != nil {
				r.Body.Close()
			}
			return nil, err
		}
		res, err := c.cc.RoundTrip(r)
		if err == nil || !reused || attempt == maxAttempts || c.cc.Err() == nil || r.Context().Err() != nil {
			return res, err
		}
		next, ok := repeatable(r)
		if !ok {
			return nil, err
		}
		r = next
	}
}

// repeatable is r for another attempt, if it does no harm to repeat it.
func repeatable(r *http.Request) (*http.Request, bool) {
	switch r.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
	default:
		if r.Header.Get("Idempotency-Key") == "" && r.Header.Get("X-Idempotency-Key") == "" {
			return nil, false
		}
	}
	if r.Body == nil || r.Body == http.NoBody {
		return r, true
	}
	if r.GetBody == nil {
		return nil, false
	}
	body, err := r.GetBody()
	if err != nil {
		return nil, false
	}
	next := r.WithContext(r.Context())
	next.Body = body
	return next, true
}

// get reserves room for one request. reused says that the connection had stood before.
func (p *h2cPool) get(ctx context.Context, address string) (c *h2cConn, reused bool, err error) {
	waited := false
	for {
		p.mu.Lock()
		h := p.hosts[address]
		if h == nil {
			h = &h2cHost{}
			p.hosts[address] = h
		}
		for _, c := range h.conns {
			if c.cc.InFlight() < p.maxStreams && c.cc.Reserve() == nil {
				p.mu.Unlock()
				return c, !waited, nil
			}
		}
		dial := h.dial
		if dial == nil {
			dial = p.dial(ctx, address, h)
		}
		dial.waiters++
		p.mu.Unlock()
		select {
		case <-dial.done:
			if dial.err != nil {
				return nil, false, dial.err
			}
			waited = true
		case <-ctx.Done():
			p.mu.Lock()
			if dial.waiters--; dial.waiters == 0 && h.dial == dial {
				h.dial = nil // who comes next does not wait for what is given up
				dial.cancel()
			}
			p.mu.Unlock()
			return nil, false, context.Cause(ctx)
		}
	}
}

// dial makes a connection; p.mu is held. It has the values of the first request's context, but not its end.
func (p *h2cPool) dial(ctx context.Context, address string, h *h2cHost) *h2cDial {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	dial := &h2cDial{done: make(chan struct{}), cancel: cancel}
	h.dial = dial
	go func() {
		defer cancel()
		cc, err := p.base.NewClientConn(ctx, "http", address)
		p.mu.Lock()
		defer p.mu.Unlock()
		defer close(dial.done)
		dial.err = err
		if h.dial == dial {
			h.dial = nil
		}
		if err == nil {
			p.add(address, h, cc)
		}
		p.forget(address, h)
	}()
	return dial
}

// add takes a connection in; p.mu is held.
func (p *h2cPool) add(address string, h *h2cHost, cc *http.ClientConn) {
	c := &h2cConn{cc: cc}
	h.conns = append(h.conns, c)
	p.hosts[address] = h
	if p.maxAge > 0 {
		c.timer = time.AfterFunc(jittered(p.maxAge, p.maxAge), func() { p.retire(address, h, c) })
	}
	cc.SetStateHook(func(*http.ClientConn) { // it may hold up what calls it
		if cc.Err() != nil {
			go p.retire(address, h, c)
			return
		}
		go p.closeUnused(c)
	})
}

// retire lets a connection end with its last request.
func (p *h2cPool) retire(address string, h *h2cHost, c *h2cConn) {
	p.mu.Lock()
	c.retired = true
	if c.timer != nil {
		c.timer.Stop()
	}
	h.conns = slices.DeleteFunc(h.conns, func(o *h2cConn) bool { return o == c })
	p.forget(address, h)
	p.mu.Unlock()
	p.closeUnused(c)
}

// closeUnused closes a connection that takes no more requests and has none.
func (p *h2cPool) closeUnused(c *h2cConn) {
	p.mu.Lock()
	unused := c.retired && c.cc.InFlight() == 0
	p.mu.Unlock()
	if unused {
		c.cc.Close()
	}
}

// forget takes a host out that has nothing; p.mu is held.
func (p *h2cPool) forget(address string, h *h2cHost) {
	if len(h.conns) == 0 && h.dial == nil && p.hosts[address] == h {
		delete(p.hosts, address)
	}
}

// closeIdle retires the connections that no request uses.
func (p *h2cPool) closeIdle() { p.retireWhere(func(c *h2cConn) bool { return c.cc.InFlight() == 0 }) }

// retireAll lets all connections end with their last requests.
func (p *h2cPool) retireAll() { p.retireWhere(func(*h2cConn) bool { return true }) }

func (p *h2cPool) retireWhere(ok func(*h2cConn) bool) {
	p.mu.Lock()
	type at struct {
		address string
		h       *h2cHost
		c       *h2cConn
	}
	var list []at
	for address, h := range p.hosts {
		for _, c := range h.conns {
			if ok(c) {
				list = append(list, at{address, h, c})
			}
		}
	}
	p.mu.Unlock()
	for _, i := range list {
		p.retire(i.address, i.h, i.c)
	}
}
