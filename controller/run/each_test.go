package run

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestEachKeepsToItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most, done atomic.Int32
		begin := time.Now()
		err := each(20, 4, func(int) error {
			for n := now.Add(1); n > most.Load(); {
				most.Store(n)
			}
			time.Sleep(time.Second)
			now.Add(-1)
			done.Add(1)
			return nil
		})
		if err != nil || done.Load() != 20 || most.Load() != 4 || time.Since(begin) != 5*time.Second {
			t.Errorf("%v, %d done, %d at once, in %v", err, done.Load(), most.Load(), time.Since(begin))
		}
	})
}

func TestEachBeginsNoMoreAfterAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var began atomic.Int32
		err := each(20, 4, func(i int) error {
			began.Add(1)
			time.Sleep(time.Duration(i) * time.Second)
			if i == 1 || i == 2 {
				return fmt.Errorf("%w %d", errors.ErrUnsupported, i)
			}
			return nil
		})
		// 0 makes room for 4 before 1 fails; 2 and 3 are under way.
		if err == nil || err.Error() != errors.ErrUnsupported.Error()+" 1" || began.Load() != 5 {
			t.Errorf("%v after %d", err, began.Load())
		}
	})
	if err := each(0, 4, nil); err != nil {
		t.Error(err)
	}
}
