package h2

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/net/http2"
)

var errSentEnd = fmt.Errorf("write after the end of the stream: %w", syscall.EPIPE)

// headerReplay gives a Framer a frame header that was already read, then the connection.
type headerReplay struct {
	r    *bufio.Reader
	head [9]byte
	left int
}

func (h *headerReplay) Read(p []byte) (int, error) {
	if h.left > 0 {
		n := copy(p, h.head[len(h.head)-h.left:])
		h.left -= n
		return n, nil
	}
	return h.r.Read(p)
}

func (c *Conn) readLoop() {
	err := c.readAll()
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		// Never io.EOF: nobody may take the loss of a connection for the end of a stream.
		err = fmt.Errorf("the peer closed the connection: %w", io.ErrUnexpectedEOF)
	}
	c.fail(err)
}

func (c *Conn) readAll() error {
	if !c.client {
		preface := make([]byte, len(http2.ClientPreface))
		if _, err := io.ReadFull(c.br, preface); err != nil {
			return err
		}
		if string(preface) != http2.ClientPreface {
			return &connError{http2.ErrCodeProtocol, "no HTTP/2 preface"}
		}
	}
	first := true
	for {
		if _, err := io.ReadFull(c.br, c.replay.head[:]); err != nil {
			return err
		}
		h := c.replay.head
		length := uint32(h[0])<<16 | uint32(h[1])<<8 | uint32(h[2])
		kind, flags := http2.FrameType(h[3]), http2.Flags(h[4])
		id := (uint32(h[5])<<24 | uint32(h[6])<<16 | uint32(h[7])<<8 | uint32(h[8])) & lastStreamID
		if first && kind != http2.FrameSettings {
			return &connError{http2.ErrCodeProtocol, "the first frame is not SETTINGS"}
		}
		first = false
		if length > c.cfg.maxFrameSize() {
			return &connError{http2.ErrCodeFrameSize, fmt.Sprintf("a frame of %d bytes", length)}
		}
		c.seen()
		var err error
		if kind == http2.FrameData {
			err = c.onData(id, length, flags)
		} else {
			c.replay.left = len(h)
			err = c.onOther()
		}
		if err != nil {
			return err
		}
	}
}

// seen notes a sign of life.
func (c *Conn) seen() {
	c.mu.Lock()
	c.lastRead = time.Now()
	c.pinged = false
	c.mu.Unlock()
}

// cost charges the peer for frames that carry nothing; a healthy tunnel pays them back with bytes.
func (c *Conn) cost(n int) error {
	if c.abuse = max(0, c.abuse+n); c.abuse > 10*maxResets {
		return &connError{http2.ErrCodeEnhanceYourCalm, "too many frames that carry nothing"}
	}
	c.mu.Lock()
	held := c.control.Len()
	c.mu.Unlock()
	if held > maxControl {
		return &connError{http2.ErrCodeEnhanceYourCalm, "more to answer than the peer reads"}
	}
	return nil
}

func (c *Conn) onOther() error {
	f, err := c.fr.ReadFrame()
	if err != nil {
		var se http2.StreamError
		var ce http2.ConnectionError
		switch {
		case errors.As(err, &se):
			return c.badHeaders(se)
		case errors.As(err, &ce):
			return &connError{http2.ErrCode(ce), "a malformed frame"}
		case errors.Is(err, http2.ErrFrameTooLarge):
			return &connError{http2.ErrCodeFrameSize, "a frame that is too large"}
		}
		return err
	}
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		return c.onHeaders(f)
	case *http2.WindowUpdateFrame:
		return errors.Join(c.cost(1), c.onWindowUpdate(f))
	case *http2.RSTStreamFrame:
		return errors.Join(c.cost(10), c.onReset(f))
	case *http2.SettingsFrame:
		return errors.Join(c.cost(10), c.onSettings(f))
	case *http2.PingFrame:
		return errors.Join(c.cost(5), c.onPing(f))
	case *http2.GoAwayFrame:
		c.onGoAway(f)
		return nil
	case *http2.PushPromiseFrame:
		return &connError{http2.ErrCodeProtocol, "PUSH_PROMISE"}
	}
	return c.cost(10) // PRIORITY and unknown frames are ignored (RFC 9113, section 5.5)
}

// badHeaders answers a header list that breaks the rules.
func (c *Conn) badHeaders(se http2.StreamError) error {
	if err := c.cost(10); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.client && se.StreamID > c.lastPeer {
		if se.StreamID%2 == 0 {
			return &connError{http2.ErrCodeProtocol, "an even stream of a client"}
		}
		c.lastPeer = se.StreamID
	}
	if s := c.streams[se.StreamID]; s != nil {
		s.reset(se.Code)
		return nil
	}
	_ = c.cw.WriteRSTStream(se.StreamID, se.Code)
	c.kick()
	return nil
}

func (c *Conn) onData(id, length uint32, flags http2.Flags) error {
	if id == 0 {
		return &connError{http2.ErrCodeProtocol, "DATA on stream 0"}
	}
	pad, body := uint32(0), length
	if flags.Has(http2.FlagDataPadded) {
		b, err := c.br.ReadByte()
		if err != nil {
			return err
		}
		if pad = uint32(b) + 1; pad > length {
			return &connError{http2.ErrCodeProtocol, "padding longer than its frame"}
		}
		body -= pad
	}
	if c.connRecv -= int64(length); c.connRecv < 0 {
		return &connError{http2.ErrCodeFlowControl, "more DATA than the connection's window"}
	}
	if body == 0 && !flags.Has(http2.FlagDataEndStream) {
		if err := c.cost(10); err != nil {
			return err
		}
	} else {
		c.abuse = max(0, c.abuse-int(body>>6)-1)
	}
	c.mu.Lock()
	c.bytesIn += uint64(body)
	s := c.streams[id]
	if s == nil && c.idle(id) {
		c.mu.Unlock()
		return &connError{http2.ErrCodeProtocol, "DATA on an idle stream"}
	}
	if s != nil && s.recvEnd {
		s.reset(http2.ErrCodeStreamClosed)
		s = nil
	}
	if s != nil && c.client && s.status == 0 {
		s.reset(http2.ErrCodeProtocol)
		s = nil
	}
	if s != nil {
		if s.recvWindow -= int64(length); s.recvWindow < 0 {
			s.reset(http2.ErrCodeFlowControl)
			s = nil
		} else if pad > 0 {
			s.credit(int(pad))
		}
	}
	c.mu.Unlock()
	if err := c.payload(s, body); err != nil {
		return err
	}
	if pad > 1 {
		if _, err := c.br.Discard(int(pad - 1)); err != nil {
			return err
		}
	}
	c.returnCredit(length)
	if s != nil && flags.Has(http2.FlagDataEndStream) {
		c.mu.Lock()
		c.endOfStream(s)
		c.mu.Unlock()
	}
	return nil
}

// payload reads n bytes of DATA into s, or away.
func (c *Conn) payload(s *Stream, n uint32) error {
	for n > 0 {
		if c.br.Buffered() == 0 {
			if _, err := c.br.Peek(1); err != nil {
				return err
			}
		}
		part, err := c.br.Peek(int(min(n, uint32(c.br.Buffered()))))
		if err != nil {
			return err
		}
		if s != nil {
			c.mu.Lock()
			if s.closedByUser || s.isDone && s.recvErr != nil {
				s.recvErr = nil
				if !s.isDone {
					s.reset(http2.ErrCodeCancel)
				}
				s = nil
				c.mu.Unlock()
			} else {
				s.recv.write(part)
				c.mu.Unlock()
				notify(s.readable)
			}
		}
		if _, err := c.br.Discard(len(part)); err != nil {
			return err
		}
		n -= uint32(len(part))
	}
	return nil
}

// returnCredit gives connection window back as soon as bytes are here.
func (c *Conn) returnCredit(n uint32) {
	if c.unreturn += n; c.unreturn < c.cfg.connWindow()/4 {
		return
	}
	c.connRecv += int64(c.unreturn)
	c.mu.Lock()
	_ = c.cw.WriteWindowUpdate(0, c.unreturn)
	c.mu.Unlock()
	c.unreturn = 0
	c.kick()
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
	notify(s.readable)
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
	return id%2 == 0 || id > c.lastPeer
}

func (c *Conn) onHeaders(f *http2.MetaHeadersFrame) error {
	if c.client {
		return c.onAnswer(f)
	}
	return c.onConnect(f)
}

func (c *Conn) onAnswer(f *http2.MetaHeadersFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams[f.StreamID]
	switch {
	case s == nil && c.idle(f.StreamID):
		return &connError{http2.ErrCodeProtocol, "HEADERS on an idle stream"}
	case s == nil:
		return nil
	case s.status != 0: // trailers
		if f.StreamEnded() {
			c.endOfStream(s)
		} else {
			s.reset(http2.ErrCodeProtocol)
		}
		return nil
	}
	status, err := strconv.Atoi(f.PseudoValue("status"))
	switch {
	case f.Truncated || err != nil || status < 100 || status > 999 || status == http.StatusSwitchingProtocols:
		s.reset(http2.ErrCodeProtocol)
		return nil
	case status < 200: // an interim answer
		if f.StreamEnded() {
			s.reset(http2.ErrCodeProtocol)
		}
		return nil
	}
	s.status, s.fields = status, f.RegularFields()
	if status != http.StatusOK {
		_ = c.cw.WriteRSTStream(s.id, http2.ErrCodeCancel)
		s.pending = nil
		s.end(&StatusError{Status: status})
		s.forget()
		c.kick()
		return nil
	}
	s.answer()
	if f.StreamEnded() {
		c.endOfStream(s)
	}
	return nil
}

func (c *Conn) onConnect(f *http2.MetaHeadersFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := f.StreamID
	if s := c.streams[id]; s != nil { // trailers
		if f.StreamEnded() && !s.recvEnd {
			c.endOfStream(s)
		} else {
			s.reset(http2.ErrCodeProtocol)
		}
		return nil
	}
	if id%2 == 0 || id <= c.lastPeer {
		if id%2 == 1 {
			return c.refuse(id, http2.ErrCodeStreamClosed, 10)
		}
		return &connError{http2.ErrCodeProtocol, "an even stream of a client"}
	}
	if c.drain == drainLast {
		return nil // above the last stream: the peer opens it elsewhere
	}
	c.lastPeer = id
	switch {
	case uint32(len(c.streams)) >= c.cfg.maxStreams() || c.handlers >= c.cfg.maxStreams():
		return c.refuse(id, http2.ErrCodeRefusedStream, 20)
	case f.Truncated:
		return c.refuse(id, http2.ErrCodeEnhanceYourCalm, 20)
	case f.PseudoValue("protocol") != "":
		return c.refuse(id, http2.ErrCodeProtocol, 20)
	}
	connect := f.PseudoValue("method") == http.MethodConnect
	if connect && (f.PseudoValue("scheme") != "" || f.PseudoValue("path") != "" || f.PseudoValue("authority") == "") {
		return c.refuse(id, http2.ErrCodeProtocol, 20)
	}
	s := c.newStream(id)
	s.fields = f.Fields
	if f.StreamEnded() {
		s.recvEnd = true
	}
	c.handlers++
	c.serving.Go(func() {
		c.accept(s)
		c.mu.Lock()
		c.handlers--
		c.mu.Unlock()
	})
	return nil
}

// refuse resets a stream that never came to be; mu is held.
func (c *Conn) refuse(id uint32, code http2.ErrCode, cost int) error {
	c.abuse += cost
	if c.abuse > 10*maxResets {
		return &connError{http2.ErrCodeEnhanceYourCalm, "too many streams that were refused"}
	}
	_ = c.cw.WriteRSTStream(id, code)
	c.kick()
	return nil
}

func (c *Conn) onReset(f *http2.RSTStreamFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams[f.StreamID]
	switch {
	case s == nil && c.idle(f.StreamID):
		return &connError{http2.ErrCodeProtocol, "RST_STREAM on an idle stream"}
	case s == nil:
		return nil
	}
	var err error = &ResetError{Code: f.ErrCode, Remote: true}
	if c.client && s.status == 0 && f.ErrCode == http2.ErrCodeRefusedStream {
		err = fmt.Errorf("%w: %w", ErrUnprocessed, err)
	}
	s.pending = nil
	s.end(err)
	s.forget()
	return nil
}

func (c *Conn) onWindowUpdate(f *http2.WindowUpdateFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.StreamID == 0 {
		if c.sendWindow += int64(f.Increment); c.sendWindow > lastStreamID {
			return &connError{http2.ErrCodeFlowControl, "the connection's window overflows"}
		}
		for _, s := range c.streams {
			s.resume()
		}
		return nil
	}
	s := c.streams[f.StreamID]
	switch {
	case s == nil && c.idle(f.StreamID):
		return &connError{http2.ErrCodeProtocol, "WINDOW_UPDATE on an idle stream"}
	case s == nil:
		return nil
	}
	if s.sendWindow += int64(f.Increment); s.sendWindow > lastStreamID {
		s.reset(http2.ErrCodeFlowControl)
		return nil
	}
	s.resume()
	return nil
}

// resume puts a stream with unsent data back into its turn; mu is held.
func (s *Stream) resume() {
	if len(s.pending) > 0 || s.wantEnd && !s.endSent {
		s.enqueue()
		s.c.kick()
	}
}

func (c *Conn) onSettings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return &connError{http2.ErrCodeProtocol, "an invalid setting " + s.String()}
		}
		switch s.ID {
		case http2.SettingInitialWindowSize:
			delta := int64(s.Val) - c.peerWindow
			c.peerWindow = int64(s.Val)
			for _, st := range c.streams {
				if st.sendWindow += delta; st.sendWindow > lastStreamID {
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
	c.kick()
	return nil
}

func hasSetting(f *http2.SettingsFrame, id http2.SettingID) bool {
	_, ok := f.Value(id)
	return ok
}

func (c *Conn) onPing(f *http2.PingFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !f.IsAck():
		_ = c.cw.WritePing(true, f.Data)
	case f.Data == drainPing && c.drain == drainAsked:
		c.drain = drainLast
		_ = c.cw.WriteGoAway(c.lastPeer, http2.ErrCodeNo, nil)
		c.maybeDrained()
	}
	c.kick()
	return nil
}

func (c *Conn) onGoAway(f *http2.GoAwayFrame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wentAway, c.goneLast = true, f.LastStreamID
	c.closeGoing()
	if !c.client {
		return
	}
	for id, s := range c.streams {
		if id > f.LastStreamID {
			s.end(fmt.Errorf("the peer is going away (%v): %w", f.ErrCode, ErrUnprocessed))
			delete(c.streams, id)
		}
	}
}
