package world

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	dirPrefix = "isthmus-"
	// runningFile is in a temporary folder, and locked, while its program runs. A folder that is kept has none. So a folder whose
	// file is not locked belonged to a program that was killed.
	runningFile = ".running"
)

// TempDir is a temporary folder that goes even when its program is killed: the next program that makes one, or calls Sweep, removes it.
type TempDir struct {
	Path    string
	running *os.File
}

// NewTempDir makes a folder isthmus-name-* in os.TempDir, and removes those that killed programs have left. The caller ends it with
// Remove or Keep. An error on a full disk says what to do.
func NewTempDir(name string) (*TempDir, error) {
	Sweep()
	path, err := os.MkdirTemp("", dirPrefix+name+"-")
	if err != nil {
		return nil, Full(err)
	}
	d := &TempDir{Path: path}
	// The file gets its name when it is locked already: others sweep at any time.
	unnamed := filepath.Join(path, "lock")
	if d.running, err = lockFile(unnamed, os.O_CREATE); err != nil {
		return nil, errors.Join(Full(err), os.RemoveAll(path))
	}
	if err := os.Rename(unnamed, filepath.Join(path, runningFile)); err != nil {
		return nil, errors.Join(err, d.Remove())
	}
	return d, nil
}

// Remove removes the folder and all in it.
func (d *TempDir) Remove() error {
	defer d.running.Close()
	return os.RemoveAll(d.Path)
}

// Keep leaves the folder for people to look into.
func (d *TempDir) Keep() error {
	defer d.running.Close()
	return os.Remove(filepath.Join(d.Path, runningFile))
}

// Sweep removes the folders of killed programs, as far as it may: nothing depends on it.
func Sweep() {
	files, err := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*", runningFile))
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

// Full adds a remedy to what a full disk answers; another error stays as it is.
func Full(err error) error {
	if errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("%w: a mesh needs about 300 MB; make room, or set TMPDIR to a folder on another disk", err)
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
