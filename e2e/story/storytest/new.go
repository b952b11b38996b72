package storytest

import (
	"fmt"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/story"
)

// New starts a world that ends with tb. What it says goes to tb's log.
func New(tb testing.TB) *story.World {
	tb.Helper()
	s := &Shared{}
	w := s.Get(tb)
	tb.Cleanup(func() {
		if err := s.Stop(tb.Failed()); err != nil {
			tb.Error(err)
		}
	})
	return w
}

// Shared is one world for several tests, started by the first that asks; each leaves the scene as it was. Tests that share it do not
// run at the same time. Main ends it.
type Shared struct{ world *story.World }

// Get returns the world, and fails tb when it could not be started. A test that fails ends it, so that the next one gets a new one.
func (s *Shared) Get(tb testing.TB) *story.World {
	tb.Helper()
	if s.world == nil {
		w, err := story.Start(tb.Context(), tb.Output())
		if err != nil {
			tb.Fatal(err)
		}
		tb.Logf("the scene is set after %v", w.Took.Round(10*time.Millisecond))
		s.world = w
	}
	tb.Cleanup(func() {
		if !tb.Failed() {
			return
		}
		if err := s.Stop(true); err != nil {
			tb.Error(err)
		}
	})
	return s.world
}

// Stop ends the world, if there is one, and keeps its folder where something has failed.
func (s *Shared) Stop(failed bool) error {
	w := s.world
	if s.world = nil; w == nil {
		return nil
	}
	if failed {
		w.Keep()
		fmt.Println("logs are in", w.Dir)
	}
	return w.Stop()
}

// Main runs the tests, ends the worlds that they share, and returns the exit code.
func Main(m *testing.M, worlds ...*Shared) int {
	code := m.Run()
	for _, s := range worlds {
		if err := s.Stop(code != 0); err != nil {
			fmt.Println(err)
			code = 1
		}
	}
	return code
}
