package run

import (
	"sync"
)

// atOnce is how many requests an edge has under way at the API server or at waypoints. With the workers of Setup it keeps the controller far
// below what priority and fairness gives one client: see Configure.
const atOnce = 8

// each calls do with 0 to n-1, at most limit at once, and waits for all that it has begun. After an error it begins no more; of several errors
// it returns that of the lowest number.
func each(n, limit int, do func(i int) error) error {
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex // guards the fields below
		next   int
		failed bool
		errs   = make([]error, n)
	)
	take := func() (int, bool) {
		mu.Lock()
		defer mu.Unlock()
		i := next
		next++
		return i, i < n && !failed
	}
	work := func() {
		for i, ok := take(); ok; i, ok = take() {
			if err := do(i); err != nil {
				mu.Lock()
				errs[i], failed = err, true
				mu.Unlock()
			}
		}
	}
	for range min(n, limit) {
		wg.Go(work)
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
