package check

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestNobodyLooksAtAClock: durations that objects have are compared, and nothing else of package time is used.
func TestNobodyLooksAtAClock(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no source: %v", err)
	}
	allowed := regexp.MustCompile(`^time\.(Duration|ParseDuration)$`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, use := range regexp.MustCompile(`\btime\.[A-Z]\w*`).FindAllString(string(text), -1) {
			if !allowed.MatchString(use) {
				t.Errorf("%s: %s", file, use)
			}
		}
	}
}
