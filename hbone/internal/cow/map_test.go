package cow

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
)

func content[K comparable, V any](m *Map[K, V]) map[K]V { return maps.Collect(m.All()) }

// The Map is what a plain map would be, and its snapshots stay what they were, whatever is changed afterwards on either side.
func TestMapAndItsSnapshots(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, keys := range []int{1, 8, 200, 3000} {
		var m Map[int, int]
		plain := map[int]int{}
		type past struct {
			m    Map[int, int]
			want map[int]int
		}
		var kept []past
		for step := range 4000 {
			k := rng.IntN(keys)
			if rng.IntN(3) == 0 {
				m.Delete(k)
				delete(plain, k)
			} else {
				m.Set(k, step)
				plain[k] = step
			}
			if step%400 == 0 {
				kept = append(kept, past{m.Snapshot(), maps.Clone(plain)})
			}
			v, ok := m.Lookup(k)
			if want, there := plain[k]; v != want || ok != there {
				t.Fatalf("%d: %d, %v, want %d, %v", k, v, ok, want, there)
			}
		}
		if !maps.Equal(content(&m), plain) || m.Len() != len(plain) {
			t.Fatalf("%d keys: the map is not what was set", keys)
		}
		kept[0].m.Set(-1, 1) // a snapshot may be changed, too
		kept[0].want[-1] = 1
		for i, p := range kept {
			if !maps.Equal(content(&p.m), p.want) || p.m.Len() != len(p.want) {
				t.Fatalf("%d keys: snapshot %d has changed", keys, i)
			}
		}
		for k := range plain {
			m.Delete(k)
		}
		m.Delete(-7)
		if m.Len() != 0 || len(content(&m)) != 0 || len(m.root.kids) != 0 {
			t.Fatalf("%d keys: something is left", keys)
		}
	}
}

// Keys of one hash lie beside each other at the deepest level.
func TestKeysOfOneHash(t *testing.T) {
	var m Map[string, int]
	m.Set("first", 1)
	const h = 0
	m.own = &owner{}
	for i := range 5 {
		m.root, _ = m.set(m.root, h, deep, entry[string, int]{fmt.Sprint(i), i})
		m.root, _ = m.set(m.root, h, deep, entry[string, int]{fmt.Sprint(i), 10 * i})
	}
	for i := range 5 {
		if at := m.root.index(fmt.Sprint(i)); at < 0 || m.root.entries[at].value != 10*i {
			t.Errorf("%d is at %d", i, at)
		}
	}
	m.root = m.remove(m.root, h, deep, "2")
	if m.root.index("2") >= 0 || m.root.index("3") < 0 {
		t.Error("the wrong one was removed")
	}
}

func TestReadersBesideAWriter(t *testing.T) {
	var m Map[int, int]
	for i := range 1000 {
		m.Set(i, i)
	}
	var wg sync.WaitGroup
	for range 20 {
		s := m.Snapshot()
		wg.Go(func() {
			for i := range 1000 {
				if v, ok := s.Lookup(i); !ok || v%1000 != i {
					t.Errorf("%d: %d, %v", i, v, ok)
					return
				}
			}
		})
		for i := range 1000 {
			m.Set(i, s.Get(i)+1000)
		}
	}
	wg.Wait()
}

func BenchmarkLookup(b *testing.B) {
	var m Map[string, int]
	keys := make([]string, 100_000)
	for i := range keys {
		keys[i] = fmt.Sprintf("Kubernetes//Pod/namespace-%d/pod-%d", i%100, i)
		m.Set(keys[i], i)
	}
	s := m.Snapshot()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		s.Get(keys[i%len(keys)])
	}
}

func BenchmarkSetAfterASnapshot(b *testing.B) {
	var m Map[string, int]
	keys := make([]string, 100_000)
	for i := range keys {
		keys[i] = fmt.Sprintf("Kubernetes//Pod/namespace-%d/pod-%d", i%100, i)
		m.Set(keys[i], i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		m.Snapshot()
		m.Set(keys[i%len(keys)], i)
	}
}
