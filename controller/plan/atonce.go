package plan

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// AtOnce calls do with 0 to n-1, each once and in no order, on as many goroutines as there are processors, and returns when all calls have. What do changes for
// one number nobody else looks at meanwhile. None or a negative n calls nothing.
func AtOnce(n int, do func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), n) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	wg.Wait()
}
