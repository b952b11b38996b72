package check

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// TestWellMadeManifestsRaiseNoAlarm: manifests as Istio's documents and samples have them, and our own samples.
func TestWellMadeManifestsRaiseNoAlarm(t *testing.T) {
	files, err := filepath.Glob("testdata/corpus/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("there is no corpus: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			w := worldOf(t, string(text))
			for _, f := range Run(w, All()) {
				if f.Severity != v1alpha1.SeverityInfo {
					t.Errorf("false alarm: %s", say([]Finding{f}))
				}
			}
		})
	}
}
