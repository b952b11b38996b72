package meshtest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/mesh"
)

// startTime bounds Shared.Start, which builds what is not there yet.
const startTime = 30 * time.Minute

// Shared is one mesh for the tests of a package, started by the first that asks. Tests take namespaces of their own. Main ends it.
type Shared struct {
	// Start starts the mesh and makes what all tests need. It may return both a mesh and an error: the mesh is ended, and its folder stays.
	Start func(context.Context) (*mesh.Mesh, error)
	// End ends, before the mesh, what Start has begun beside it. Nil: nothing.
	End func()

	once sync.Once
	mesh *mesh.Mesh
	err  error
}

// Get returns the mesh, and fails tb when it could not be started. It blocks while it starts.
func (s *Shared) Get(tb testing.TB) *mesh.Mesh {
	tb.Helper()
	s.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), startTime)
		defer cancel()
		s.mesh, s.err = s.Start(ctx)
	})
	if s.err != nil {
		tb.Fatal(s.err)
	}
	return s.mesh
}

// Stop ends the mesh, if there is one, and keeps its folder where something has failed. Nobody can Get it any more; a second call does nothing.
func (s *Shared) Stop(failed bool) error {
	m := s.mesh
	if s.mesh = nil; m == nil {
		return nil
	}
	if s.End != nil && s.err == nil {
		s.End()
	}
	if failed || s.err != nil {
		m.Keep()
		fmt.Println("logs are in", m.Dir)
	}
	if s.err == nil {
		s.err = fmt.Errorf("the mesh %s was stopped: another test needs it still", m.Dir)
	}
	return m.Stop()
}

// Main runs the tests, ends the meshes that they share, and returns the exit code.
func Main(m *testing.M, meshes ...*Shared) int {
	code := m.Run()
	failed := code != 0
	for _, s := range meshes {
		if err := s.Stop(failed); err != nil {
			fmt.Println(err)
			code = 1
		}
	}
	return code
}
