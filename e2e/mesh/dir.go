package mesh

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	dirPrefix = "isthmus-mesh-"
	// runningFile is in a temporary folder, and locked, while its mesh runs. A folder that is kept has none. So a folder whose
	// file is not locked belonged to a program that was killed.
	runningFile = ".running"
)

// makeDir makes the mesh's folder, and removes those that killed programs have left.
func (m *Mesh) makeDir() error {
	m.Dir = m.opts.Dir
	if m.Dir == "" {
		sweep(os.TempDir())
		dir, err := os.MkdirTemp("", dirPrefix)
		if err != nil {
			return full(err)
		}
		m.Dir = dir
		// It gets its name when it is locked already: others sweep at any time.
		unnamed := filepath.Join(dir, "lock")
		if m.running, err = lockFile(unnamed, os.O_CREATE); err != nil {
			return full(err)
		}
		if err := os.Rename(unnamed, filepath.Join(dir, runningFile)); err != nil {
			return err
		}
	}
	for _, d := range []string{"logs", "pki", "etcd", "node"} {
		if err := os.MkdirAll(filepath.Join(m.Dir, d), 0o755); err != nil {
			return full(err)
		}
	}
	return nil
}

// full adds a remedy to what a full disk answers.
func full(err error) error {
	if errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("%w: a mesh needs about 200 MB; make room, or set TMPDIR to a folder on another disk", err)
	}
	return err
}

// lockFile opens a file and locks it, or fails when another program has it.
func lockFile(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|flags, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// sweep removes what it may remove: nothing depends on it.
func sweep(temp string) {
	files, err := filepath.Glob(filepath.Join(temp, dirPrefix+"*", runningFile))
	if err != nil {
		return
	}
	for _, path := range files {
		f, err := lockFile(path, 0)
		if err != nil {
			continue // it runs, or is another user's
		}
		_ = os.RemoveAll(filepath.Dir(path))
		f.Close()
	}
}

// leaveDir removes the folder, or leaves it for people to look into.
func (m *Mesh) leaveDir(remove bool) error {
	if m.running == nil {
		return nil
	}
	defer m.running.Close()
	if remove {
		return os.RemoveAll(m.Dir)
	}
	return os.Remove(filepath.Join(m.Dir, runningFile))
}
