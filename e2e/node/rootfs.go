package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// rootFS assembles a container's root file system on a tmpfs: the host's programs and libraries read-only, own
// folders for the rest, and on them the spec's files and binds. It needs a mount namespace of its own, no other
// privilege: every mount is a recursive bind, a tmpfs or a proc, and no device node is made.
type rootFS struct {
	root  string
	binds []bind
	files map[string]string
}

// hostDirs are shown as the host has them, hostFiles too where they are there. What else programs need of /etc is the
// spec's.
func hostDirs() []string {
	return []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"}
}

func hostFiles() []string {
	return []string{"/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/etc/ca-certificates.conf", "/etc/passwd", "/etc/group", "/etc/localtime",
		"/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/services", "/etc/protocols",
		"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/sys"}
}

func newRootFS(spec *initSpec) *rootFS {
	r := &rootFS{root: spec.Root, files: spec.Files}
	for _, b := range spec.Binds {
		b.Target = canonical(b.Target)
		r.binds = append(r.binds, b)
	}
	// A bind comes before what lies in it.
	slices.SortStableFunc(r.binds, func(a, b bind) int { return strings.Count(a.Target, "/") - strings.Count(b.Target, "/") })
	return r
}

// canonical follows the links among hostDirs (/bin → usr/bin), so that targets are where the mounts are.
func canonical(path string) string {
	path = filepath.Clean("/" + path)
	for _, dir := range hostDirs() {
		rest, ok := strings.CutPrefix(path, dir+"/")
		if !ok {
			continue
		}
		if to, err := os.Readlink(dir); err == nil {
			if !filepath.IsAbs(to) {
				to = "/" + to
			}
			return filepath.Join(to, rest)
		}
	}
	return path
}

func (r *rootFS) assemble() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", r.root, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	for _, dir := range []string{"/etc", "/dev", "/proc", "/run", "/root", "/home", "/opt", "/var/lib", "/var/log", "/var/run", "/var/tmp", "/tmp", "/dev/shm"} {
		if err := os.MkdirAll(r.at(dir), 0o755); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/tmp", "/var/tmp", "/dev/shm"} {
		if err := os.Chmod(r.at(dir), 0o777|fs.ModeSticky); err != nil {
			return err
		}
	}
	for _, path := range slices.Concat(hostDirs(), hostFiles()) {
		if err := r.show(path); err != nil {
			return err
		}
	}
	for name, to := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"} {
		if err := os.Symlink(to, r.at("/dev/"+name)); err != nil {
			return err
		}
	}
	if err := r.mountProc(); err != nil {
		return err
	}
	for path, text := range r.files {
		if err := os.WriteFile(r.at(path), []byte(text), 0o644); err != nil {
			return err
		}
	}
	for _, b := range r.binds {
		if err := r.bind(b.Source, b.Target, b.ReadOnly); err != nil {
			return err
		}
	}
	return nil
}

// mountProc shows the processes of the container. Where masked parts of /proc forbid a fresh one, the old one serves.
func (r *rootFS) mountProc() error {
	err := unix.Mount("proc", r.at("/proc"), "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EBUSY) {
		return r.bind("/proc", "/proc", false)
	}
	if err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return nil
}

// show makes the host's path visible read-only. A folder that a bind goes into becomes a folder of our own that shows the
// host's entries one by one, since nothing can be made in a read-only one.
func (r *rootFS) show(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || r.bound(path) {
		return nil
	}
	if err != nil {
		return err
	}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		to, err := os.Readlink(path)
		if err != nil {
			return err
		}
		if target, ok := strings.CutPrefix(to, "/"); ok && strings.HasPrefix(path, "/etc/") && !inHostDirs("/"+target) {
			return r.bind(path, path, true) // what it points to would not be there
		}
		return os.Symlink(to, r.at(path))
	case info.IsDir() && r.entered(path):
		entries, err := os.ReadDir(path)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(r.at(path), 0o755); err != nil {
			return err
		}
		for _, e := range entries {
			if err := r.show(filepath.Join(path, e.Name())); err != nil {
				return err
			}
		}
		return nil
	}
	return r.bind(path, path, !strings.HasPrefix(path, "/dev/"))
}

// bound reports whether a bind covers path itself.
func (r *rootFS) bound(path string) bool {
	return slices.ContainsFunc(r.binds, func(b bind) bool { return b.Target == path })
}

// entered reports whether a bind lies somewhere in path.
func (r *rootFS) entered(path string) bool {
	return slices.ContainsFunc(r.binds, func(b bind) bool { return strings.HasPrefix(b.Target, path+"/") })
}

func inHostDirs(path string) bool {
	return slices.ContainsFunc(hostDirs(), func(d string) bool { return strings.HasPrefix(path, d+"/") })
}

// bind mounts source at target. Folders are bound with all that is mounted in them: what a user namespace inherits cannot
// be taken apart.
func (r *rootFS) bind(source, target string, readOnly bool) error {
	info, err := os.Stat(source)
	if err != nil {
		return fmt.Errorf("bind %s: %w", target, err)
	}
	to := r.at(target)
	if err := placeholder(to, info.IsDir()); err != nil {
		return fmt.Errorf("bind %s: %w", target, err)
	}
	if err := unix.Mount(source, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s to %s: %w", source, target, err)
	}
	if !readOnly {
		return nil
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	err = unix.MountSetattr(unix.AT_FDCWD, to, unix.AT_RECURSIVE, &attr)
	if errors.Is(err, unix.ENOSYS) {
		return nil // before Linux 5.12: writable, but by the same user as outside
	}
	if err != nil {
		return fmt.Errorf("bind %s read-only: %w", target, err)
	}
	return nil
}

// placeholder makes what a mount can go on.
func placeholder(path string, dir bool) error {
	if dir {
		return os.MkdirAll(path, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// at is where path of the root file system is while it is assembled.
func (r *rootFS) at(path string) string { return filepath.Join(r.root, path) }
