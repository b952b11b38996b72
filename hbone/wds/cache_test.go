package wds

import (
	"fmt"
	"sync"
	"testing"

	"github.com/isthmus-mesh/isthmus/hbone/route"
	"github.com/isthmus-mesh/isthmus/hbone/wds/wdstest"
)

// waysTo are ways that may be kept, and the table that they were made from.
func waysTo(tb testing.TB, n int) (*route.Ways, *view) {
	tb.Helper()
	t := route.NewTable()
	t.SetService(wdstest.FillService(n))
	t.SetWorkload(wdstest.FillWorkload(n, 0))
	v := &view{table: t.Snapshot(), version: 1}
	w, err := v.table.Ways(route.Source{Namespace: "edge"}, addressOf(n), func(string) bool { return false })
	if err != nil {
		tb.Fatal(err)
	}
	return w, v
}

// It has what was put there last, however often it grew, and after a sweep what was used.
func TestCache(t *testing.T) {
	const n = 5000
	var c cache
	first, v := waysTo(t, 0)
	other, _ := waysTo(t, 1)
	of := func(i int) string { return fmt.Sprint("address-", i, ":80") }
	if c.get(of(0), v, 0) != nil {
		t.Error("an empty one has something")
	}
	for i := range n {
		c.put(of(i), other, v, 0)
		if i%3 > 0 {
			c.put(of(i), first, v, 0) // in its place
		}
	}
	target := func(i int) string {
		w := c.get(of(i), v, int64(i%2))
		if w == nil {
			return ""
		}
		r, err := w.Pick("")
		if err != nil {
			t.Fatal(err)
		}
		return r.Target
	}
	for i := range n {
		want := addressOf(0)
		if i%3 == 0 {
			want = addressOf(1)
		}
		if got := target(i); got != want {
			t.Fatalf("%s leads to %q, want %q", of(i), got, want)
		}
	}
	if x := c.now.Load(); x.taken != n || len(x.slots) < 2*n || len(x.slots) > 8*n {
		t.Errorf("%d slots, %d of them taken", len(x.slots), x.taken)
	}
	used := map[string]bool{}
	c.sweep(1, used)
	for i := range n {
		if got := c.get(of(i), v, 1); (got != nil) != (i%2 == 1) {
			t.Fatalf("%s is there: %v", of(i), got != nil)
		}
	}
	if len(used) == 0 || c.now.Load().taken != n/2 {
		t.Errorf("%d are left, of %v", c.now.Load().taken, used)
	}
}

// It does not grow without end.
func TestCacheIsBounded(t *testing.T) {
	var c cache
	w, v := waysTo(t, 0)
	for i := range maxCached + 10 {
		c.put(fmt.Sprint(i), w, v, 0)
	}
	if x := c.now.Load(); x.taken > 10 || c.get(fmt.Sprint(maxCached+5), v, 0) == nil || c.get("5", v, 0) != nil {
		t.Errorf("%d are left", x.taken)
	}
}

// Readers find what was there before they began, while a writer adds, replaces and sweeps.
func TestCacheUnderReaders(t *testing.T) {
	const kept, added = 100, 3000
	var c cache
	w, v := waysTo(t, 0)
	for i := range kept {
		c.put(fmt.Sprint("kept-", i), w, v, 1)
	}
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if c.get(fmt.Sprint("kept-", i%kept), v, 1) == nil {
					t.Error("what was there is not found")
					return
				}
			}
		})
	}
	for i := range added {
		c.put(fmt.Sprint("added-", i), w, v, 0)
		c.put(fmt.Sprint("kept-", i%kept), w, v, 1)
		if i%500 == 499 {
			c.sweep(1, map[string]bool{})
		}
	}
	close(stop)
	readers.Wait()
}
