package mesh

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestSweepRemovesOnlyWhatKilledProgramsLeft(t *testing.T) {
	temp := t.TempDir()
	folder := func(name string, files ...string) string {
		dir := filepath.Join(temp, name)
		if err := os.MkdirAll(filepath.Join(dir, "logs"), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if err := os.WriteFile(filepath.Join(dir, f), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	dead := folder(dirPrefix+"dead", runningFile)
	kept := folder(dirPrefix + "kept")
	other := folder("other", runningFile)
	alive := folder(dirPrefix+"alive", runningFile)
	f, err := lockFile(filepath.Join(alive, runningFile), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sweep(temp)
	for dir, want := range map[string]bool{dead: false, kept: true, other: true, alive: true} {
		_, err := os.Stat(dir)
		if want != (err == nil) || err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: got %v, want it there: %t", filepath.Base(dir), err, want)
		}
	}
}
