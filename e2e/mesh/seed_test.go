package mesh

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// What a full disk or a power cut has left of a seed costs time, and no start.
func TestABrokenSeedIsRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seed.json")
	for _, text := range []string{"", "[]", `[{"key":"L3JlZ2lz`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if all, err := readSeed(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%q: got %d entries, %v; want that there is none", text, len(all), err)
		}
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%q is there still: %v", text, err)
		}
	}
	if err := os.WriteFile(path, []byte(`[{"key":"YQ==","value":"Yg=="}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	if all, err := readSeed(path); err != nil || len(all) != 1 || string(all[0].Key) != "a" || string(all[0].Value) != "b" {
		t.Errorf("got %q, %v", all, err)
	}
}
