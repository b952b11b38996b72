package mesh_test

import (
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/capture"
	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/story/apps"
	"github.com/isthmus-mesh/isthmus/e2e/world"
)

func TestMain(m *testing.M) {
	world.Enter(mesh.Funcs(capture.Funcs(), world.Funcs{"reach": reach, "orders": apps.Orders, "caller": apps.Caller}))
	os.Exit(m.Run())
}

// reach is a pod's program: it connects to each of args.
func reach(args []string) int {
	for _, a := range args {
		c, err := net.DialTimeout("tcp", a, 5*time.Second)
		if err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Println("reached", a)
		c.Close()
	}
	return 0
}
