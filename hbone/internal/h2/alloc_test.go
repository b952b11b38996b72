//go:build !race

package h2

import (
	"io"
	"runtime"
	"testing"
	"unsafe"
)

// A message on an open tunnel costs no allocation at either end. (Over TLS, crypto/tls makes one object a read from the connection, however
// many messages that brings; so this is measured without.)
func TestMessagesAllocateNothing(t *testing.T) {
	client, _, streams := pair(t, Config{}, Config{})
	a, b := tunnel(t, client, streams)
	go func() { _, _ = io.Copy(struct{ io.Writer }{b}, struct{ io.Reader }{b}) }()
	for _, size := range []int{100, 20_000} {
		buf := make([]byte, size)
		n := testing.AllocsPerRun(500, func() {
			if _, err := a.Write(buf); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(a, buf); err != nil {
				t.Fatal(err)
			}
		})
		if n > 0 {
			t.Errorf("%d bytes there and back take %v allocations", size, n)
		}
	}
}

// Opening, answering and closing a tunnel costs few, both ends together.
func TestOpenAllocatesLittle(t *testing.T) {
	closed := make(chan struct{}, 1)
	client, _ := gathered(t, Config{}, Config{}, func(s *Stream) {
		_ = s.Respond()
		closed <- struct{}{}
	})
	fields := connect("10.0.0.1:80")
	kept := make([]*Stream, 0, 4096)
	n := testing.AllocsPerRun(3000, func() {
		s, err := client.Open(t.Context(), fields)
		if err != nil {
			t.Fatal(err)
		}
		<-closed
		kept = append(kept, s)
	})
	t.Logf("%v allocations an open", n)
	if n > 6 {
		t.Errorf("an open takes %v allocations, want at most 6", n)
	}
	runtime.KeepAlive(kept)
}

// A tunnel that does nothing is a Stream and its place in the table.
func TestIdleStreamIsSmall(t *testing.T) {
	if n := unsafe.Sizeof(Stream{}); n > 136 {
		t.Errorf("a Stream has %d bytes", n)
	}
	const tunnels = 20_000
	client, server := gathered(t, Config{}, Config{}, func(s *Stream) { _ = s.Respond() })
	list := make([]*Stream, 0, tunnels)
	before, goroutines := heap(), runtime.NumGoroutine()
	for range tunnels {
		s, err := client.Open(t.Context(), connect("10.0.0.1:80"))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, s)
	}
	server.serving.Wait()
	each := float64(heap()-before) / tunnels / 2
	t.Logf("%.0f bytes of heap a tunnel and side", each)
	if each > 200 {
		t.Errorf("an idle tunnel holds %.0f bytes of heap a side, want at most 200", each)
	}
	if more := runtime.NumGoroutine() - goroutines; more > 10 {
		t.Errorf("%d goroutines more than before", more)
	}
	runtime.KeepAlive(list)
}
