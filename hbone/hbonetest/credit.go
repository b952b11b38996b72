package hbonetest

import (
	"golang.org/x/net/http2"
)

// credit is what the other end lets a Peer send.
type credit struct {
	granted map[uint32]int64 // by WINDOW_UPDATE
	sent    map[uint32]int64
}

func (c *credit) grant(stream uint32, n int64) {
	if c.granted == nil {
		c.granted = map[uint32]int64{}
	}
	c.granted[stream] += n
}

func (c *credit) spend(stream uint32, n int64) {
	if c.sent == nil {
		c.sent = map[uint32]int64{}
	}
	c.sent[stream] += n
	c.sent[0] += n
}

// Credit is how many bytes of DATA may be sent on stream by its own window, or for stream 0 by the connection's, as far as frames
// were read. It is negative when more was sent.
func (p *Peer) Credit(stream uint32) int64 {
	start := int64(65535)
	if v, ok := p.Setting(http2.SettingInitialWindowSize); ok && stream != 0 {
		start = int64(v)
	}
	return start + p.credit.granted[stream] - p.credit.sent[stream]
}

// SendData sends body on stream as a well-behaved peer does, in frames of at most size bytes (0: 16 KiB), and waits for WINDOW_UPDATE
// where the windows demand it; frames of other types that come meanwhile are lost.
func (p *Peer) SendData(stream uint32, body []byte, size int) {
	p.t.Helper()
	if size == 0 {
		size = 16 << 10
	}
	for len(body) > 0 {
		n := int(min(int64(len(body)), int64(size), p.Credit(stream), p.Credit(0)))
		if n > 0 {
			p.Send(Data{Stream: stream, Bytes: body[:n]})
			body = body[n:]
			continue
		}
		if _, err := p.Next(); err != nil {
			p.t.Fatalf("stream %d: %d bytes wait for a window: %v", stream, len(body), err)
		}
	}
}
