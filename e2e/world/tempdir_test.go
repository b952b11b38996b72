package world

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestTempDirsOfKilledProgramsGo(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	put := func(dir, file string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(temp, dir), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(temp, dir, file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(dirPrefix+"mesh-killed", runningFile)
	put(dirPrefix+"mesh-kept", "log")
	put("other", runningFile)
	alive, err := NewTempDir("alive")
	if err != nil {
		t.Fatal(err)
	}
	kept, err := NewTempDir("looked-into")
	if err != nil {
		t.Fatal(err)
	}
	if err := kept.Keep(); err != nil {
		t.Fatal(err)
	}
	if err := Sweep(); err != nil {
		t.Error(err)
	}
	var names []string
	all, err := os.ReadDir(temp)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		names = append(names, e.Name())
	}
	want := []string{filepath.Base(alive.Path), dirPrefix + "mesh-kept", filepath.Base(kept.Path), "other"}
	slices.Sort(want)
	if !slices.Equal(names, want) {
		t.Errorf("left are %q, want %q", names, want)
	}
	if err := alive.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(alive.Path); !os.IsNotExist(err) {
		t.Errorf("a removed folder: %v", err)
	}
}

// TestSweepTouchesOnlyWhatIsOurs: others may put links, and folders of theirs, beside our folders.
func TestSweepTouchesOnlyWhatIsOurs(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	linked, foreign := filepath.Join(t.TempDir(), "linked"), filepath.Join(os.TempDir(), dirPrefix+"foreign")
	for _, dir := range []string{linked, foreign} {
		if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "precious"), nil, 0o600), os.WriteFile(filepath.Join(dir, runningFile), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(linked, filepath.Join(os.TempDir(), dirPrefix+"link")); err != nil {
		t.Fatal(err)
	}
	watched := []string{linked}
	if err := os.Chown(foreign, 1, 1); err == nil { // only root may
		watched = append(watched, foreign)
	}
	if err := Sweep(); err != nil {
		t.Error(err)
	}
	for _, dir := range watched {
		if _, err := os.Stat(filepath.Join(dir, "precious")); err != nil {
			t.Error(err)
		}
	}
}

// TestTempDirThatIsInUse is that of a program that was killed and whose processes have not ended yet: what they write into cannot be removed, as
// if something were mounted there.
func TestTempDirThatIsInUse(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	dir := filepath.Join(os.TempDir(), dirPrefix+"mesh-dying")
	used := filepath.Join(dir, "logs")
	if err := errors.Join(os.MkdirAll(used, 0o700), os.WriteFile(filepath.Join(dir, runningFile), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", used, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	free := func() error { return unix.Unmount(used, unix.MNT_DETACH) }
	t.Cleanup(func() { _ = free() }) // when something below has failed
	err := sweep(100 * time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), used) || !strings.Contains(err.Error(), "until the next sweep") {
		t.Errorf("got %v, want that the folder stays", err)
	}
	if _, err := os.Stat(filepath.Join(dir, runningFile)); err != nil {
		t.Errorf("the next sweep will not find it: %v", err)
	}
	time.AfterFunc(50*time.Millisecond, func() { _ = free() }) // it ends while somebody sweeps
	if err := sweep(20 * time.Second); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(filepath.Join(os.TempDir(), "*")); err != nil || len(left) > 0 {
		t.Errorf("left are %q, %v", left, err)
	}
}

func TestFullDiskHasARemedy(t *testing.T) {
	if err := Full(&os.PathError{Op: "write", Path: "x", Err: unix.ENOSPC}); !strings.Contains(err.Error(), "set TMPDIR") {
		t.Error(err)
	}
	if err := Full(os.ErrExist); err != os.ErrExist { //nolint:errorlint // it must be the same
		t.Error(err)
	}
}

func TestAFolderThatCannotBeMadeHasARemedy(t *testing.T) {
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "none"))
	if _, err := NewTempDir("x"); err == nil || !strings.Contains(err.Error(), "set TMPDIR to a folder that is there") {
		t.Errorf("got %v", err)
	}
}
