package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/e2e/world"
)

// stateEnv names another folder than the usual one, for tests.
const stateEnv = "ISTHMUS_DEMO_STATE"

// stateDir is where a world that was left running is noted.
func stateDir() (string, error) {
	if dir := os.Getenv(stateEnv); dir != "" {
		return dir, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", errors.New("there is no folder to keep programs in: HOME is not set; set it, or XDG_CACHE_HOME")
	}
	return filepath.Join(cache, "isthmus", "demo"), nil
}

// started is when a process was started, in clock ticks since boot: with its number it names one process for ever.
func started(pid int) (string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// The name, in brackets, may hold anything.
	_, rest, ok := strings.Cut(string(text[strings.LastIndexByte(string(text), ')')+1:]), " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return "", errors.New("a line of /proc that makes no sense")
	}
	if fields[0] == "Z" {
		return "", os.ErrNotExist // it has ended
	}
	return fields[19], nil
}

// writePID notes a process.
func writePID(path string, pid int) error {
	when, err := started(pid)
	if err != nil {
		return err
	}
	return replaceFile(path, fmt.Appendf(nil, "%d %s\n", pid, when))
}

// replaceFile writes a file that is there whole or not at all.
func replaceFile(path string, text []byte) error {
	if err := os.WriteFile(path+".part", text, 0o600); err != nil {
		return world.Full(err)
	}
	return os.Rename(path+".part", path)
}

// lock keeps other ups and downs away until it is closed.
func lock(dir string) (io.Closer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make a folder for the demo's state: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// forget removes what up has written. The lock stays, and the folder with it: others may be waiting for it.
func forget(dir string) error {
	errs := []error{os.RemoveAll(filepath.Join(dir, binFolder))}
	for _, name := range []string{pidFile, logFile, usageFile, kubeconfigFile, programFile, execSocket, pidFile + ".part", usageFile + ".part"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// readPID is the noted process, or 0 when it runs no more.
func readPID(path string) (int, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	pidText, when, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	pid, err := strconv.Atoi(pidText)
	if err != nil || pid <= 1 {
		return 0, nil //nolint:nilerr // it names no process: a power cut has left it
	}
	if now, err := started(pid); err == nil && now == when {
		return pid, nil
	}
	return 0, nil
}
