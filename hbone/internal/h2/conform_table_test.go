package h2_test

import (
	"runtime"
	"testing"

	"github.com/isthmus-mesh/isthmus/hbone/hbonetest"
	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
	"golang.org/x/net/http2"
)

// A peer that makes the table smaller hears of it at the beginning of the next block, also of the shortest (RFC 7541, section 4.2).
func TestConformance4_3TheTablesSize(t *testing.T) {
	p, _, streams := asServer(t, h2.Config{}, http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0})
	for i, want := range []string{"\x20\x88", "\x88"} {
		p.Send(hbonetest.Open(uint32(2*i+1), target))
		if err := next(t, streams).Respond(); err != nil {
			t.Fatal(err)
		}
		f := nextRaw(t, p)
		for f.Type != http2.FrameHeaders {
			f = nextRaw(t, p)
		}
		if string(f.Payload) != want {
			t.Errorf("answer %d is %x, want %x", i, f.Payload, want)
		}
	}
}

// A frame that is ignored leaves nothing behind, however large it was.
func TestAbuseLargeFramesOfUnknownTypes(t *testing.T) {
	const peers = 24
	var keep []*h2.Conn
	before := liveHeap()
	for range peers {
		p, c, _ := asServer(t, h2.Config{})
		p.Send(hbonetest.Raw{Type: 0x77, Payload: make([]byte, 1<<20)})
		p.Sync()
		keep = append(keep, c)
	}
	if grown := int64(liveHeap()) - int64(before); grown > peers<<19 {
		t.Errorf("%d KiB are held for %d connections", grown>>10, peers)
	}
	runtime.KeepAlive(keep)
}
