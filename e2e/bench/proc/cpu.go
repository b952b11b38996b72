package proc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// CPUTime is what the threads of a process have computed until now, in its own code and in the kernel's. Threads that have ended are not
// counted; neither Go programs nor Envoy end theirs under load.
func CPUTime(pid int) (time.Duration, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, err
	}
	if len(files) == 0 {
		return 0, fmt.Errorf("process %d has no schedstat: it is gone, or the kernel lacks CONFIG_SCHED_INFO", pid)
	}
	var total time.Duration
	for _, f := range files {
		b, err := os.ReadFile(f)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // a thread that ended since
		}
		if err != nil {
			return 0, err
		}
		first, _, _ := strings.Cut(string(b), " ")
		ns, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read %s: %w", f, err)
		}
		total += time.Duration(ns)
	}
	return total, nil
}

// RSS is the resident memory of a process in bytes.
func RSS(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0, fmt.Errorf("read memory of process %d: %q", pid, b)
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}

// TwoCPUs are the first two cores that this process may use.
func TwoCPUs() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("ask for usable cores: %w", err)
	}
	var cpus []int
	for cpu := range len(set) * 64 {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
		if len(cpus) == 2 {
			return cpus, nil
		}
	}
	return nil, fmt.Errorf("two cores are needed, this process may use %d", len(cpus))
}

// tick is the unit of /proc/stat, 1/100 s on every architecture that Go runs on.
const tick = 10 * time.Millisecond

// Busy is how long cpus have not been idle since the machine started, whoever used them.
func Busy(cpus []int) (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	return busy(string(b), cpus)
}

func busy(stat string, cpus []int) (time.Duration, error) {
	var total time.Duration
	for _, cpu := range cpus {
		_, line, ok := strings.Cut(stat, fmt.Sprintf("\ncpu%d ", cpu))
		if !ok {
			return 0, fmt.Errorf("/proc/stat has no core %d", cpu)
		}
		line, _, _ = strings.Cut(line, "\n")
		for i, f := range strings.Fields(line) {
			n, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read /proc/stat: %w", err)
			}
			if i != 3 && i != 4 && i < 8 { // idle and iowait; guests are counted as user already
				total += time.Duration(n) * tick
			}
		}
	}
	return total, nil
}
