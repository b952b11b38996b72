package programs

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What has not changed is not linked again; and what one was given stays when a later build puts another file in its place.
func TestOwnProgramsAreLinkedOnce(t *testing.T) {
	src, err := locate()
	if err != nil {
		t.Fatal(err)
	}
	built := filepath.Join(filepath.Dir(src), "bin", "isthmus")
	inode := func() os.FileInfo {
		t.Helper()
		info, err := os.Stat(built)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	first, err := Isthmus(t.Context(), t.TempDir(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	before := inode()
	second, err := Isthmus(t.Context(), t.TempDir(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(before, inode()) {
		t.Error("nothing has changed, and it was linked again")
	}
	if err := os.Remove(second); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{first, built} {
		if out, err := exec.CommandContext(t.Context(), path, "version").CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "isthmus ") {
			t.Errorf("%s: %q, %v", path, out, err)
		}
	}
}

func TestWhatIsKeptOutlivesTheNextBuild(t *testing.T) {
	for name, give := range map[string]func(from, to string) error{"a link": keep, "a copy": copyFile} {
		dir := t.TempDir()
		from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
		build := func(text string) {
			t.Helper()
			part := filepath.Join(dir, "part")
			if err := errors.Join(os.WriteFile(part, []byte(text), 0o755), os.Rename(part, from)); err != nil {
				t.Fatal(err)
			}
		}
		build("old")
		if err := give(from, to); err != nil {
			t.Fatal(name, err)
		}
		build("new")
		got, err := os.ReadFile(to)
		info, statErr := os.Stat(to)
		if err != nil || statErr != nil || string(got) != "old" || info.Mode().Perm()&0o100 == 0 {
			t.Errorf("%s: %q, %v, %v; want old, and a program", name, got, err, statErr)
		}
		if err := keep(from, to); err != nil { // in the place of what is there
			t.Fatal(name, err)
		}
		if got, err := os.ReadFile(to); err != nil || string(got) != "new" {
			t.Errorf("%s, again: %q, %v", name, got, err)
		}
	}
}
