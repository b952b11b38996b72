package programs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Isthmus builds this project's own command, as a static binary, into dir, and returns its path. It is built where make build puts it,
// so that Go links it again only when something has changed; dir has it under a name of its own, which a later build does not touch. It
// blocks until the build is done; an error has the compiler's last lines.
func Isthmus(ctx context.Context, dir string, progress io.Writer) (string, error) {
	// The settings are make build's: with others each would link anew what the other has linked.
	return own(ctx, "isthmus", dir, progress, command{
		argv: []string{"-ldflags=-s -w", "./cmd/isthmus"}, env: []string{"CGO_ENABLED=0"},
	})
}

// Demo does for the demo's program what Isthmus does for the command; make demo puts it where it is built.
func Demo(ctx context.Context, dir string, progress io.Writer) (string, error) {
	return own(ctx, "demo", dir, progress, command{argv: []string{"./demo"}, env: []string{"CGO_ENABLED=0"}, dir: "e2e"})
}

// own builds a program of this repository. c are the settings and the package, and the module's folder in the clone.
func own(ctx context.Context, name, dir string, progress io.Writer, c command) (string, error) {
	if progress == nil {
		progress = io.Discard
	}
	src, err := locate()
	if err != nil {
		return "", err
	}
	clone := filepath.Dir(src)
	bin := filepath.Join(clone, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return "", explain(fmt.Errorf("make a folder for %s: %w", name, err), "")
	}
	m := maker{src: src, progress: progress}
	unlock, err := m.lock(ctx, filepath.Join(bin, "."+name+".lock"), name)
	if err != nil {
		return "", err
	}
	defer unlock()
	built, out := filepath.Join(bin, name), filepath.Join(dir, name)
	c.argv = append([]string{"go", "build", "-v", "-o", built}, c.argv...)
	c.dir = filepath.Join(clone, c.dir)
	r := begin(progress, "building "+name, 5*time.Second)
	_, err = c.run(ctx, r.line)
	r.end(err)
	if err != nil {
		return "", err
	}
	return out, explain(keep(built, out), "")
}

// keep makes to a file with what is in from by now: a link, as a build replaces a file and never writes into one, or a copy where there
// can be no link.
func keep(from, to string) error {
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err := os.Link(from, to)
	if errors.Is(err, syscall.EXDEV) || errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOTSUP) {
		return copyFile(from, to)
	}
	return err
}

func copyFile(from, to string) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}
