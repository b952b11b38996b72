package programs

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestKgatewayVersionIsWhatTheModulePins(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", kgatewayModule().dir(), "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if want := "github.com/kgateway-dev/kgateway/v2 " + KgatewayVersion; !strings.Contains(string(text), want) {
		t.Errorf("go.mod does not have %q", want)
	}
}

func TestAllDoesWithoutKgateway(t *testing.T) {
	for _, n := range KgatewayEdge() {
		if slices.Contains(All(), n) || !slices.Contains(known(), n) {
			t.Errorf("%s: in All %v, known %v; want it known, and built only when it is asked for", n, slices.Contains(All(), n), slices.Contains(known(), n))
		}
	}
}
