package wds_test

import (
	"bytes"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"
)

// TestMain fails when the package leaves goroutines, its own or gRPC's.
func TestMain(m *testing.M) {
	code := m.Run()
	buf := make([]byte, 1<<20)
	ours := [][]byte{[]byte("wds.(*"), []byte("wdstest.(*"), []byte("grpc.(*"), []byte("hbone.(*")}
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
