//go:build unix

package regular_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/identity/internal/regular"
)

// What is no file, or has no end, is an error at once.
func TestRead(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, size := range map[string]int64{"good": 100, "one more": 101, "large": 1 << 40} {
		if err := errors.Join(os.WriteFile(at(name), nil, 0o600), os.Truncate(at(name), size)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(syscall.Mkfifo(at("pipe"), 0o600), os.Symlink("good", at("link")), os.Symlink("pipe", at("link to a pipe"))); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		at("good"): "", at("link"): "", at("one more"): "one more has more than 100 bytes", at("large"): "has more than 100 bytes",
		at("pipe"): "is no regular file (mode p", at("link to a pipe"): "is no regular file (mode p", dir: "is a directory", "/dev/zero": "is no regular file",
	} {
		done := make(chan error, 1)
		go func() {
			data, err := regular.Read(path, 100)
			if err == nil && len(data) != 100 {
				err = errors.New("cut off")
			}
			done <- err
		}()
		select {
		case err := <-done:
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", path, err, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s is waited for", path)
		}
	}
	if _, err := regular.Read(at("none"), 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
