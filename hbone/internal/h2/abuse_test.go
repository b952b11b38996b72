package h2_test

import (
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/hbonetest"
	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
	"golang.org/x/net/http2"
)

// meter watches what an attack costs: the largest live heap and the processor time of the process, both ends together.
type meter struct {
	start uint64
	peak  atomic.Uint64
	cpu   time.Duration
	stop  chan struct{}
	done  chan struct{}
}

func watch() *meter {
	m := &meter{stop: make(chan struct{}), done: make(chan struct{}), cpu: processorTime()}
	m.start = liveHeap()
	go func() {
		defer close(m.done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-m.stop:
				return
			case <-tick.C:
				m.peak.Store(max(m.peak.Load(), liveHeap()))
			}
		}
	}()
	return m
}

// end says how far the heap grew, in bytes, and how long processors were busy.
func (m *meter) end() (grown int64, cpu time.Duration) {
	close(m.stop)
	<-m.done
	peak := max(m.peak.Load(), liveHeap())
	return int64(peak) - int64(m.start), processorTime() - m.cpu
}

// liveHeap is heap and stacks in use after a collection.
func liveHeap() uint64 {
	var s runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&s)
	return s.HeapAlloc + s.StackInuse
}

func processorTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

const (
	memoryLimit = 8 << 20 // what an attacker may make a connection hold
	roundLimit  = 30_000  // rounds after which he must have been cut off
)

// attack is what a hostile peer does again and again, after it has one tunnel on stream 1.
type attack struct {
	name  string
	role  string // of the Conn under attack; both when empty
	cfg   h2.Config
	round func(i int) []hbonetest.Frame
	limit int // rounds; 0: roundLimit
}

// run attacks until the connection is closed. The attacker reads what comes, or not.
func (a attack) run(t *testing.T, role string, reads bool) {
	w := roles[role](t, a.cfg)
	m := watch()
	answered := make(chan http2.ErrCode, 1)
	if reads {
		go func() {
			code := http2.ErrCode(0xffff)
			for {
				f, err := w.p.NextRaw()
				if err != nil {
					answered <- code
					return
				}
				if f.Type == http2.FrameGoAway && len(f.Payload) >= 8 {
					code = http2.ErrCode(f.Payload[7])
				}
			}
		}()
	}
	limit := a.limit
	if limit == 0 {
		limit = roundLimit
	}
	rounds := 0
	const batch = 16
	for rounds < limit {
		var frames []hbonetest.Frame
		for range batch {
			frames = append(frames, a.round(rounds)...)
			rounds++
		}
		sent := hbonetest.Go(func() (bool, error) { return true, w.p.TrySend(frames...) })
		if _, err := sent.Wait(); err != nil {
			break
		}
		if w.c.Err() != nil {
			break
		}
	}
	if w.c.Err() == nil {
		t.Errorf("the attacker is still served after %d rounds", rounds)
	}
	grown, cpu := m.end()
	code := "unread"
	if reads && !t.Failed() {
		c := <-answered
		code = c.String()
		if c != http2.ErrCodeEnhanceYourCalm && c != 0xffff { // GOAWAY may be lost to the reset behind it
			t.Errorf("GOAWAY says %v, want ENHANCE_YOUR_CALM", c)
		}
	}
	t.Logf("cut off after %d rounds, %d KiB of heap, %v of processor (%v a round), %s", rounds, grown>>10, cpu.Round(time.Millisecond), (cpu / time.Duration(rounds)).Round(100*time.Nanosecond), code)
	if grown > memoryLimit {
		t.Errorf("the heap grew by %d KiB", grown>>10)
	}
	w.p.Conn.Close() // it may be read from for a while, so that GOAWAY arrives
	wantEnded(t, w.c)
	wantLost(t, w.s)
}

func TestAbuseFloodsAreCutOff(t *testing.T) {
	id := func(i int) uint32 { return uint32(2*i + 3) }
	one := func(f hbonetest.Frame) func(int) []hbonetest.Frame {
		frames := []hbonetest.Frame{f}
		return func(int) []hbonetest.Frame { return frames }
	}
	attacks := []attack{
		{name: "rapid reset (CVE-2023-44487)", role: "server", round: func(i int) []hbonetest.Frame {
			return []hbonetest.Frame{hbonetest.Open(id(i), target), hbonetest.Reset{Stream: id(i), Code: http2.ErrCodeCancel}}
		}},
		{name: "MadeYouReset (CVE-2025-8671): the window overflows", role: "server", round: func(i int) []hbonetest.Frame {
			return []hbonetest.Frame{hbonetest.Open(id(i), target), hbonetest.WindowUpdate{Stream: id(i), Increment: 1<<31 - 1}}
		}},
		{name: "MadeYouReset: WINDOW_UPDATE of 0", role: "server", round: func(i int) []hbonetest.Frame {
			return []hbonetest.Frame{hbonetest.Open(id(i), target), hbonetest.WindowUpdate{Stream: id(i)}}
		}},
		{name: "MadeYouReset: DATA after END_STREAM", role: "server", round: func(i int) []hbonetest.Frame {
			return []hbonetest.Frame{hbonetest.Headers{Stream: id(i), Fields: hbonetest.Connect(target), End: true}, hbonetest.Data{Stream: id(i), Bytes: []byte("x")}}
		}},
		{name: "MadeYouReset: HEADERS after END_STREAM", role: "server", round: func(i int) []hbonetest.Frame {
			return []hbonetest.Frame{hbonetest.Headers{Stream: id(i), Fields: hbonetest.Connect(target), End: true}, hbonetest.Headers{Stream: id(i), Fields: fields("a", "b"), End: true}}
		}},
		{name: "MadeYouReset: more than the window", role: "server", cfg: h2.Config{StreamWindow: 100}, round: func(i int) []hbonetest.Frame {
			return []hbonetest.Frame{hbonetest.Open(id(i), target), hbonetest.Data{Stream: id(i), Bytes: make([]byte, 101)}}
		}},
		{name: "MadeYouReset: malformed requests", role: "server", round: func(i int) []hbonetest.Frame {
			return []hbonetest.Frame{hbonetest.Headers{Stream: id(i), Fields: connectWith("A", "b")}}
		}},
		{name: "MadeYouReset: trailers without an end", role: "server", round: func(i int) []hbonetest.Frame {
			return []hbonetest.Frame{hbonetest.Open(id(i), target), hbonetest.Headers{Stream: id(i), Fields: fields("a", "b")}}
		}},
		{name: "MadeYouReset: PRIORITY that depends on itself", round: one(hbonetest.Priority{Stream: 1, DependsOn: 1})},
		{name: "more streams than allowed", role: "server", cfg: h2.Config{MaxStreams: 1}, round: func(i int) []hbonetest.Frame {
			return []hbonetest.Frame{hbonetest.Open(id(i), target)}
		}},
		{name: "SETTINGS", round: one(hbonetest.Settings{})},
		{name: "SETTINGS with a thousand entries", round: one(hbonetest.Settings{List: manySettings(1000)})},
		{name: "SETTINGS ACK", round: one(hbonetest.Settings{Ack: true})},
		{name: "PING", round: one(hbonetest.Ping{})},
		{name: "PING ACK", round: one(hbonetest.Ping{Ack: true})},
		{name: "empty DATA", round: one(hbonetest.Data{Stream: 1})},
		{name: "DATA of padding", round: one(hbonetest.Data{Stream: 1, Pad: 8})},
		{name: "PRIORITY", round: func(i int) []hbonetest.Frame {
			return []hbonetest.Frame{hbonetest.Priority{Stream: uint32(i + 1), DependsOn: uint32(i + 2)}}
		}},
		{name: "unknown frames", round: one(hbonetest.Raw{Type: 0xbe, Stream: 1, Payload: []byte("x")})},
		{name: "empty unknown frames", round: one(hbonetest.Raw{Type: 0xbe})},
		{name: "GOAWAY", round: one(hbonetest.GoAway{Last: 1<<31 - 1})},
		{name: "RST_STREAM of closed streams", role: "server", round: func(i int) []hbonetest.Frame {
			if i == 0 {
				return []hbonetest.Frame{hbonetest.Open(99, target), hbonetest.Reset{Stream: 99}}
			}
			return []hbonetest.Frame{hbonetest.Reset{Stream: 99}}
		}},
		{name: "WINDOW_UPDATE of 1 for the connection", round: one(hbonetest.WindowUpdate{Increment: 1})},
		{name: "WINDOW_UPDATE of 1 for a stream", round: one(hbonetest.WindowUpdate{Stream: 1, Increment: 1})},
		{name: "WINDOW_UPDATE of closed streams", role: "server", round: func(i int) []hbonetest.Frame {
			if i == 0 {
				return []hbonetest.Frame{hbonetest.Open(99, target), hbonetest.Reset{Stream: 99}}
			}
			return []hbonetest.Frame{hbonetest.WindowUpdate{Stream: 99, Increment: 1}}
		}},
	}
	for _, a := range attacks {
		for role := range roles {
			if a.role != "" && a.role != role {
				continue
			}
			t.Run(fmt.Sprintf("%s, %s", a.name, role), func(t *testing.T) { a.run(t, role, true) })
			t.Run(fmt.Sprintf("%s, %s, unread", a.name, role), func(t *testing.T) { a.run(t, role, false) })
		}
	}
}

func manySettings(n int) []http2.Setting {
	var list []http2.Setting
	for i := range n {
		list = append(list, window(uint32(1000+i%2)))
	}
	return list
}

// Header blocks that never end, or that grow when they are decoded, cost no more than the limit of a header list allows (section 10.5.1).
func TestAbuseHeaderBlocks(t *testing.T) {
	piece := make([]byte, 16<<10)
	for i := range piece {
		piece[i] = 0x82 // :method GET, again and again
	}
	// An entry of 4 KB in the table, then a byte for each further copy of it.
	entry := append([]byte{0x40, 1, 'a', 0x7f}, append(varint(4000-127), strings.Repeat("v", 4000)...)...)
	bomb := append(entry, bytesOf(0xbe, 12_000)...)
	tests := map[string]attack{
		"CONTINUATION without end": {round: func(i int) []hbonetest.Frame {
			if i == 0 {
				return []hbonetest.Frame{hbonetest.Headers{Stream: 3, Block: piece, Open: true}}
			}
			return []hbonetest.Frame{hbonetest.Continuation{Stream: 3, Block: piece, Open: true}}
		}, limit: 2000},
		"CONTINUATION of one byte without end": {round: func(i int) []hbonetest.Frame {
			if i == 0 {
				return []hbonetest.Frame{hbonetest.Headers{Stream: 3, Block: []byte{}, Open: true}}
			}
			return []hbonetest.Frame{hbonetest.Continuation{Stream: 3, Block: []byte{0x82}, Open: true}}
		}, limit: 200_000},
		"empty CONTINUATION without end": {round: func(i int) []hbonetest.Frame {
			if i == 0 {
				return []hbonetest.Frame{hbonetest.Headers{Stream: 3, Block: []byte{}, Open: true}}
			}
			return []hbonetest.Frame{hbonetest.Continuation{Stream: 3, Open: true}}
		}},
		"a literal without end": {round: func(i int) []hbonetest.Frame {
			if i == 0 {
				return []hbonetest.Frame{hbonetest.Headers{Stream: 3, Block: append([]byte{0x00, 1, 'a', 0x7f}, varint(1<<30)...), Open: true}}
			}
			return []hbonetest.Frame{hbonetest.Continuation{Stream: 3, Block: piece, Open: true}}
		}, limit: 2000},
		"HPACK bombs": {round: func(i int) []hbonetest.Frame {
			return []hbonetest.Frame{hbonetest.Headers{Stream: uint32(2*i + 3), Block: bomb}}
		}, limit: 5000},
	}
	endlessBlocks(t, tests)
}

func endlessBlocks(t *testing.T, tests map[string]attack) {
	for name, a := range tests {
		t.Run(name, func(t *testing.T) {
			w := roles["server"](t, h2.Config{})
			m := watch()
			go w.p.Drain()
			rounds := 0
			for ; rounds < a.limit || a.limit == 0 && rounds < roundLimit; rounds++ {
				sent := hbonetest.Go(func() (bool, error) { return true, w.p.TrySend(a.round(rounds)...) })
				if _, err := sent.Wait(); err != nil || w.c.Err() != nil {
					break
				}
			}
			if w.c.Err() == nil {
				t.Errorf("the attacker is still served after %d rounds", rounds)
			}
			grown, cpu := m.end()
			t.Logf("cut off after %d rounds, %d KiB of heap, %v of processor: %v", rounds, grown>>10, cpu.Round(time.Millisecond), w.c.Err())
			if grown > memoryLimit {
				t.Errorf("the heap grew by %d KiB", grown>>10)
			}
			w.p.Conn.Close()
			wantEnded(t, w.c)
			wantLost(t, w.s)
		})
	}
}

func bytesOf(b byte, n int) []byte { return []byte(strings.Repeat(string([]byte{b}), n)) }

// varint is the tail of an HPACK integer whose prefix is full (RFC 7541, section 5.1).
func varint(n int) []byte {
	var b []byte
	for n >= 128 {
		b = append(b, byte(n%128+128))
		n /= 128
	}
	return append(b, byte(n))
}
