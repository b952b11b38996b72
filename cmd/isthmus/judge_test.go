package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
)

// unjudgedEnv names a file that takes promised times which were broken where nobody can judge them, as the tests on a real control plane have it
// (world.UnjudgedEnv): a line each of folder, test and what was seen, with tabs between them. make test runs those tests again, alone and without the race detector.
const unjudgedEnv = "ISTHMUS_UNJUDGED"

// judged says whether a promised time that was broken counts: not with the race detector, nor while others have the machine (world.BesideEnv).
func judged(t *testing.T, seen string) bool {
	t.Helper()
	return judge(t, seen, !raceEnabled && quiet() && os.Getenv("ISTHMUS_BESIDE") == "")
}

// quiet says whether the load of the last minute leaves us time.
func quiet() bool {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return false
	}
	var load float64
	_, err = fmt.Sscan(string(text), &load)
	return err == nil && load < 2*float64(runtime.NumCPU())
}

func judge(t *testing.T, seen string, can bool) bool {
	t.Helper()
	if can {
		return true
	}
	t.Log("not judged here: " + seen)
	path := os.Getenv(unjudgedEnv)
	if path == "" {
		return false
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	test, _, _ := strings.Cut(t.Name(), "/")
	if _, err := fmt.Fprintf(f, "%s\t%s\t%s\n", dir, test, seen); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return false
}

func TestABrokenPromiseIsJudgedOrNoted(t *testing.T) {
	path := t.TempDir() + "/unjudged"
	t.Setenv(unjudgedEnv, path)
	if !judge(t, "x", true) {
		t.Error("it is not judged, and could be")
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("what is judged was noted")
	}
	if judge(t, "check takes 4 s at most: it took 5 s", false) {
		t.Error("it is judged, and could not be")
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if want := dir + "\tTestABrokenPromiseIsJudgedOrNoted\tcheck takes 4 s at most: it took 5 s\n"; err != nil || string(text) != want {
		t.Errorf("noted is %q, %v; want %q", text, err, want)
	}
	if raceEnabled && judged(t, "x") {
		t.Error("it is judged with the race detector")
	}
}
