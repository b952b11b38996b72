package envoyshim_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var proportional = regexp.MustCompile(`(?m)^Pss:\s+(\d+) kB$`)

// logMemory logs what the processes of a waypoint's or gateway's pod take.
func logMemory(t *testing.T, pod string) {
	t.Helper()
	found := memoryOf(t, pod)
	if len(found) < 3 {
		t.Errorf("memory of %s: want those of the agent, the shim and Envoy at least: %v", pod, found)
	}
	t.Logf("memory of %s: %s", pod, strings.Join(found, ", "))
}

// memoryOf is what each process of a pod takes, by name. Pages that several share count in parts.
func memoryOf(t *testing.T, pod string) []string {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, dir := range dirs {
		environ, err := os.ReadFile(dir + "/environ")
		if err != nil || !strings.Contains("\x00"+string(environ), "\x00POD_NAME="+pod+"\x00") {
			continue // gone, or another's
		}
		name, err := os.ReadFile(dir + "/comm")
		if err != nil {
			continue
		}
		if mb := megabytes(t, dir); mb >= 0 {
			found = append(found, fmt.Sprintf("%s %d MB", strings.TrimSpace(string(name)), mb))
		}
	}
	return found
}

// megabytes is what a process takes, by its folder in /proc; negative when it has ended.
func megabytes(t *testing.T, dir string) int {
	t.Helper()
	rollup, err := os.ReadFile(dir + "/smaps_rollup")
	if err != nil {
		return -1
	}
	m := proportional.FindSubmatch(rollup)
	if m == nil {
		return -1
	}
	kb, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return kb >> 10
}

// wholeMemory wants everything that runs here, but for the test itself, to take no more than promised: the control plane, a waypoint, an
// ingress gateway, captured pods.
func wholeMemory(t *testing.T) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	total, n := 0, 0
	for _, dir := range dirs {
		if pid := filepath.Base(dir); pid == "1" || pid == strconv.Itoa(os.Getpid()) {
			continue
		}
		if mb := megabytes(t, dir); mb >= 0 {
			total, n = total+mb, n+1
		}
	}
	t.Logf("everything: %d processes, %d MB", n, total)
	if n < 15 || total > 1400 {
		t.Errorf("%d processes take %d MB, want at least 15 that take at most 1400", n, total)
	}
}
