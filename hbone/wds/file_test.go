//go:build unix

package wds

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Nobody waits for what is no file, and nobody reads what has no end.
func TestFilesThatAreNone(t *testing.T) {
	dir := t.TempDir()
	pipe, large := filepath.Join(dir, "pipe"), filepath.Join(dir, "large")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(large, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, 1<<40); err != nil { // it takes no room
		t.Fatal(err)
	}
	readers := map[string]func(path string) error{
		"snapshot": func(path string) error {
			return change(t, func(c *Config) { c.SnapshotFile = path }).readSnapshot(time.Now())
		},
		"token": func(path string) error { _, err := (&Config{TokenFile: path}).readToken(); return err },
		"roots": func(path string) error { _, err := (&Config{RootsFile: path}).readRoots(); return err },
	}
	for what, read := range readers {
		for path, want := range map[string]string{pipe: "is no regular file", dir: "is a directory", large: " bytes", "/dev/zero": "is no regular file", filepath.Join(dir, "none"): "no such file"} {
			done := make(chan error, 1)
			go func() { done <- read(path) }()
			select {
			case err := <-done:
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s %s: %v, want %q", what, path, err, want)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("%s %s is waited for", what, path)
			}
		}
	}
}
