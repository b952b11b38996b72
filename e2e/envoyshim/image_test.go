package envoyshim_test

import (
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/e2e/envoyshim"
	"github.com/isthmus-mesh/isthmus/e2e/programs"
)

func TestImageNamesWhatIsMissing(t *testing.T) {
	if _, err := envoyshim.Image(programs.Set{}); err == nil || !strings.Contains(err.Error(), "pilot-agent") {
		t.Errorf("got %v, want an error that names pilot-agent", err)
	}
}
