package programs

import (
	"os"
	"testing"

	"github.com/isthmus-mesh/isthmus/e2e/world"
)

func TestMain(m *testing.M) {
	world.Enter(nil) // so that what needs the network is seen to be done outside
	os.Exit(m.Run())
}
