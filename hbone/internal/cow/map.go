package cow

import (
	"hash/maphash"
	"iter"
	"math/bits"
	"slices"
)

const (
	width = 5            // bits of the hash that a level takes
	mask  = 1<<width - 1 // of one level
	deep  = 60           // bits after which keys are merely listed
)

// Map is a map whose Snapshot may be read by any number of goroutines while the Map itself is changed by one. The zero value is empty.
type Map[K comparable, V any] struct {
	root *node[K, V]
	n    int
	seed maphash.Seed
	own  *owner // of nodes that no snapshot has; nil: there are none
}

// owner marks the nodes that may be changed in place. It is not empty, so that no two are alike.
type owner struct{ _ byte }

// node is one level. Entries and kids are sorted by their slots, of which the bitmaps tell; at the deepest level entries are all there is.
type node[K comparable, V any] struct {
	own     *owner
	held    uint32 // slots of entries
	below   uint32 // slots of kids
	entries []entry[K, V]
	kids    []*node[K, V]
}

type entry[K comparable, V any] struct {
	key   K
	value V
}

// Len is how many keys there are.
func (m *Map[K, V]) Len() int { return m.n }

// Get is the value of key, V's zero when there is none.
func (m *Map[K, V]) Get(key K) V {
	v, _ := m.Lookup(key)
	return v
}

// Lookup is the value of key, and whether there is one.
func (m *Map[K, V]) Lookup(key K) (v V, ok bool) {
	n := m.root
	if n == nil {
		return v, false
	}
	h := maphash.Comparable(m.seed, key)
	for shift := 0; shift < deep; shift += width {
		bit := uint32(1) << (h >> shift & mask)
		if n.held&bit != 0 {
			if e := &n.entries[at(n.held, bit)]; e.key == key {
				return e.value, true
			}
			return v, false
		}
		if n.below&bit == 0 {
			return v, false
		}
		n = n.kids[at(n.below, bit)]
	}
	if i := n.index(key); i >= 0 {
		return n.entries[i].value, true
	}
	return v, false
}

// at is the place of a slot among those in a bitmap.
func at(bitmap, bit uint32) int { return bits.OnesCount32(bitmap & (bit - 1)) }

// index finds key at the deepest level.
func (n *node[K, V]) index(key K) int {
	return slices.IndexFunc(n.entries, func(e entry[K, V]) bool { return e.key == key })
}

// Snapshot is the map as it is now. Changes of either do not change the other.
func (m *Map[K, V]) Snapshot() Map[K, V] {
	m.own = nil
	return *m
}

// Set gives key a value.
func (m *Map[K, V]) Set(key K, value V) {
	if m.root == nil {
		m.seed = maphash.MakeSeed()
		m.root = &node[K, V]{}
	}
	if m.own == nil {
		m.own = &owner{}
	}
	root, added := m.set(m.root, maphash.Comparable(m.seed, key), 0, entry[K, V]{key, value})
	m.root = root
	if added {
		m.n++
	}
}

// mine is n, or a copy of it that may be changed.
func (m *Map[K, V]) mine(n *node[K, V]) *node[K, V] {
	if n.own == m.own {
		return n
	}
	return &node[K, V]{own: m.own, held: n.held, below: n.below, entries: slices.Clone(n.entries), kids: slices.Clone(n.kids)}
}

func (m *Map[K, V]) set(n *node[K, V], h uint64, shift int, e entry[K, V]) (_ *node[K, V], added bool) {
	n = m.mine(n)
	if shift >= deep {
		if i := n.index(e.key); i >= 0 {
			n.entries[i] = e
			return n, false
		}
		n.entries = append(n.entries, e)
		return n, true
	}
	bit := uint32(1) << (h >> shift & mask)
	switch {
	case n.below&bit != 0:
		i := at(n.below, bit)
		n.kids[i], added = m.set(n.kids[i], h, shift+width, e)
		return n, added
	case n.held&bit == 0:
		n.entries = slices.Insert(n.entries, at(n.held, bit), e)
		n.held |= bit
		return n, true
	}
	i := at(n.held, bit)
	if n.entries[i].key == e.key {
		n.entries[i] = e
		return n, false
	}
	// Two share the slot: both go a level down.
	other := n.entries[i]
	n.entries = slices.Delete(n.entries, i, i+1)
	n.held &^= bit
	kid := &node[K, V]{own: m.own}
	kid, _ = m.set(kid, maphash.Comparable(m.seed, other.key), shift+width, other)
	kid, _ = m.set(kid, h, shift+width, e)
	n.kids = slices.Insert(n.kids, at(n.below, bit), kid)
	n.below |= bit
	return n, true
}

// Delete takes key away.
func (m *Map[K, V]) Delete(key K) {
	if _, ok := m.Lookup(key); !ok {
		return
	}
	if m.own == nil {
		m.own = &owner{}
	}
	m.root = m.remove(m.root, maphash.Comparable(m.seed, key), 0, key)
	m.n--
}

// remove takes key, which is there, from below n.
func (m *Map[K, V]) remove(n *node[K, V], h uint64, shift int, key K) *node[K, V] {
	n = m.mine(n)
	if shift >= deep {
		i := n.index(key)
		n.entries = slices.Delete(n.entries, i, i+1)
		return n
	}
	bit := uint32(1) << (h >> shift & mask)
	if n.held&bit != 0 {
		i := at(n.held, bit)
		n.entries = slices.Delete(n.entries, i, i+1)
		n.held &^= bit
		return n
	}
	i := at(n.below, bit)
	kid := m.remove(n.kids[i], h, shift+width, key)
	n.kids[i] = kid
	if len(kid.kids) > 0 || len(kid.entries) > 1 {
		return n
	}
	// What is alone down there, or nothing, comes up again.
	n.kids = slices.Delete(n.kids, i, i+1)
	n.below &^= bit
	if len(kid.entries) == 1 {
		n.entries = slices.Insert(n.entries, at(n.held, bit), kid.entries[0])
		n.held |= bit
	}
	return n
}

// All gives keys and values in no order. The map must not be changed meanwhile; a Snapshot of it may.
func (m *Map[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		if m.root != nil {
			m.root.all(yield)
		}
	}
}

func (n *node[K, V]) all(yield func(K, V) bool) bool {
	for i := range n.entries {
		if !yield(n.entries[i].key, n.entries[i].value) {
			return false
		}
	}
	for _, k := range n.kids {
		if !k.all(yield) {
			return false
		}
	}
	return true
}
