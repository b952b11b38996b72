package capture

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/world"
)

// carried is the connections outside of inbound tunnels that this process carries at the moment.
type carried struct {
	mu  sync.Mutex
	set map[*exchange]struct{}
}

// exchange is what is known of a connection that is carried: who spoke last, and when.
type exchange struct {
	asked atomic.Bool  // who opened it has, and may wait for an answer
	at    atomic.Int64 // nanoseconds, by the clock of since
}

// since is when this process began: exchanges count from there, by a clock that nobody sets.
var since = time.Now()

// serve has f carry a connection in a goroutine of its own. Until f joins it, it counts as one that waits for an answer.
func (c *carried) serve(f func(*exchange)) {
	x := &exchange{}
	x.asked.Store(true)
	c.mu.Lock()
	if c.set == nil {
		c.set = map[*exchange]struct{}{}
	}
	c.set[x] = struct{}{}
	c.mu.Unlock()
	go func() {
		f(x)
		c.mu.Lock()
		delete(c.set, x)
		c.mu.Unlock()
	}()
}

// join carries both directions of a connection that opener opened, until they have ended.
func (x *exchange) join(opener, other net.Conn) {
	spoke := func(from net.Conn) {
		x.asked.Store(from == opener)
		x.at.Store(int64(time.Since(since)))
	}
	spoke(other) // nothing was asked yet
	world.Join(opener, other, spoke)
}

// isBusy reports whether a connection waits for an answer, or something passed on one in the last while.
func (c *carried) isBusy(while time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for x := range c.set {
		if x.asked.Load() || time.Since(since)-time.Duration(x.at.Load()) < while {
			return true
		}
	}
	return false
}

// drain returns when all connections have ended, or are only kept, or when ctx ends.
func (c *carried) drain(ctx context.Context) {
	tick := time.NewTicker(kept / 10)
	defer tick.Stop()
	for c.isBusy(kept) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
