package hbone_test

import (
	"bytes"
	"os"
	"runtime"
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
