package mesh

import (
	"os"

	"github.com/isthmus-mesh/isthmus/e2e/world"
)

// makeDir makes the mesh's folder.
func (m *Mesh) makeDir() error {
	m.Dir = m.opts.Dir
	if m.Dir == "" {
		dir, err := world.NewTempDir("mesh")
		if err != nil {
			return err
		}
		m.Dir, m.temp = dir.Path, dir
	}
	for _, d := range []string{"logs", "pki", "etcd", "node"} {
		if err := os.MkdirAll(m.path(d), 0o755); err != nil {
			return world.Full(err)
		}
	}
	return nil
}

// leaveDir removes the folder, or leaves it for people to look into. One that the caller gave stays.
func (m *Mesh) leaveDir(remove bool) error {
	switch {
	case m.temp == nil:
		return nil
	case remove:
		return m.temp.Remove()
	}
	return m.temp.Keep()
}
