package run

import (
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

func TestChangesAreGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pace
		e := types.NamespacedName{Namespace: "edge", Name: "public"}
		first := time.Now()
		if wait := p.changed(e); wait != 0 {
			t.Errorf("the first change waits for %v", wait)
		}
		time.Sleep(10 * time.Millisecond)
		p.changed(e)
		if since := p.begin(e); !since.Equal(first) {
			t.Errorf("it waits since %v, want since the first change", since)
		}
		if wait := p.changed(e); wait != gather {
			t.Errorf("while it is reconciled a change waits for %v", wait)
		}
		p.end(e, time.Time{})
		time.Sleep(gather / 2)
		if wait := p.changed(e); wait != gather/2 {
			t.Errorf("soon after a change waits for %v", wait)
		}
		time.Sleep(gather)
		if wait := p.changed(e); wait != 0 {
			t.Errorf("later a change waits for %v", wait)
		}
		since := p.begin(e)
		p.end(e, since) // it has failed
		if again := p.begin(e); !again.Equal(since) {
			t.Errorf("after an error it waits since %v, want %v", again, since)
		}
		p.end(e, time.Time{})
		if again := p.begin(e); !again.IsZero() {
			t.Errorf("nothing has changed, and something waits since %v", again)
		}
	})
}
