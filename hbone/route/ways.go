package route

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sort"
	"sync/atomic"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone"
)

// Ways is where an address leads: one way, or several of which each connection takes one. Any number of goroutines may use it.
type Ways struct {
	root    *fork
	holds   []func(*Table) bool
	names   []string
	lasting bool
}

// fork is several ways. It has kids (waypoints that share the connections), or ends (pods).
type fork struct {
	err    error // there is no way here
	reason []string
	kids   []*fork
	ends   []end
	sum    []uint64 // of weights up to and with each kid or end; nil: all weigh the same
	build  func(*end) (hbone.Route, error)
}

// end is one way.
type end struct {
	w      *Workload
	addr   netip.Addr // zero: reached through a gateway
	port   uint16
	load   *hbone.Endpoint // may be nil
	beyond *fork           // the gateways to it, for one on another network
	built  atomic.Pointer[built]
}

// built is what came of an end.
type built struct {
	route hbone.Route
	err   error
}

func newFork(q *query, ends []end) *fork {
	f := &fork{reason: slices.Clip(q.reason), ends: ends}
	weight := func(i int) uint64 { return uint64(max(1, ends[i].w.Capacity)) }
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

// fixed is the one way that there is.
func (q *query) fixed(r hbone.Route) *fork {
	f := &fork{ends: make([]end, 1)}
	f.ends[0].built.Store(&built{route: r})
	return f
}

// reason is f's, and the choice of e.
func (e *end) reason(f *fork) []string {
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
	for {
		switch {
		case f.err != nil:
			return hbone.Route{}, f.err
		case len(f.kids) > 0:
			f = f.kids[f.draw(len(f.kids))]
			continue
		}
		e := f.choose(key)
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
}

// routeOf is the route to e, made once.
func (f *fork) routeOf(e *end, key string) (hbone.Route, error) {
	if e.beyond != nil {
		return e.beyond.pick(key)
	}
	b := e.built.Load()
	if b == nil {
		b = &built{}
		b.route, b.err = f.build(e)
		if !e.built.CompareAndSwap(nil, b) {
			b = e.built.Load() // the same for all, so that equal routes are one
		}
	}
	return b.route, b.err
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

func (f *fork) choose(key string) *end {
	n := len(f.ends)
	if n == 1 {
		return &f.ends[0]
	}
	if key != "" {
		return &f.ends[f.rendezvous(key)]
	}
	a, b := f.draw(n), f.draw(n)
	if b == a { // by chance beside it, so that there always are two
		b = (a + 1 + rand.IntN(n-1)) % n
	}
	x, y := &f.ends[a], &f.ends[b]
	switch xBad, yBad := x.failing(), y.failing(); {
	case xBad && yBad:
		return f.sound(a)
	case xBad:
		return y
	case yBad || x.load == nil || y.load == nil:
		return x
	}
	// x.open/weight against y.open/weight
	if uint64(y.load.Open())*f.weight(a) < uint64(x.load.Open())*f.weight(b) {
		return y
	}
	return x
}

// failing reports whether e could not be reached of late.
func (e *end) failing() bool { return e.load != nil && e.load.Failing(time.Now) }

// sound is an end from i on that does not fail, else i's.
func (f *fork) sound(i int) *end {
	for j := range f.ends {
		if e := &f.ends[(i+j)%len(f.ends)]; !e.failing() {
			return e
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
		if !e.failing() && (first < 0 || score > firstScore) {
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
