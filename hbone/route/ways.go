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
type Ways struct {
	root    fork
	holds   []func(*Table) bool
	names   []string
	lasting bool
}

// fork is several ways. It has kids (waypoints that share the connections), or ends (pods). What a choice among ends needs comes first, and the Endpoints of
// the first ends are here too: so that they and the ends are loaded from memory at once, and not one after the other.
type fork struct {
	ends    []end
	plain   bool // the ends weigh the same and are all there is to choose from
	loads   [16]*hbone.Endpoint
	target  string // what was dialled
	service string // the Service's hostname when the address names one
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

// end is one way. What a connection takes of it comes first, 64 bytes, and all ends begin a line of the processor's cache where their list does.
type end struct {
	state  atomic.Uint32 // what is set before it is changed is not changed any more
	port   uint16
	load   *hbone.Endpoint // may be nil
	hops   []hbone.Hop     // empty: plain TCP to addr and port
	reason []string

	w      *Workload
	addr   netip.Addr // zero: reached through a gateway
	beyond *fork      // the gateways to it, for one on another network
	err    error      // why it makes no sense
	_      [8]byte
}

func newFork(q *query, ends []end) *fork {
	f := &fork{reason: slices.Clip(q.reason), ends: ends, target: q.target, making: new(sync.Mutex)}
	weight := func(i int) uint64 { return uint64(max(1, ends[i].w.Capacity)) }
	for i := range min(len(ends), len(f.loads)) {
		f.loads[i] = ends[i].load
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
	f := &fork{ends: make([]end, 1), target: q.target}
	e := &f.ends[0]
	e.addr, e.port, e.reason = at.Addr(), at.Port(), q.reason
	e.state.Store(made)
	return f
}

// whole is f as it stands.
func (f *fork) whole() fork {
	f.plain = f.err == nil && len(f.kids) == 0 && f.sum == nil
	return *f
}

// chosen is f's reason, and the choice of e.
func (e *end) chosen(f *fork) []string {
	return append(slices.Clip(f.reason), fmt.Sprintf("endpoint %s of %d", e.w.FullName(), len(f.ends)))
}

// Lasting reports whether the Ways may be kept: nothing in them hangs on what istiod does not know.
func (w *Ways) Lasting() bool { return w.lasting }

// Hold reports whether the Ways are still what t would give. They must have been made from a Snapshot.
func (w *Ways) Hold(t *Table) bool {
	for _, holds := range w.holds {
		if !holds(t) {
			return false
		}
	}
	return true
}

// Names is what istiod calls that what the Ways were made of. The list must not be changed.
func (w *Ways) Names() []string { return w.names }

// Pick takes one of the Ways for a connection. Waypoints that share a Service are taken by weight. Among endpoints two are drawn by weight
// and the one with fewer open tunnels for its weight is taken; with a key it is always the same one for that key, as long as that is
// there (rendezvous hashing: when one goes, only its keys move). Endpoints that could not be reached of late are left out for a while, unless all are such.
// An error is an *Error.
func (w *Ways) Pick(key string) (hbone.Route, error) { return w.root.pick(key) }

func (f *fork) pick(key string) (hbone.Route, error) {
	for !f.plain {
		switch {
		case f.err != nil:
			return hbone.Route{}, f.err
		case len(f.kids) > 0:
			f = f.kids[f.draw(len(f.kids))]
			continue
		}
		break
	}
	e := f.choose(key)
	if e.state.Load() == made {
		return f.route(e), nil
	}
	r, err := f.routeOf(e, key)
	if err == nil || len(f.ends) == 1 {
		return r, err
	}
	// What makes no sense is left out.
	for i := range f.ends {
		if r, err := f.routeOf(&f.ends[i], key); err == nil {
			return r, nil
		}
	}
	return hbone.Route{}, err
}

// routeOf is the route to e, made once, so that equal routes are one.
func (f *fork) routeOf(e *end, key string) (hbone.Route, error) {
	if e.state.Load() == unmade {
		f.make(e)
	}
	switch e.state.Load() {
	case away:
		return e.beyond.pick(key)
	case senseless:
		return hbone.Route{}, e.err
	}
	return f.route(e), nil
}

// make finds out what e is.
func (f *fork) make(e *end) {
	f.making.Lock()
	defer f.making.Unlock()
	if e.state.Load() != unmade {
		return
	}
	state := uint32(made)
	if e.hops, e.reason, e.err = f.build(f, e); e.err != nil {
		state = senseless
	}
	e.state.Store(state)
}

// route is the one to e, which is made.
func (f *fork) route(e *end) hbone.Route {
	r := hbone.Route{Hops: e.hops, Service: f.service, Target: f.target, Reason: e.reason, Endpoint: e.load}
	if len(e.hops) == 0 {
		r.Direct = netip.AddrPortFrom(e.addr, e.port)
	}
	return r
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

// load is what is known of end i's listener; it may be nil.
func (f *fork) load(i int) *hbone.Endpoint {
	if i < len(f.loads) {
		return f.loads[i]
	}
	return f.ends[i].load
}

func (f *fork) choose(key string) *end {
	n := len(f.ends)
	if n == 1 {
		return &f.ends[0]
	}
	if key != "" {
		return &f.ends[f.rendezvous(key)]
	}
	a := f.draw(n)
	x := f.load(a)
	if x == nil || x.Open() == 0 && !failing(x) {
		return &f.ends[a] // nobody has fewer
	}
	b := f.draw(n)
	if b == a { // by chance beside it, so that there always are two
		b = (a + 1 + rand.IntN(n-1)) % n
	}
	y := f.load(b)
	// Both are on their way from memory before it is known which one it will be.
	f.ends[a].state.Load()
	f.ends[b].state.Load()
	switch xBad, yBad := failing(x), failing(y); {
	case xBad && yBad:
		return f.sound(a)
	case xBad:
		return &f.ends[b]
	case yBad || y == nil:
		return &f.ends[a]
	}
	// x.open/weight against y.open/weight
	if uint64(y.Open())*f.weight(a) < uint64(x.Open())*f.weight(b) {
		return &f.ends[b]
	}
	return &f.ends[a]
}

// failing reports whether what has that Endpoint could not be reached of late.
func failing(e *hbone.Endpoint) bool { return e != nil && e.Failing(time.Now) }

// sound is an end from i on that does not fail, else i's.
func (f *fork) sound(i int) *end {
	for j := range f.ends {
		if k := (i + j) % len(f.ends); !failing(f.ends[k].load) {
			return &f.ends[k]
		}
	}
	return &f.ends[i]
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
		if mine, err := f.routeOf(e, ""); err == nil && same(&mine, r) {
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
