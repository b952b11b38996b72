package world

import (
	"os"
)

// SocketDir is a folder for sockets of a test, which goes with it: its path is short, as that of a socket may have 107 bytes, wherever TMPDIR is.
func SocketDir(t interface {
	TempDir() string
	Cleanup(f func())
	Fatalf(format string, args ...any)
}) string {
	dir := t.TempDir()
	if len(dir) <= 50 { // what an agent of Istio's adds has 49 bytes
		return dir
	}
	dir, err := os.MkdirTemp("/tmp", dirPrefix)
	if err != nil {
		t.Fatalf("the path of the test's folder is too long for a socket, and there is no other: set TMPDIR to a short one: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
