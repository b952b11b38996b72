package wds

import (
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/isthmus-mesh/isthmus/hbone/route"
)

const (
	// maxCached bounds the addresses of a cache; one more makes it forget all.
	maxCached = 1 << 16
	// maxEnds bounds the ends that its ways have, of some 200 bytes each: a large Service has as many with each of its ports.
	maxEnds = 1 << 20
	// minSlots is how many slots there are at least, a power of two.
	minSlots = 64
)

// cache keeps the ways to addresses, for readers that wait for nobody. The zero value is ready.
//
// Ten thousand addresses fit into no cache of a processor, so a look-up is as fast as its loads from memory that wait for each other are few: a slot, what it
// points to, which has the ways in it, and one endpoint.
type cache struct {
	now atomic.Pointer[index] // nil: empty

	mu sync.Mutex // taken by who changes now or what is in it
}

// index is a hash table with open addressing. Readers go through it while one writer adds to it; what is to leave leaves with the index.
type index struct {
	seed  maphash.Seed
	slots []slot // a power of two, at most half of them taken
	taken int    // of the writer
	ends  int    // likewise: of all ways
}

// slot is a place for one address. The hash is written first.
type slot struct {
	hash atomic.Uint64
	at   atomic.Pointer[cached] // nil: free
}

// shortAddress is how many bytes of an address stand in the entry itself.
const shortAddress = 56

// cached is the ways to one address. Its size is a multiple of a line of the processor's cache, so that it begins one: the first has the address, the second what
// a look-up needs first.
type cached struct {
	length uint64 // of the address
	short  [shortAddress]byte
	seen   atomic.Uint64 // the last version of what is known that they were found to be right in
	used   atomic.Int64  // the last epoch
	ways   route.Ways
	long   string // the address where it is longer
	_      [32]byte
}

func newCached(address string, w *route.Ways) *cached {
	e := &cached{length: uint64(len(address)), ways: *w}
	if copy(e.short[:], address) < len(address) {
		e.long = strings.Clone(address) // it may be a part of something greater
	}
	return e
}

// address is whose ways they are.
func (e *cached) address() string {
	if e.length > shortAddress {
		return e.long
	}
	return string(e.short[:e.length])
}

// is reports whether they are those to address.
func (e *cached) is(address string) bool {
	if e.length > shortAddress {
		return e.long == address
	}
	return string(e.short[:e.length]) == address
}

// get finds the ways to address, if they are known and right in v.
func (c *cache) get(address string, v *view, epoch int64) *route.Ways {
	x := c.now.Load()
	if x == nil {
		return nil
	}
	e := x.slot(address).at.Load()
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
	return &e.ways
}

// slot is where address is, or where it would be.
func (x *index) slot(address string) *slot {
	hash := maphash.String(x.seed, address)
	for i := hash; ; i++ {
		s := &x.slots[i&uint64(len(x.slots)-1)]
		if e := s.at.Load(); e == nil || s.hash.Load() == hash && e.is(address) {
			return s
		}
	}
}

// put keeps the ways to address as v gives them.
func (c *cache) put(address string, w *route.Ways, v *view, epoch int64) {
	if !w.Lasting() || w.Len() > maxEnds {
		return
	}
	e := newCached(address, w)
	e.seen.Store(v.version)
	e.used.Store(epoch)
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.now.Load()
	switch {
	case x == nil || x.taken >= maxCached || x.ends+w.Len() > maxEnds:
		x = newIndex(0)
		defer c.now.Store(x)
	case 2*(x.taken+1) > len(x.slots):
		x = x.with(2*x.taken, func(*cached) bool { return true })
		defer c.now.Store(x)
	}
	x.add(e)
}

// newIndex has room for n addresses.
func newIndex(n int) *index {
	size := minSlots
	for size < 2*n {
		size *= 2
	}
	return &index{seed: maphash.MakeSeed(), slots: make([]slot, size)}
}

// add puts e where its address is or would be.
func (x *index) add(e *cached) {
	address := e.address()
	s := x.slot(address)
	if old := s.at.Load(); old != nil {
		x.ends -= old.ways.Len()
	} else {
		s.hash.Store(maphash.String(x.seed, address))
		x.taken++
	}
	x.ends += e.ways.Len()
	s.at.Store(e)
}

// with is an index with room for n addresses and with those of x that keep wants.
func (x *index) with(n int, keep func(*cached) bool) *index {
	next := newIndex(n)
	for i := range x.slots {
		if e := x.slots[i].at.Load(); e != nil && keep(e) {
			next.add(e)
		}
	}
	return next
}

// forget forgets all.
func (c *cache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now.Store(nil)
}

// sweep forgets what was not used since epoch, and adds the names of the rest to used.
func (c *cache) sweep(epoch int64, used map[string]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.now.Load()
	if x == nil {
		return
	}
	c.now.Store(x.with(x.taken, func(e *cached) bool {
		if e.used.Load() < epoch {
			return false
		}
		for _, name := range e.ways.Names() {
			used[name] = true
		}
		return true
	}))
}
