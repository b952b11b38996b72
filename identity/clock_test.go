package identity_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isthmus-mesh/isthmus/identity"
)

// What came due while the clock was set forward, or the machine slept, is renewed within a minute; a clock that is set back changes nothing.
func TestTheClockJumps(t *testing.T) {
	for name, tt := range map[string]struct {
		by      time.Duration
		renewed bool
	}{"forward": {50 * time.Minute, true}, "a little forward": {10 * time.Minute, false}, "back": {-24 * time.Hour, false}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var ahead atomic.Int64
				var cfg identity.Config
				cfg.SetClock(func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
				f := newScript() // of certificates of an hour
				start(t, f, cfg)
				time.Sleep(90 * time.Second)
				f.called()
				ahead.Store(int64(tt.by))
				time.Sleep(70 * time.Second)
				synctest.Wait()
				if calls := f.called(); (len(calls) == 1) != tt.renewed || len(calls) > 1 {
					t.Errorf("asked at %v", calls)
				}
				time.Sleep(49 * time.Minute)
				synctest.Wait()
				if calls := f.called(); len(calls) == 0 {
					t.Error("never asked again")
				}
			})
		})
	}
}
