package node

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// file is one file of a volume that the node writes.
type file struct {
	data []byte
	mode fs.FileMode
}

// writeAtomically makes dir show files, and nothing else, by one change of the symbolic link ..data, as the kubelet
// does: a reader sees all of the old files or all of the new ones. It leaves dir alone when that is what it shows.
func writeAtomically(dir string, files map[string]file) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write volume: %w", err)
	}
	data := filepath.Join(dir, "..data")
	old, err := os.Readlink(data)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write volume: %w", err)
	}
	if old != "" && shows(filepath.Join(dir, old), files) {
		return nil
	}
	fresh, err := os.MkdirTemp(dir, "..")
	if err != nil {
		return fmt.Errorf("write volume: %w", err)
	}
	if err := fill(fresh, files); err != nil {
		return errors.Join(fmt.Errorf("write volume: %w", err), os.RemoveAll(fresh))
	}
	next := filepath.Join(dir, "..data_tmp")
	if err := os.Symlink(filepath.Base(fresh), next); err != nil {
		return fmt.Errorf("write volume: %w", err)
	}
	if err := os.Rename(next, data); err != nil {
		return fmt.Errorf("write volume: %w", err)
	}
	if err := linkNames(dir, files); err != nil {
		return fmt.Errorf("write volume: %w", err)
	}
	if old != "" {
		return os.RemoveAll(filepath.Join(dir, old))
	}
	return nil
}

func fill(dir string, files map[string]file) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	for name, f := range files {
		if !filepath.IsLocal(name) {
			return fmt.Errorf("path %q leaves the volume", name)
		}
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(at, f.data, f.mode); err != nil {
			return err
		}
		if err := os.Chmod(at, f.mode); err != nil { // whatever the umask
			return err
		}
	}
	return nil
}

// linkNames makes the visible names: links into ..data, one for each first path element.
func linkNames(dir string, files map[string]file) error {
	want := map[string]bool{}
	for name := range files {
		first, _, _ := strings.Cut(filepath.Clean(name), "/")
		want[first] = true
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "..") {
			continue
		}
		if want[e.Name()] {
			delete(want, e.Name())
		} else if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	for name := range want {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// shows reports whether dir holds exactly files.
func shows(dir string, files map[string]file) bool {
	seen := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		f, ok := files[name]
		if !ok {
			return fs.ErrInvalid
		}
		have, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if !bytes.Equal(have, f.data) || info.Mode().Perm() != f.mode.Perm() {
			return fs.ErrInvalid
		}
		seen++
		return nil
	})
	return err == nil && seen == len(files)
}
