package run

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// away is a cache that cannot tell which kinds there are until some time has passed.
type away struct {
	cache.Cache
	until time.Time
}

func (a away) GetInformer(context.Context, client.Object, ...cache.InformerGetOption) (cache.Informer, error) {
	if time.Now().Before(a.until) {
		return nil, errors.New("connection refused")
	}
	return newInformer(true), nil
}

// TestACacheWaitsForAnAPIServerThatIsAway: a manager asks its cache once, and waits for ever when the answer is no.
func TestACacheWaitsForAnAPIServerThatIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		c := typedCache{away{until: begin.Add(5 * time.Second)}, newDenied().over}
		if full := c.WaitForCacheSync(t.Context()); !full || time.Since(begin) > 7*time.Second {
			t.Errorf("full: %v after %v, and the API server was away for 5 s", full, time.Since(begin))
		}
	})
}

// TestACacheThatIsStoppedSaysWhy: by whoever stops the manager, or as nobody is to wait any more.
func TestACacheThatIsStoppedSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, over := range []bool{false, true} {
			d := newDenied()
			c := typedCache{away{until: time.Now().Add(time.Hour)}, d.over}
			ctx, cancel := context.WithCancel(t.Context())
			begin := time.Now()
			if over {
				time.AfterFunc(3*time.Second, d.release)
			} else {
				time.AfterFunc(3*time.Second, cancel)
			}
			if full := c.WaitForCacheSync(ctx); full != over || time.Since(begin) != 3*time.Second {
				t.Errorf("nobody is to wait: %v; it says that it is full: %v, after %v", over, full, time.Since(begin))
			}
			cancel()
		}
	})
}
