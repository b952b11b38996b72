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
		rollup, err := os.ReadFile(dir + "/smaps_rollup")
		if err != nil {
			continue
		}
		if m := proportional.FindSubmatch(rollup); m != nil {
			kb, err := strconv.Atoi(string(m[1]))
			if err != nil {
				t.Fatal(err)
			}
			found = append(found, fmt.Sprintf("%s %d MB", strings.TrimSpace(string(name)), kb>>10))
		}
	}
	return found
}
