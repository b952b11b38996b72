package route

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone"
)

// Ways is where an address leads: one way, or several of which each connection takes one. Any number of goroutines may use it, and a copy is as good.
//
// What a choice among ends that weigh the same needs comes first, and fills lines of the processor's cache: all else stands elsewhere.
type Ways struct {
	ready   []ready // of root's ends
	plain   bool    // they weigh the same and are all there is to choose from
	service string  // root's
	loads   [nearby]*hbone.Endpoint
	root    *fork
	from    *origin
}

// origin is what Ways were made of.
type origin struct {
	target  string // what was dialled
	holds   []func(*Table) bool
	names   []string
	lasting bool
}

// nearby is how many Endpoints stand beside the ways themselves: so that they and what is ready of an end are loaded from memory at once, and not one after
// the other.
const nearby = 16

// fork is several ways. It has kids (waypoints that share the connections), or ends (pods).
type fork struct {
	ends    []end
	ready   []ready // of each end
	service string  // the Service's hostname when the address names one
	kids    []*fork
	sum     []uint64 // of weights up to and with each kid or end; nil: all weigh the same
	err     error    // there is no way here
	reason  []string
	build   func(*fork, *end) ([]hbone.Hop, []string, error)
	making  *sync.Mutex // held while an end is made
}

// The states of an end.
const (
	unmade    = iota // nobody has chosen it yet
	made             // hops and reason are set
	senseless        // err is set
	away             // beyond is set
)

// ready is what a connection takes of an end: 64 bytes, a line of the processor's cache where their list begins one.
type ready struct {
	state  atomic.Uint32   // what is set before it is changed is not changed any more
	load   *hbone.Endpoint // may be nil
	hops   []hbone.Hop     // empty: plain TCP to the end's addr and port
	reason []string
}

// end is one way.
type end struct {
	w      *Workload
	addr   netip.Addr // zero: reached through a gateway
	port   uint16
	load   *hbone.Endpoint // may be nil
	beyond *fork           // the gateways to it, for one on another network
	err    error           // why it makes no sense
}

func newFork(q *query, ends []end) *fork {
	f := &fork{reason: slices.Clip(q.reason), ends: ends, ready: make([]ready, len(ends)), making: new(sync.Mutex)}
	weight := func(i int) uint64 { return uint64(max(1, ends[i].w.Capacity)) }
	for i := range ends {
		f.ready[i].load = ends[i].load
	}
	for i := range ends {
		if weight(i) != weight(0) {
			f.sum = make([]uint64, len(ends))
			var total uint64
			for j := range ends {
				total += weight(j)
				f.sum[j] = total
			}
			break
		}
	}
	return f
}

// passed is the one way to who is not in the mesh.
func (q *query) passed(at netip.AddrPort) *fork {
	f := &fork{ends: []end{{addr: at.Addr(), port: at.Port()}}, ready: make([]ready, 1)}
	f.ready[0].reason = q.reason
	f.ready[0].state.Store(made)
	return f
}

// ways are those of f, which is whole.
func (f *fork) ways(from *origin) *Ways {
	w := &Ways{ready: f.ready, service: f.service, root: f, from: from}
	w.plain = f.err == nil && len(f.kids) == 0 && f.sum == nil
	for i := range min(len(f.ready), nearby) {
		w.loads[i] = f.ready[i].load
	}
	return w
}

// chosen is f's reason, and the choice of e.
func (e *end) chosen(f *fork) []string {
	return append(slices.Clip(f.reason), fmt.Sprintf("endpoint %s of %d", e.w.FullName(), len(f.ends)))
}

// Lasting reports whether the Ways may be kept: nothing in them hangs on what istiod does not know.
func (w *Ways) Lasting() bool { return w.from.lasting }

// Len is how many ends there are, as a measure of how much memory the Ways take.
func (w *Ways) Len() int { return w.root.len() }

func (f *fork) len() int {
	n := 1 + len(f.ends)
	for _, k := range f.kids {
		n += k.len()
	}
	for i := range f.ends {
		if b := f.ends[i].beyond; b != nil {
			n += b.len()
		}
	}
	return n
}

// Hold reports whether the Ways are still what t would give. They must have been made from a Snapshot.
func (w *Ways) Hold(t *Table) bool {
	for _, holds := range w.from.holds {
		if !holds(t) {
			return false
		}
	}
	return true
}

// Names is what istiod calls that what the Ways were made of. The list must not be changed.
func (w *Ways) Names() []string { return w.from.names }

// Pick takes one of the Ways for a connection. Waypoints that share a Service are taken by weight. Among endpoints two are drawn by weight
// and the one with fewer open tunnels for its weight is taken; with a key it is always the same one for that key, as long as that is
// there (rendezvous hashing: when one goes, only its keys move). Endpoints that could not be reached of late are left out for a while, unless all are such.
// An error is an *Error.
func (w *Ways) Pick(key string) (hbone.Route, error) {
	return w.PickFor(w.from.target, key)
}

// PickFor is Pick for one who calls the address target.
func (w *Ways) PickFor(target, key string) (hbone.Route, error) {
	if w.plain && key == "" {
		if e := &w.ready[w.choose()]; e.state.Load() == made && len(e.hops) > 0 {
			return hbone.Route{Hops: e.hops, Service: w.service, Target: target, Reason: e.reason, Endpoint: e.load}, nil
		}
	}
	r, err := w.root.pick(key)
	r.Target = target
	return r, err
}

// choose is fork.choose of ends that weigh the same. It does without root, which would be two more loads from memory.
func (w *Ways) choose() int {
	n := len(w.ready)
	if n == 1 {
		return 0
	}
	fetch(w.loads[0], w.loads[nearby/2])
	chance := rand.Uint64() // each half is good for one of two
	a := share(uint32(chance>>32), n)
	x := w.load(a)
	if x == nil || x.Open() == 0 && !failing(x) {
		return a // nobody has fewer
	}
	b := share(uint32(chance), n-1) // of the others
	if b >= a {
		b++
	}
	y := w.load(b)
	// Both are on their way from memory before it is known which one it will be.
	w.ready[a].state.Load()
	w.ready[b].state.Load()
	switch better(x, y, 1, 1) {
	case secondBetter:
		return b
	case bothFail:
		return w.root.sound(a)
	}
	return a
}

// fetch has its arguments loaded from memory, with the lines of the processor's cache that they stand in: all of a list is on its way before it is known which of
// it is needed, and not after.
//
//go:noinline
func fetch(_, _ *hbone.Endpoint) {}

// share is one of n by a number of 32 bits that is chance.
func share(chance uint32, n int) int { return int(uint64(chance) * uint64(n) >> 32) }

// load is what is known of end i's listener; it may be nil.
func (w *Ways) load(i int) *hbone.Endpoint {
	if i < nearby {
		return w.loads[i]
	}
	return w.ready[i].load
}

func (f *fork) pick(key string) (hbone.Route, error) {
	for f.err == nil && len(f.kids) > 0 {
		f = f.kids[f.draw(len(f.kids))]
	}
	if f.err != nil {
		return hbone.Route{}, f.err
	}
	r, err := f.routeOf(f.choose(key), key)
	if err == nil || len(f.ends) == 1 {
		return r, err
	}
	// What makes no sense is left out.
	for i := range f.ends {
		if r, err := f.routeOf(i, key); err == nil {
			return r, nil
		}
	}
	return hbone.Route{}, err
}

// routeOf is the route to end i, made once, so that equal routes are one. Its Target is left out.
func (f *fork) routeOf(i int, key string) (hbone.Route, error) {
	e, ready := &f.ends[i], &f.ready[i]
	if ready.state.Load() == unmade {
		f.make(e, ready)
	}
	switch ready.state.Load() {
	case away:
		return e.beyond.pick(key)
	case senseless:
		return hbone.Route{}, e.err
	}
	r := hbone.Route{Hops: ready.hops, Service: f.service, Reason: ready.reason, Endpoint: ready.load}
	if len(r.Hops) == 0 {
		r.Direct = netip.AddrPortFrom(e.addr, e.port)
	}
	return r, nil
}

// make finds out what e is.
func (f *fork) make(e *end, ready *ready) {
	f.making.Lock()
	defer f.making.Unlock()
	if ready.state.Load() != unmade {
		return
	}
	state := uint32(made)
	if ready.hops, ready.reason, e.err = f.build(f, e); e.err != nil {
		state = senseless
	}
	ready.state.Store(state)
}

// draw is the index of one of n by weight.
func (f *fork) draw(n int) int {
	if f.sum == nil {
		return rand.IntN(n)
	}
	at := rand.Uint64N(f.sum[n-1])
	return sort.Search(n, func(i int) bool { return f.sum[i] > at })
}

func (f *fork) weight(i int) uint64 {
	switch {
	case f.sum == nil:
		return 1
	case i == 0:
		return f.sum[0]
	}
	return f.sum[i] - f.sum[i-1]
}

// choose is the end that a connection takes.
func (f *fork) choose(key string) int {
	n := len(f.ends)
	if n == 1 {
		return 0
	}
	if key != "" {
		return f.rendezvous(key)
	}
	a := f.draw(n)
	x := f.ends[a].load
	if x == nil || x.Open() == 0 && !failing(x) {
		return a // nobody has fewer
	}
	b := f.draw(n)
	if b == a {
		b = other(a, n)
	}
	switch better(x, f.ends[b].load, f.weight(a), f.weight(b)) {
	case secondBetter:
		return b
	case bothFail:
		return f.sound(a)
	}
	return a
}

// other is one of n that is not a, by chance, so that there always are two to choose from.
func other(a, n int) int { return (a + 1 + rand.IntN(n-1)) % n }

// verdict is which one of two ends to take.
type verdict int

const (
	firstBetter verdict = iota
	secondBetter
	bothFail
)

// better is the one of two ends, of which x and y are known, with fewer tunnels for its weight. The second may be nil.
func better(x, y *hbone.Endpoint, weightX, weightY uint64) verdict {
	switch xBad, yBad := failing(x), failing(y); {
	case xBad && yBad:
		return bothFail
	case xBad:
		return secondBetter
	case yBad || y == nil:
		return firstBetter
	}
	// x.open/weight against y.open/weight
	if uint64(y.Open())*weightX < uint64(x.Open())*weightY {
		return secondBetter
	}
	return firstBetter
}

// failing reports whether what has that Endpoint could not be reached of late.
func failing(e *hbone.Endpoint) bool { return e != nil && e.Failing(time.Now) }

// sound is an end from i on that does not fail, else i's.
func (f *fork) sound(i int) int {
	for j := range f.ends {
		if k := (i + j) % len(f.ends); !failing(f.ends[k].load) {
			return k
		}
	}
	return i
}

// seed is the same in every process, so that all send a key to the same endpoint.
const seed = 0x9E3779B97F4A7C15

// rendezvous is the end whose hash with key is the highest, weighted.
func (f *fork) rendezvous(key string) int {
	first, second := -1, -1 // of those that do not fail, of all
	var firstScore, secondScore float64
	h := fnv(seed, key)
	for i := range f.ends {
		e := &f.ends[i]
		// A number in (0, 1) for the pair; -weight/ln of it makes shares follow the weights.
		u := (float64(mix(fnv(h, e.w.UID))>>11) + 0.5) / (1 << 53)
		score := -float64(f.weight(i)) / math.Log(u)
		if second < 0 || score > secondScore {
			second, secondScore = i, score
		}
		if !failing(e.load) && (first < 0 || score > firstScore) {
			first, firstScore = i, score
		}
	}
	if first < 0 {
		return second
	}
	return first
}

// fnv goes on with FNV-1a.
func fnv(h uint64, s string) uint64 {
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// mix spreads what FNV leaves close together.
func mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xBF58476D1CE4E5B9
	h = (h ^ h>>27) * 0x94D049BB133111EB
	return h ^ h>>31
}

// Admit reports whether r, or what of its hops is given, is one of the Ways.
func (w *Ways) Admit(r *hbone.Route) bool { return w.root.admits(r) }

func (f *fork) admits(r *hbone.Route) bool {
	for _, k := range f.kids {
		if k.admits(r) {
			return true
		}
	}
	for i := range f.ends {
		e := &f.ends[i]
		if e.beyond != nil {
			if e.beyond.admits(r) {
				return true
			}
			continue
		}
		if e.w != nil && len(r.Hops) > 0 && e.addr != r.Hops[0].Addr.Addr() {
			continue // most are not worth building
		}
		if mine, err := f.routeOf(i, ""); err == nil && same(&mine, r) {
			return true
		}
	}
	return false
}

// same reports whether the hops that r has are those of mine.
func same(mine, r *hbone.Route) bool {
	if len(r.Hops) > len(mine.Hops) || len(r.Hops) == 0 && (len(mine.Hops) > 0 || mine.Direct != r.Direct) {
		return false
	}
	for i := range r.Hops {
		a, b := &mine.Hops[i], &r.Hops[i]
		if a.Kind != b.Kind || a.Addr != b.Addr || a.Authority != b.Authority || !slices.Equal(a.Peers, b.Peers) {
			return false
		}
	}
	return true
}
