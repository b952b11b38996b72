package world

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

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
// Remove or Keep. An error on a full disk, or without a folder to make it in, says what to do.
func NewTempDir(name string) (*TempDir, error) {
	_ = Sweep() // what stays is for the next one
	path, err := os.MkdirTemp("", dirPrefix+name+"-")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		return nil, fmt.Errorf("make a temporary folder: %w: set TMPDIR to a folder that is there and that you may write to", err)
	}
	if err != nil {
		return nil, fmt.Errorf("make a temporary folder: %w", Full(err))
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

// sweepPatience is how long Sweep waits for the processes of a killed program to end: the kernel ends them one by one.
const sweepPatience = 2 * time.Second

// Sweep removes the folders of killed programs, as far as it may: those that run, those of other users, and links stay: anybody may put
// things into os.TempDir. A folder that somebody
// still writes into after two seconds stays as it is for the next Sweep, and the error names it; nothing depends on it.
func Sweep() error { return sweep(sweepPatience) }

func sweep(patience time.Duration) error {
	files, err := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*", runningFile))
	if err != nil {
		return fmt.Errorf("list temporary folders: %w", err)
	}
	end := time.Now().Add(patience)
	var errs []error
	for _, path := range files {
		if !ours(filepath.Dir(path)) {
			continue
		}
		f, err := lockFile(path, unix.O_NOFOLLOW)
		if err != nil {
			continue // it runs
		}
		if err := removeDead(filepath.Dir(path), end); err != nil {
			errs = append(errs, fmt.Errorf("%w: it stays until the next sweep", err))
		}
		f.Close()
	}
	return errors.Join(errs...)
}

// ours says whether a path is a folder of this user, and no link to one.
func ours(path string) bool {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR && int(st.Uid) == os.Geteuid()
}

// removeDead removes the folder of a killed program. The mark by which a sweep finds it goes last, and comes back when somebody writes
// into the folder at that very moment.
func removeDead(dir string, end time.Time) error {
	for {
		err := removeAround(dir, runningFile)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // somebody else has swept
		}
		if err == nil {
			mark := filepath.Join(dir, runningFile)
			if err = errors.Join(os.Remove(mark), os.Remove(dir)); err == nil {
				return nil
			}
			if markErr := os.WriteFile(mark, nil, 0o600); markErr != nil {
				return errors.Join(err, markErr)
			}
		}
		if time.Now().After(end) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// removeAround removes all that is in a folder but for one file.
func removeAround(dir, but string) error {
	all, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range all {
		if e.Name() != but {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
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
