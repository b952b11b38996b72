package h2

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// other takes a frame that is neither DATA nor HEADERS.
func (rd *reader) other() error {
	c := rd.c
	rd.unlock()
	f, err := rd.fr.ReadFrame()
	rd.lock()
	if err != nil {
		var se http2.StreamError
		var ce http2.ConnectionError
		switch {
		case errors.As(err, &se) && c.idle(se.StreamID):
			return &connError{http2.ErrCodeProtocol, "a malformed frame on an idle stream"}
		case errors.As(err, &se):
			return rd.badHeaders(se.StreamID, se.Code)
		case errors.As(err, &ce):
			return &connError{http2.ErrCode(ce), "a malformed frame"}
		case errors.Is(err, http2.ErrFrameTooLarge):
			return &connError{http2.ErrCodeFrameSize, "a frame that is too large"}
		}
		return err
	}
	switch f := f.(type) {
	case *http2.SettingsFrame:
		return errors.Join(rd.cost(10+len(c.streams)/64), c.onSettings(f))
	case *http2.PingFrame:
		if f.IsAck() {
			c.onPingAck(f)
			return rd.cost(5)
		}
		_ = c.cw.WritePing(true, f.Data)
		return rd.cost(5)
	case *http2.GoAwayFrame:
		c.onGoAway(f)
		return rd.cost(10)
	case *http2.PushPromiseFrame:
		return &connError{http2.ErrCodeProtocol, "PUSH_PROMISE"}
	}
	return rd.cost(10) // PRIORITY and unknown frames are ignored (RFC 9113, section 5.5)
}

// endOfStream takes the peer's END_STREAM; mu is held.
func (c *Conn) endOfStream(s *Stream) {
	if s.isDone {
		return
	}
	if c.client && s.status == 0 { // ended without an answer
		s.reset(http2.ErrCodeProtocol)
		return
	}
	s.recvEnd = true
	s.wakeReader()
	if s.forward() != nil {
		c.rd.list(s)
	}
	s.answer()
	if s.endSent {
		s.finish()
		s.forget()
	} else if s.closedByUser {
		s.closeWrite()
	}
}

// idle says that nobody has opened the stream yet; mu is held.
func (c *Conn) idle(id uint32) bool {
	if c.client {
		return id%2 == 0 || id >= c.nextID
	}
	return id%2 == 0 || id > c.lastPeer && c.drain != drainLast // what comes beyond the last stream is passed over
}

// onReset takes the payload of RST_STREAM.
func (rd *reader) onReset(id uint32) error {
	word, err := rd.word()
	if err != nil {
		return err
	}
	c, code := rd.c, http2.ErrCode(word)
	s := c.streams[id]
	switch {
	case s == nil && c.idle(id):
		return &connError{http2.ErrCodeProtocol, "RST_STREAM on an idle stream"}
	case s == nil:
		return rd.late()
	}
	cost := c.resetCost(s)
	switch {
	case s.recvEnd:
		s.end(errPeerEnd)
	case c.client && s.status == 0 && code == http2.ErrCodeRefusedStream:
		s.end(fmt.Errorf("%w: %w", ErrUnprocessed, &ResetError{Code: code, Remote: true}))
	default:
		s.end(&ResetError{Code: code, Remote: true})
	}
	s.forget()
	c.past.reset(id)
	return rd.cost(cost)
}

// onWindowUpdate takes the payload of WINDOW_UPDATE.
func (rd *reader) onWindowUpdate(id uint32) error {
	word, err := rd.word()
	if err != nil {
		return err
	}
	if err := rd.cost(1); err != nil {
		return err
	}
	c, more := rd.c, int64(word&lastStreamID)
	if id == 0 {
		if more == 0 {
			return &connError{http2.ErrCodeProtocol, "WINDOW_UPDATE of nothing"}
		}
		if c.sendWindow += more; c.sendWindow > lastStreamID {
			return &connError{http2.ErrCodeFlowControl, "the connection's window overflows"}
		}
		if s := c.out.head; s != nil && !c.out.flushing {
			s.wakeWriter() // it flushes its own, and hands the others on
		}
		return nil
	}
	s := c.streams[id]
	switch {
	case s == nil && c.idle(id):
		return &connError{http2.ErrCodeProtocol, "WINDOW_UPDATE on an idle stream"}
	case more == 0:
		return rd.badHeaders(id, http2.ErrCodeProtocol)
	case s == nil:
		return nil
	}
	if !s.widen(more) {
		return rd.provoked(s, http2.ErrCodeFlowControl)
	}
	s.resume()
	return nil
}

// widen changes what may be sent, and reports whether that is still a window (RFC 9113, section 6.9.1). mu is held.
func (s *Stream) widen(by int64) bool {
	now := int64(s.sendWindow) + by
	if now > lastStreamID {
		return false
	}
	s.sendWindow = int32(now)
	return true
}

// resume puts a stream whose Write waits for window back into its turn; mu is held.
func (s *Stream) resume() {
	if f := s.forward(); f != nil {
		f.down()
		return
	}
	if s.ww == nil || len(s.ww.p) == 0 || s.sendWindow <= 0 {
		return
	}
	s.c.out.push(s)
	if !s.c.out.flushing {
		s.ww.wake() // it becomes the flusher
	}
}

// onSettings takes SETTINGS; mu is held.
func (c *Conn) onSettings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		c.onSettingsAck()
		return nil
	}
	err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return &connError{http2.ErrCodeProtocol, "an invalid setting " + s.String()}
		}
		switch s.ID {
		case http2.SettingEnablePush:
			if c.client && s.Val != 0 {
				return &connError{http2.ErrCodeProtocol, "ENABLE_PUSH of a server"}
			}
		case http2.SettingInitialWindowSize:
			delta := int64(s.Val) - c.peerWindow
			c.peerWindow = int64(s.Val)
			for _, st := range c.streams {
				if !st.widen(delta) {
					return &connError{http2.ErrCodeFlowControl, "a stream's window overflows"}
				}
				st.resume()
			}
		case http2.SettingMaxFrameSize:
			c.peerFrame = int(s.Val)
		case http2.SettingMaxConcurrentStreams:
			c.peerMax = s.Val
		case http2.SettingHeaderTableSize:
			c.enc.SetMaxDynamicTableSize(min(s.Val, 4096))
			c.encAgain, c.encSized = false, true
		}
		return nil
	})
	if err != nil {
		return err
	}
	if !c.settled {
		c.settled = true
		if c.client && c.peerMax == assumeMax && !hasSetting(f, http2.SettingMaxConcurrentStreams) {
			c.peerMax = 1 << 20 // no limit was named
		}
		close(c.ready)
	}
	_ = c.cw.WriteSettingsAck()
	return nil
}

func hasSetting(f *http2.SettingsFrame, id http2.SettingID) bool {
	_, ok := f.Value(id)
	return ok
}

// onPingAck takes the answer to a PING of ours; mu is held.
func (c *Conn) onPingAck(f *http2.PingFrame) {
	switch {
	case f.Data == rttPing:
		c.rtt.measured(time.Now())
	case f.Data == drainPing && c.drain == drainAsked:
		c.drainAnswered()
	}
}

// onGoAway takes GOAWAY; mu is held.
func (c *Conn) onGoAway(f *http2.GoAwayFrame) {
	c.wentAway, c.goneLast = true, f.LastStreamID
	c.onFarewell(f)
	c.closeGoing()
	if !c.client {
		return
	}
	for id, s := range c.streams {
		if id <= f.LastStreamID {
			continue
		}
		err := fmt.Errorf("the peer is going away (%v): %w", f.ErrCode, ErrUnprocessed)
		if s.status != 0 { // it has answered, so it has acted, whatever it says now
			err = &LostError{Cause: fmt.Errorf("the peer is going away (%v) and gives up a stream that it answered", f.ErrCode)}
		}
		s.end(err)
		s.forget()
	}
}

// writeHeaders queues a header block; mu is held, which keeps blocks in the order of their encoding.
func (c *Conn) writeHeaders(id uint32, fields []hpack.HeaderField, end bool) {
	block := c.encode(fields)
	first := block[:min(len(block), c.peerFrame)]
	_ = c.cw.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndStream: end, EndHeaders: len(first) == len(block)})
	for rest := block[len(first):]; len(rest) > 0; {
		part := rest[:min(len(rest), c.peerFrame)]
		rest = rest[len(part):]
		_ = c.cw.WriteContinuation(id, len(rest) == 0, part)
	}
}

// encode makes a header block. One that is nothing but references to the table is good for the same fields as long as no other is made. mu is held.
func (c *Conn) encode(fields []hpack.HeaderField) []byte {
	if c.encAgain && len(c.encLast) == len(fields) && unsafe.SliceData(c.encLast) == unsafe.SliceData(fields) {
		return c.encBuf.b
	}
	c.encBuf.b, c.encSized = c.encBuf.b[:0], false
	for _, f := range fields {
		_ = c.enc.WriteField(f) // into memory
	}
	c.encLast, c.encAgain = fields, onlyReferences(c.encBuf.b, len(fields))
	return c.encBuf.b
}

// onlyReferences reports whether a block of n fields has one short reference for each (RFC 7541, section 6.1).
func onlyReferences(block []byte, n int) bool {
	if len(block) != n {
		return false
	}
	for _, b := range block {
		if b < 0x80 || b == 0xff {
			return false
		}
	}
	return true
}
