package check

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

// TestChecksRunAtTheSameTime: two that wait for each other get through.
func TestChecksRunAtTheSameTime(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	synctest.Test(t, func(t *testing.T) {
		there := make(chan struct{})
		list := Run(worldOf(t, ""), []Check{
			{Code: "ISM002", Severities: onlyInfo(), Find: func(_ *World, found func(Finding)) { there <- struct{}{}; found(Finding{}) }},
			{Code: "ISM001", Severities: onlyInfo(), Find: func(_ *World, found func(Finding)) { <-there; found(Finding{}) }},
		})
		if len(list) != 2 || list[0].Code != "ISM001" || list[1].Code != "ISM002" {
			t.Errorf("found %v", list)
		}
	})
}

// TestOrderIsNotOfTiming: what is found, and in which order, is the same however many checks run at the same time.
func TestOrderIsNotOfTiming(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no cases: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		input, _, _ := strings.Cut(string(text), separator)
		runtime.GOMAXPROCS(1)
		alone := say(Run(worldOf(t, input), All()))
		runtime.GOMAXPROCS(8)
		if beside := say(Run(worldOf(t, input), All())); beside != alone {
			t.Errorf("%s: alone:\n%s\nbeside others:\n%s", file, alone, beside)
		}
	}
}

// TestAMemoHasOneOfEachKey: those who ask at once get the same, also when several made it, and what is made may ask for more.
func TestAMemoHasOneOfEachKey(t *testing.T) {
	var m memo[string, *int]
	var wg sync.WaitGroup
	got := make([]*int, 8)
	begun := make(chan struct{})
	var all sync.WaitGroup
	all.Add(len(got))
	for i := range got {
		wg.Go(func() {
			got[i] = m.of("a", func() *int {
				all.Done()
				<-begun
				return m.of(fmt.Sprint(i), func() *int { return new(int) })
			})
		})
	}
	all.Wait() // all are making it
	close(begun)
	wg.Wait()
	for _, p := range got {
		if p == nil || p != got[0] {
			t.Fatalf("two for one key: %v", got)
		}
	}
	if again := m.of("a", func() *int { t.Error("it is made again"); return nil }); again != got[0] {
		t.Error("it is another now")
	}
}
