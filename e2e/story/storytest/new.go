package storytest

import (
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/story"
)

// New starts a world that ends with tb. What it says goes to tb's log.
func New(tb testing.TB) *story.World {
	tb.Helper()
	w, err := story.Start(tb.Context(), tb.Output())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			w.Keep()
			tb.Logf("logs are in %s", w.Dir)
		}
		if err := w.Stop(); err != nil {
			tb.Error(err)
		}
	})
	tb.Logf("the scene is set after %v", w.Took.Round(10*time.Millisecond))
	return w
}
