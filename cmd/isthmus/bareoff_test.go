package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestABareOffIsExplained(t *testing.T) {
	for mode, explained := range map[string]bool{"Off": true, `"Off"`: false, "Lock": false, "off": true, "false": true, "7": false} {
		file := filepath.Join(t.TempDir(), "edge.yaml")
		if err := os.WriteFile(file, []byte(paperEdge+"  authorization: {mode: "+mode+"}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := new(app).readEdge(file, true)
		said := err != nil && strings.Contains(err.Error(), "bare word Off")
		if said != explained {
			t.Errorf("mode %s: %v", mode, err)
		}
	}
}
