package hbonetest_test

import (
	"os/exec"
	"strings"
	"testing"
)

// Who tests with this package takes neither gRPC nor Kubernetes with it, and package hbone can test with it, too.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, dep := range strings.Fields(string(out)) {
		for _, banned := range []string{"k8s.io/", "sigs.k8s.io/", "istio.io/", "google.golang.org/grpc"} {
			if strings.HasPrefix(dep, banned) {
				t.Errorf("%s is imported", dep)
			}
		}
		if strings.HasPrefix(dep, "github.com/isthmus-mesh/") && !strings.HasSuffix(dep, "/hbonetest") {
			t.Errorf("%s is imported", dep)
		}
	}
}
