package hbone_test

import (
	"bytes"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestMain fails when the package leaves goroutines.
func TestMain(m *testing.M) {
	code := m.Run()
	buf := make([]byte, 4<<20)
	for range 200 {
		stacks := buf[:runtime.Stack(buf, true)]
		if !bytes.Contains(stacks, []byte("hbone.(*")) && !bytes.Contains(stacks, []byte("h2.(*")) {
			os.Exit(code)
		}
		time.Sleep(10 * time.Millisecond) // a real clock: goroutines on their way out
	}
	os.Stderr.Write(buf[:runtime.Stack(buf, true)])
	os.Exit(1)
}

// A gateway that embeds hbone takes neither gRPC nor Kubernetes with it.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".", "./route", "./authz", "../identity", "../identity/file", "../identity/identitytest").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, dep := range strings.Fields(string(out)) {
		for _, banned := range []string{"k8s.io/", "sigs.k8s.io/", "istio.io/", "google.golang.org/grpc"} {
			if strings.HasPrefix(dep, banned) {
				t.Errorf("%s is imported", dep)
			}
		}
	}
}
