package programs

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cacheRoot is where all is kept.
func cacheRoot() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", errors.New("there is no folder to keep programs in: HOME is not set; set it, or XDG_CACHE_HOME")
	}
	dir = filepath.Join(dir, "isthmus")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", explain(fmt.Errorf("make cache folder: %w", err), "")
	}
	return dir, nil
}

// locate finds the e2e folder: where this file was compiled, or above the working directory.
func locate() (string, error) {
	var tried []string
	if _, file, _, ok := runtime.Caller(0); ok && filepath.IsAbs(file) {
		tried = append(tried, filepath.Dir(filepath.Dir(file)))
	}
	wd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		tried = append(tried, dir, filepath.Join(dir, "e2e"))
		if dir == filepath.Dir(dir) {
			break
		}
	}
	for _, dir := range tried {
		if _, err := os.Stat(filepath.Join(dir, "tools", "istio", "go.mod")); err == nil {
			return dir, nil
		}
	}
	return "", errors.New("the folder e2e/tools is not here: run this from a clone of the repository")
}

// key changes with everything that changes the result.
func (m *maker) key(g group) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, runtime.Version(), runtime.GOARCH, g.salt)
	for _, in := range g.inputs {
		b, err := os.ReadFile(filepath.Join(m.src, in))
		if err != nil {
			return "", fmt.Errorf("read what %s is made from: %w", g.name, err)
		}
		fmt.Fprintf(h, "%s %d\n%s", in, len(b), b)
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:6]), nil
}

// lock takes the file's lock, waiting for other processes that have it.
func (m *maker) lock(ctx context.Context, path, what string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, explain(fmt.Errorf("lock cache: %w", err), "")
	}
	said := false
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return func() { f.Close() }, nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			f.Close()
			return nil, fmt.Errorf("lock cache: %w", err)
		case !said:
			fmt.Fprintf(m.progress, "waiting for another process that gets %s\n", what)
			said = true
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

// unused is the time after which what nobody has asked for is removed when something newer of its kind has been made.
const unused = 14 * 24 * time.Hour

// touch marks dir as used now. It is a hint for prune only.
func touch(dir string) { _ = os.Chtimes(dir, time.Time{}, time.Now()) }

// prune removes other versions of a group that have not been used for long. Failing to do so harms nobody.
func prune(root, name, keep string) {
	dirs, err := filepath.Glob(filepath.Join(root, name+"-"+strings.Repeat("[0-9a-f]", 12)))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		st, err := os.Stat(dir)
		if err != nil || dir == keep || time.Since(st.ModTime()) < unused {
			continue
		}
		if os.RemoveAll(dir) == nil {
			_ = os.Remove(dir + ".lock")
		}
	}
}
