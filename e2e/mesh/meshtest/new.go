package meshtest

import (
	"testing"

	"github.com/isthmus-mesh/isthmus/e2e/mesh"
)

// New starts a mesh that ends with tb. What it says goes to tb's log, if o.Progress is nil.
func New(tb testing.TB, o mesh.Options) *mesh.Mesh {
	tb.Helper()
	if o.Progress == nil {
		o.Progress = tb.Output()
	}
	m, err := mesh.Start(tb.Context(), o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			m.Keep()
			tb.Logf("logs are in %s", m.Dir)
		}
		if err := m.Stop(); err != nil {
			tb.Error(err)
		}
	})
	return m
}
