package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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
		return "", fmt.Errorf("find a cache folder: %w: set HOME or XDG_CACHE_HOME", err)
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
	return os.WriteFile(path, fmt.Appendf(nil, "%d %s\n", pid, when), 0o600)
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
		return 0, fmt.Errorf("read %s: it names no process", path)
	}
	if now, err := started(pid); err == nil && now == when {
		return pid, nil
	}
	return 0, nil
}
