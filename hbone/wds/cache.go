package wds

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/isthmus-mesh/isthmus/hbone/internal/cow"
	"github.com/isthmus-mesh/isthmus/hbone/route"
)

// maxCached bounds a cache; one more makes it forget all.
const maxCached = 1 << 16

// cache keeps the ways to addresses, for readers that wait for nobody. The zero value is ready.
type cache struct {
	now atomic.Pointer[cow.Map[string, *cached]] // nil: empty

	mu  sync.Mutex // guards all
	all cow.Map[string, *cached]
}

// cached is the ways to one address.
type cached struct {
	ways *route.Ways
	seen atomic.Uint64 // the last version of what is known that they were found to be right in
	used atomic.Int64  // the last epoch
}

// get finds the ways to address, if they are known and right in v.
func (c *cache) get(address string, v *view, epoch int64) *route.Ways {
	m := c.now.Load()
	if m == nil {
		return nil
	}
	e := m.Get(address)
	if e == nil {
		return nil
	}
	if e.seen.Load() != v.version {
		if !e.ways.Hold(v.table) {
			return nil
		}
		e.seen.Store(v.version)
	}
	if e.used.Load() != epoch {
		e.used.Store(epoch)
	}
	return e.ways
}

// put keeps the ways to address as v gives them.
func (c *cache) put(address string, w *route.Ways, v *view, epoch int64) {
	if !w.Lasting() {
		return
	}
	e := &cached{ways: w}
	e.seen.Store(v.version)
	e.used.Store(epoch)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all.Len() >= maxCached {
		c.all = cow.Map[string, *cached]{}
	}
	c.all.Set(strings.Clone(address), e) // it may be a part of something greater
	c.show()
}

// show lets readers see the changes; mu is held.
func (c *cache) show() {
	now := c.all.Snapshot()
	c.now.Store(&now)
}

// sweep forgets what was not used since epoch, and adds the names of the rest to used.
func (c *cache) sweep(epoch int64, used map[string]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.all.Snapshot()
	for address, e := range before.All() {
		if e.used.Load() < epoch {
			c.all.Delete(address)
			continue
		}
		for _, name := range e.ways.Names() {
			used[name] = true
		}
	}
	c.show()
}
