package world

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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
	Sweep()
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

func TestFullDiskHasARemedy(t *testing.T) {
	if err := Full(&os.PathError{Op: "write", Path: "x", Err: unix.ENOSPC}); !strings.Contains(err.Error(), "set TMPDIR") {
		t.Error(err)
	}
	if err := Full(os.ErrExist); err != os.ErrExist { //nolint:errorlint // it must be the same
		t.Error(err)
	}
}
