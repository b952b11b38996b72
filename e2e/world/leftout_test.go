package world

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// skipper is a test that notes how it is skipped.
type skipper struct{ said string }

func (s *skipper) Helper()          {}
func (s *skipper) Log(args ...any)  { s.said += "log: " + fmt.Sprintln(args...) }
func (s *skipper) Skip(args ...any) { s.said += "skip: " + fmt.Sprintln(args...) }

func TestWhatIsLeftOutIsToldMakeTest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leftout")
	t.Setenv(LeftOutEnv, path)
	t.Setenv("CI", "true")
	var a, b skipper
	LeftOut(&a, "terminals: none")
	LeftOut(&b, "discs: none")
	if a.said != "skip: terminals: none\n" || b.said != "skip: discs: none\n" {
		t.Errorf("the tests say %q and %q", a.said, b.said)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "terminals: none\ndiscs: none\n" {
		t.Errorf("make test is told %q, %v", text, err)
	}
	t.Setenv(LeftOutEnv, filepath.Join(t.TempDir(), "none", "leftout"))
	var c skipper
	if LeftOut(&c, "terminals: none"); c.said == a.said {
		t.Error("a file that cannot be written is not said")
	}
	t.Setenv(LeftOutEnv, "")
	var d skipper
	if LeftOut(&d, "terminals: none"); d.said != a.said {
		t.Errorf("without a file it says %q", d.said)
	}
}
