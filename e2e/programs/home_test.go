package programs

import (
	"strings"
	"testing"
)

func TestWithoutAHome(t *testing.T) {
	t.Setenv("HOME", "")
	t.Setenv("XDG_CACHE_HOME", "")
	_, err := cacheRoot()
	if err == nil || !strings.Contains(err.Error(), "HOME is not set; set it, or XDG_CACHE_HOME") || strings.Contains(err.Error(), "$") {
		t.Errorf("got %v", err)
	}
}
