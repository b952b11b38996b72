package proc

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if Inside() {
		err := Serve(func(config json.RawMessage) (string, Handler, error) {
			return string(config), func(do string, arg json.RawMessage) (any, error) {
				switch do {
				case "cores":
					var set unix.CPUSet
					return set.Count(), errors.Join(unix.SchedGetaffinity(0, &set))
				case "affinity":
					cpus, err := affinity()
					return cpus, err
				case "end":
					os.Exit(3)
				}
				return nil, fmt.Errorf("cannot %s %s", do, arg)
			}, nil
		})
		if err != nil {
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func affinity() ([]int, error) {
	var set unix.CPUSet
	err := unix.SchedGetaffinity(0, &set)
	var cpus []int
	for i := range 64 {
		if set.IsSet(i) {
			cpus = append(cpus, i)
		}
	}
	return cpus, err
}

func TestChildRunsWhereItShould(t *testing.T) {
	both, err := TwoCPUs()
	if err != nil {
		t.Fatal(err)
	}
	for _, cpu := range both {
		c, err := Start(t.Context(), Placement{CPUs: []int{cpu}}, 1)
		if err != nil {
			t.Fatal(err)
		}
		if c.Addr != "1" {
			t.Errorf("setup gave %q", c.Addr)
		}
		var got []int
		if err := c.Call("affinity", nil, &got); err != nil || len(got) != 1 || got[0] != cpu {
			t.Errorf("it runs on %v, want %d; %v", got, cpu, err)
		}
		if used, err := CPUTime(c.PID()); err != nil || used <= 0 {
			t.Errorf("it used %v, %v", used, err)
		}
		if rss, err := RSS(c.PID()); err != nil || rss < 1<<20 {
			t.Errorf("it holds %d bytes, %v", rss, err)
		}
		c.Close()
		if _, err := CPUTime(c.PID()); err == nil {
			t.Error("it is still there after Close")
		}
	}
}

func TestCallsTellErrors(t *testing.T) {
	c, err := Start(t.Context(), Placement{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Call("fly", "far", nil); err == nil || !strings.Contains(err.Error(), `cannot fly "far"`) {
		t.Errorf("got %v", err)
	}
	if err := c.Call("end", nil, nil); err == nil || !strings.Contains(err.Error(), "ended") {
		t.Errorf("got %v", err)
	}
}

func TestBusy(t *testing.T) {
	const stat = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 1 2 3 1000 500 4 5 6 7 8\ncpu1 10 0 0 5 0 0 0 0 0 0\nintr 1\n"
	if got, err := busy(stat, []int{0, 1}); err != nil || got != 31*tick {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := busy(stat, []int{2}); err == nil {
		t.Error("a core that is not there is busy")
	}
	before, err := Busy([]int{0})
	if err != nil || before < time.Second {
		t.Errorf("got %v, %v", before, err)
	}
}
