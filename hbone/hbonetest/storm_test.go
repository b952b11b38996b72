package hbonetest_test

import (
	"io"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/hbone/hbonetest"
)

// E3: clients that abort in the middle of an answer leaked streams until the gateway stood still. After thousands of aborts nothing is left, and a long-lived tunnel
// that shares the connection has noticed nothing.
func TestFieldE3AbortStorm(t *testing.T) {
	m := newMesh(t)
	l := m.listen(t, orders)
	var open sync.WaitGroup
	m.serve(t, l, shop, func(r *hbone.ConnectRequest, c *hbonetest.Conn) {
		if r.Authority == "10.0.0.7:1" {
			echo(r, c)
			return
		}
		open.Add(1)
		defer open.Done()
		defer c.Close()
		buf := make([]byte, 16<<10)
		for { // an answer without end
			if _, err := c.Write(buf); err != nil {
				return
			}
		}
	})
	long, err := m.dialer.DialContext(t.Context(), "tcp", "10.0.0.7:1")
	if err != nil {
		t.Fatal(err)
	}
	defer long.Close()
	before := runtime.NumGoroutine()
	n := 2000
	if testing.Short() {
		n = 500
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range n / 20 {
				c, err := m.dialer.DialContext(t.Context(), "tcp", app)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := io.ReadFull(c, make([]byte, 100)); err != nil {
					t.Error(err)
				}
				c.(*hbone.Conn).Reset()
			}
		})
	}
	wg.Wait()
	if err := exchange(long, []byte("still here")); err != nil {
		t.Errorf("the long-lived tunnel: %v", err)
	}
	gone := hbonetest.Go(func() (bool, error) { open.Wait(); return true, nil })
	if _, err := gone.Wait(); err != nil {
		t.Error("applications are still writing to clients that are gone")
	}
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before+10; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines are left, there were %d", runtime.NumGoroutine(), before)
		}
	}
	t.Logf("%d aborts on %d connections", n, l.Made())
}
