package capture

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/authz"
)

// opened is an inbound connection, to be decided anew when policies change.
type opened struct {
	conn  authz.Conn
	entry Entry // as it was logged
	abort func()
}

type openConns struct {
	mu  sync.Mutex
	set map[*opened]bool
}

// add returns what takes c away again.
func (o *openConns) add(c *opened) (remove func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.set == nil {
		o.set = map[*opened]bool{}
	}
	o.set[c] = true
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.set, c)
	}
}

func (o *openConns) all() []*opened {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Collect(maps.Keys(o.set))
}

// redecide ends connections that a changed policy denies.
func (p *process) redecide(ctx context.Context) {
	for {
		changed := p.authz.Changed()
		for _, c := range p.open.all() {
			d := p.authz.Decide(ctx, c.conn)
			if d.Allow || ctx.Err() != nil {
				continue
			}
			e := c.entry
			e.Ended = true
			e.decided(d)
			p.log.write(e)
			c.abort()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// doneContext makes a channel a context for context.AfterFunc.
type doneContext struct{ done <-chan struct{} }

func (doneContext) Deadline() (time.Time, bool) { return time.Time{}, false }
func (d doneContext) Done() <-chan struct{}     { return d.done }
func (doneContext) Value(any) any               { return nil }
func (d doneContext) Err() error {
	select {
	case <-d.done:
		return context.Canceled
	default:
		return nil
	}
}
