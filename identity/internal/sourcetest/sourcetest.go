package sourcetest

import (
	"bytes"
	"context"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/identity"
)

// Main runs the tests and ends the process; it fails when they leave goroutines of identity, of gRPC or of own, the name of a package.
func Main(m *testing.M, own string) {
	code := m.Run()
	buf := make([]byte, 1<<20)
	ours := [][]byte{[]byte("identity.(*"), []byte("grpc.(*"), []byte(own + ".(*")}
	for range 200 {
		stacks := buf[:runtime.Stack(buf, true)]
		if !slices.ContainsFunc(ours, func(name []byte) bool { return bytes.Contains(stacks, name) }) {
			os.Exit(code)
		}
		time.Sleep(10 * time.Millisecond) // a real clock: gRPC's are on their way out
	}
	_, _ = os.Stderr.Write(buf[:runtime.Stack(buf, true)])
	os.Exit(1)
}

// SocketDir is a folder for sockets, which goes with the test: its path is short, as that of a socket may have 107 bytes, wherever TMPDIR is.
func SocketDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if len(dir) <= 80 {
		return dir
	}
	dir, err := os.MkdirTemp("/tmp", "isthmus-")
	if err != nil {
		t.Fatalf("the path of t.TempDir is too long for a socket, and there is no other folder: set TMPDIR to a short one: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Begin is the Source that newSource gives; it ends with the test.
func Begin(t *testing.T, newSource func(context.Context) (*identity.Source, error)) *identity.Source {
	t.Helper()
	s, err := newSource(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// Refused is the error of newSource when its time is over, half a second.
func Refused(t *testing.T, newSource func(context.Context) (*identity.Source, error)) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	s, err := newSource(ctx)
	if err == nil {
		s.Close()
		t.Fatal("New gave a source")
	}
	return err
}

// Until waits for what is so after a change of s.
func Until(t *testing.T, s *identity.Source, what string, so func() bool) {
	t.Helper()
	for range 1500 {
		if so() {
			return
		}
		time.Sleep(10 * time.Millisecond) // a real clock: a socket is between us
	}
	t.Fatalf("never: %s; %+v", what, s.Stats())
}
