package h2

import (
	"io"
	"testing"

	"github.com/isthmus-mesh/isthmus/hbone/internal/bufpool"
)

// Until the engine takes over, a Gather reads no more than it is asked for, and holds nothing: a handshake may never end.
func TestGatherOfAHandshakeHoldsNothing(t *testing.T) {
	bufpool.Track(true)
	defer bufpool.Track(false)
	a, b := tcpPair(t)
	defer a.Close()
	defer b.Close()
	g := NewGather(b)
	if _, err := a.Write([]byte("hello and more")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(g, got); err != nil || string(got) != "hello" {
		t.Fatalf("read %q, %v", got, err)
	}
	if n := bufpool.Out(); n != 0 {
		t.Errorf("%d buffers are held", n)
	}
	g.attach(func() {}, func() {})
	rest := make([]byte, 4)
	if _, err := io.ReadFull(g, rest); err != nil || string(rest) != " and" {
		t.Fatalf("read %q, %v", rest, err)
	}
	if n := bufpool.Out(); n != 1 {
		t.Errorf("%d buffers are held while %q is read ahead", n, " more")
	}
}
