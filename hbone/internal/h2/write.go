package h2

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"golang.org/x/net/http2"
)

// quantum is what one stream sends before it is the next one's turn.
const quantum = 64 << 10

// writeLoop owns the writing side of the connection.
func (c *Conn) writeLoop() {
	defer c.nc.Close() // wakes the reader
	batch := make([]byte, 0, maxBatch+quantum)
	for range c.wake {
		for {
			c.mu.Lock()
			batch = c.gather(batch[:0])
			ended := c.err
			c.mu.Unlock()
			if ended != nil {
				// Nobody waits for a peer that does not take our last words.
				_ = c.nc.SetWriteDeadline(time.Now().Add(time.Second))
			}
			if len(batch) > 0 {
				if _, err := c.nc.Write(batch); err != nil {
					c.fail(fmt.Errorf("write: %w", err))
					return
				}
			}
			if ended != nil {
				return
			}
			if len(batch) == 0 {
				break
			}
		}
	}
}

// gather takes what is to be sent: replies and headers first, then the streams' data in turn. mu is held.
func (c *Conn) gather(batch []byte) []byte {
	batch = append(batch, c.control.Bytes()...)
	c.control.Reset()
	if c.err != nil {
		return batch
	}
	for len(batch) < maxBatch && len(c.sendable) > 0 {
		s := c.sendable[0]
		c.sendable[0] = nil
		c.sendable = c.sendable[1:]
		s.queued = false
		var more bool
		if batch, more = c.take(batch, s); more {
			s.enqueue()
		}
		// RST_STREAM and WINDOW_UPDATE that take caused go behind the stream's data.
		batch = append(batch, c.control.Bytes()...)
		c.control.Reset()
	}
	if len(c.sendable) == 0 {
		c.sendable = nil
	}
	return batch
}

// take appends one turn of a stream's data. more says that it has data and the windows to send it. mu is held.
func (c *Conn) take(batch []byte, s *Stream) (_ []byte, more bool) {
	if s.sendErr != nil {
		return batch, false
	}
	n := min(len(s.pending), quantum, c.peerFrame, c.cfg.maxSendFrame())
	n = int(max(0, min(int64(n), c.sendWindow, s.sendWindow)))
	last := s.wantEnd && n == len(s.pending)
	if n == 0 && !last {
		return batch, false // a WINDOW_UPDATE puts it back
	}
	var flags http2.Flags
	if last {
		flags = http2.FlagDataEndStream
	}
	batch = appendFrameHeader(batch, n, http2.FrameData, flags, s.id)
	batch = append(batch, s.pending[:n]...)
	s.pending = s.pending[n:]
	c.sendWindow -= int64(n)
	c.bytesOut += uint64(n)
	s.sendWindow -= int64(n)
	if len(s.pending) == 0 {
		s.pending = nil
		if n > 0 {
			notify(s.writable)
		}
	}
	if last {
		s.sentEnd()
		return batch, false
	}
	return batch, len(s.pending) > 0
}

// sentEnd follows END_STREAM; mu is held.
func (s *Stream) sentEnd() {
	s.endSent = true
	s.sendErr = errSentEnd
	switch {
	case s.recvEnd || s.recvErr != nil:
		s.finish()
		s.forget()
	case s.closedByUser:
		_ = s.c.cw.WriteRSTStream(s.id, http2.ErrCodeCancel)
		s.end(io.ErrClosedPipe)
		s.forget()
	}
}

func appendFrameHeader(b []byte, length int, t http2.FrameType, flags http2.Flags, id uint32) []byte {
	b = append(b, byte(length>>16), byte(length>>8), byte(length), byte(t), byte(flags))
	return binary.BigEndian.AppendUint32(b, id)
}

// keepalive finds peers that are gone without a word.
func (c *Conn) keepalive() {
	settings := time.NewTimer(c.cfg.settingsTimeout())
	defer settings.Stop()
	interval := c.cfg.pingInterval()
	var tick <-chan time.Time
	if interval > 0 {
		t := time.NewTicker(interval)
		defer t.Stop()
		tick = t.C
	}
	ready := c.ready
	for {
		select {
		case <-c.dead:
			return
		case <-ready:
			settings.Stop()
			ready = nil
		case <-settings.C:
			c.fail(fmt.Errorf("the peer sent no SETTINGS within %v", c.cfg.settingsTimeout()))
			return
		case <-tick:
			if !c.ping(interval) {
				return
			}
		}
	}
}

// ping asks a silent peer for a sign of life, or gives it up.
func (c *Conn) ping(interval time.Duration) bool {
	c.mu.Lock()
	now := time.Now()
	switch {
	case c.pinged && now.Sub(c.pingSent) >= c.cfg.pingTimeout():
		c.mu.Unlock()
		c.fail(fmt.Errorf("the peer did not answer a PING within %v", c.cfg.pingTimeout()))
		return false
	case !c.pinged && now.Sub(c.lastRead) >= interval:
		c.pinged, c.pingSent = true, now
		_ = c.cw.WritePing(false, [8]byte{'a', 'l', 'i', 'v', 'e'})
	}
	c.mu.Unlock()
	c.kick()
	return true
}
