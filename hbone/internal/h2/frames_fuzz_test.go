package h2_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/isthmus-mesh/isthmus/hbone/hbonetest"
	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
	"golang.org/x/net/http2"
)

// corpus is bytes of frames, good and bad.
func corpus() [][]byte {
	block := encode(hbonetest.Connect(target))
	frames := [][]byte{
		frame(http2.FrameHeaders, 4, 1, block),
		frame(http2.FrameHeaders, 5, 1, block),
		frame(http2.FrameHeaders, 0, 1, block[:3]),
		frame(http2.FrameContinuation, 4, 1, block[3:]),
		frame(http2.FrameHeaders, 4, 1, []byte{0x88}),
		frame(http2.FrameData, 0, 1, []byte("hello")),
		frame(http2.FrameData, 9, 1, []byte("\x02hello\x00\x00")),
		frame(http2.FrameData, 1, 1, nil),
		frame(http2.FrameRSTStream, 0, 1, []byte{0, 0, 0, 8}),
		frame(http2.FrameSettings, 0, 0, []byte{0, 4, 0, 0, 0, 9}),
		frame(http2.FrameSettings, 1, 0, nil),
		frame(http2.FramePing, 0, 0, make([]byte, 8)),
		frame(http2.FrameGoAway, 0, 0, make([]byte, 8)),
		frame(http2.FrameWindowUpdate, 0, 0, []byte{0, 0, 0, 1}),
		frame(http2.FrameWindowUpdate, 0, 1, []byte{0x7f, 0xff, 0xff, 0xff}),
		frame(http2.FramePriority, 0, 1, make([]byte, 5)),
		frame(http2.FramePushPromise, 4, 1, make([]byte, 5)),
		frame(0x77, 0xff, 1, []byte("?")),
	}
	return append(frames, bytes.Join(frames[:1], nil), bytes.Join([][]byte{frames[0], frames[5], frames[7]}, nil), bytes.Join(frames[2:4], nil))
}

func frame(t http2.FrameType, flags http2.Flags, stream uint32, payload []byte) []byte {
	n := len(payload)
	b := []byte{byte(n >> 16), byte(n >> 8), byte(n), byte(t), byte(flags), byte(stream >> 24), byte(stream >> 16), byte(stream >> 8), byte(stream)}
	return append(b, payload...)
}

// feed gives the Conn at the other end of p bytes, then the end of the connection, and reads its frames, which must be whole.
func feed(t *testing.T, p *hbonetest.Peer, c *h2.Conn, b []byte) {
	t.Helper()
	p.Manual = true // it writes nothing of its own
	go func() {
		_, _ = p.Conn.Write(b)
		_ = p.Conn.(*hbonetest.Conn).CloseWrite()
	}()
	for {
		_, err := p.Next()
		if err == nil {
			continue
		}
		if opErr := (interface{ Timeout() bool })(nil); errors.As(err, &opErr) && opErr.Timeout() {
			t.Fatalf("the connection does not end: %v", err)
		}
		break
	}
	wantEnded(t, c)
	if c.Err() == nil || errors.Is(c.Err(), io.EOF) {
		t.Errorf("the cause of the end is %v", c.Err())
	}
	if n := c.Streams(); n != 0 {
		t.Errorf("%d streams are left", n)
	}
}

// FuzzServer: whatever a client sends, the connection ends when that ends, and what was not ended is no clean end.
func FuzzServer(f *testing.F) {
	for _, b := range corpus() {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		x, y := hbonetest.Pipe()
		c := h2.NewServer(y, h2.Config{StreamWindow: 1000, MaxHeaderBytes: 1000, MaxStreams: 3}, func(s *h2.Stream) {
			if len(s.Fields()) == 0 {
				t.Error("a stream without a header was accepted")
			}
			if s.Respond() != nil {
				return
			}
			_, err := io.Copy(s, plain{s})
			if err == nil {
				_ = s.CloseWrite()
			}
			s.Close()
		})
		defer c.Close()
		defer x.Close()
		feed(t, hbonetest.Client(t, x), c, b)
	})
}

// FuzzClient: whatever a server sends, Open returns and the connection ends.
func FuzzClient(f *testing.F) {
	for _, b := range corpus() {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		x, y := hbonetest.Pipe()
		c := h2.NewClient(x, h2.Config{StreamWindow: 1000, MaxHeaderBytes: 1000})
		defer c.Close()
		defer y.Close()
		opened := open(t, c)
		p := hbonetest.Server(t, y)
		p.WantConnect(target)
		feed(t, p, c, b)
		s, err := opened.Wait()
		if (s == nil) == (err == nil) || errors.Is(err, hbonetest.ErrRunning) {
			t.Fatalf("open gave %v, %v", s, err)
		}
		if s != nil {
			_, err := io.Copy(io.Discard, plain{s}) // to its end, clean or not
			ended := err == nil
			if sawEnd := endStream(b); ended && !sawEnd {
				t.Error("the stream ended cleanly, and no frame says so")
			}
			s.Close()
		}
	})
}

// endStream says whether some frame for stream 1 may have carried END_STREAM.
func endStream(b []byte) bool {
	for len(b) >= 9 {
		n := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
		if kind := http2.FrameType(b[3]); (kind == http2.FrameData || kind == http2.FrameHeaders) && b[4]&1 != 0 {
			return true
		}
		b = b[min(len(b), 9+n):]
	}
	return false
}

// FuzzHeaderBlock: how a block is cut into CONTINUATION plays no part in what it says.
func FuzzHeaderBlock(f *testing.F) {
	f.Add(encode(hbonetest.Connect(target)), uint8(1))
	f.Add(encode(connectWith("forwarded", "for=x", "baggage", "a=b")), uint8(7))
	f.Add([]byte{0x82, 0x87, 0x84}, uint8(2))
	f.Add([]byte{0x3f, 0xe1, 0x1f, 0x88}, uint8(1))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x7f}, uint8(3))
	f.Fuzz(func(t *testing.T, block []byte, size uint8) {
		block = block[:min(len(block), 4000)]
		whole, cut := verdict(t, block, len(block)+1), verdict(t, block, int(size)%64+1)
		if whole != cut {
			t.Errorf("whole: %s; in pieces of %d: %s", whole, int(size)%64+1, cut)
		}
	})
}

const refused = "refused"

// verdict is what becomes of a header block.
func verdict(t *testing.T, block []byte, size int) string {
	p, c, streams := asServer(t, h2.Config{})
	defer c.Close()
	n := min(len(block), size)
	frames := []hbonetest.Frame{hbonetest.Headers{Stream: 1, Block: append([]byte{}, block[:n]...), Open: n < len(block)}}
	for rest := block[n:]; len(rest) > 0; {
		n := min(len(rest), size)
		frames = append(frames, hbonetest.Continuation{Stream: 1, Block: rest[:n], Open: n < len(rest)})
		rest = rest[n:]
	}
	p.Send(append(frames, hbonetest.Ping{Data: [8]byte{1}})...)
	for {
		f, err := p.Next()
		if err != nil {
			return refused // GOAWAY may be lost to the reset behind it
		}
		switch f := f.(type) {
		case hbonetest.GoAway, hbonetest.Reset:
			return refused // a block that is wrong in two ways may be refused in either
		case hbonetest.Ping:
			if f.Ack {
				return "accepted " + text(next(t, streams).Fields())
			}
		}
	}
}
