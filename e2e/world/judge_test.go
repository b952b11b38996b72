package world

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// told is a test's log.
type told struct{ strings.Builder }

func (l *told) Name() string { return "TestReady/with_pods" }

func (l *told) Log(args ...any) { fmt.Fprintln(l, args...) }

func TestWhatIsNotJudgedIsSaid(t *testing.T) {
	path := filepath.Join(t.TempDir(), "unjudged")
	t.Setenv(UnjudgedEnv, path)
	log := &told{}
	if !judge(log, "ready in 5 s: it took 6 s", true) || log.Len() > 0 {
		t.Errorf("on a quiet machine it is not judged: %s", log)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("what is judged was noted")
	}
	for _, seen := range []string{"ready in 5 s: it took 6 s", "told in 40 s: it took 41 s"} {
		if judge(log, seen, false) || !strings.Contains(log.String(), seen) {
			t.Errorf("on a busy machine it says %q", log)
		}
	}
	text, err := os.ReadFile(path)
	dir, wderr := os.Getwd()
	if wderr != nil {
		t.Fatal(wderr)
	}
	if want := dir + "\tTestReady\tready in 5 s: it took 6 s\n" + dir + "\tTestReady\ttold in 40 s: it took 41 s\n"; err != nil || string(text) != want {
		t.Errorf("noted are %q, %v", text, err)
	}
	t.Setenv(BesideEnv, "true")
	if Judge(log, "ready in 5 s: it took 8 s") {
		t.Error("beside others it is judged")
	}
	t.Setenv(UnjudgedEnv, "")
	if judge(log, "x", false) || strings.Contains(log.String(), "nobody else") {
		t.Errorf("without a file it says %q", log)
	}
	t.Setenv(UnjudgedEnv, filepath.Join(path, "below a file"))
	if judge(log, "x", false) || !strings.Contains(log.String(), "nobody else") {
		t.Errorf("with a file that cannot be it says %q", log)
	}
}
