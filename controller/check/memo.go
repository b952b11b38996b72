package check

import (
	"sync"
	"sync/atomic"
)

// memo keeps what was made for keys, for checks that run at the same time. Its zero value is empty.
type memo[K comparable, V any] struct {
	mu   sync.Mutex // guards made; not held while something is made, which may ask for more
	made map[K]V
}

// of is what was made for a key. Where there is nothing yet it is made: two who ask at once may both make it, and both get the same one.
func (m *memo[K, V]) of(key K, of func() V) V {
	m.mu.Lock()
	v, there := m.made[key]
	m.mu.Unlock()
	if there {
		return v
	}
	v = of()
	m.mu.Lock()
	defer m.mu.Unlock()
	if first, there := m.made[key]; there {
		return first
	}
	if m.made == nil {
		m.made = map[K]V{}
	}
	m.made[key] = v
	return v
}

// lazy keeps what is made when it is first asked for, for checks that run at the same time. Its zero value has nothing yet.
type lazy[V any] struct {
	mu   sync.Mutex // held while it is made
	made atomic.Pointer[V]
}

// of makes it, where nobody has: who asks meanwhile waits. What makes it may not ask for it.
func (l *lazy[V]) of(of func() V) V {
	if v := l.made.Load(); v != nil {
		return *v
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if v := l.made.Load(); v != nil {
		return *v
	}
	v := of()
	l.made.Store(&v)
	return v
}
