package h2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/internal/bufpool"
	"golang.org/x/net/http2"
)

// bulk is the length of a DATA frame from which on its payload is read to where it stays. Shorter ones come many at a time.
const bulk = 4 << 10

// wakeAfter is how many bytes of bulk are gathered before a blocked Read hears of them, unless there are no more.
const wakeAfter = 64 << 10

// writeAfter is the same for a joined stream, whose bytes are then written to its socket.
const writeAfter = 192 << 10

// errGone ends the reading of a connection whose peer has all that was sent.
var errGone = errors.New("nothing more is to be heard of the peer")

// reader is the state of the goroutine that reads.
type reader struct {
	c     *Conn
	src   io.Reader
	buf   *bufpool.Buf // borrowed while frames come many at a time: bytes r to w
	r, w  int
	small bool // the last frame was: more will come at once
	ask   int  // what the next refill before a frame asks for
	head  [frameHeader]byte
	four  [4]byte       // a payload
	again int           // bytes of head that Read gives once more
	fr    *http2.Framer // frames that are rare
	dec   decoder

	locked  bool            // the reader holds c.mu, which guards it
	listed  []*Stream       // whose Read has something to look at
	wakes   []*waiter       // of these
	answers []chan struct{} // of those who wait for an answer
	since   int             // bytes since they were woken
	yield   yielding
	abuse   account
}

func (rd *reader) init(c *Conn, src io.Reader) {
	rd.c, rd.src = c, src
	rd.renew()
	rd.abuse.from = c.born
	rd.ask = leastAsked
	rd.dec.init(c.cfg.maxHeaderBytes(c.client))
}

// renew makes the Framer, which keeps as much memory as its largest frame took.
func (rd *reader) renew() {
	rd.fr = http2.NewFramer(nil, rd)
	rd.fr.SetMaxReadFrameSize(rd.c.cfg.maxFrameSize())
}

// keptFrame is how long a frame may be for its memory to be kept: a SETTINGS that says much, a GOAWAY that says why.
const keptFrame = 1 << 10

// Read gives the Framer the frame header once more, and then what follows.
func (rd *reader) Read(p []byte) (int, error) {
	if rd.again > 0 {
		n := copy(p, rd.head[frameHeader-rd.again:])
		rd.again -= n
		return n, nil
	}
	if rd.r < rd.w {
		n := copy(p, rd.buf.B[rd.r:rd.w])
		rd.advance(n)
		return n, nil
	}
	return rd.pull(p)
}

// pull reads from the connection, and waits if it must, for which idle is called. (To try first would cost an allocation of crypto/tls.) mu is
// not held afterwards.
func (rd *reader) pull(p []byte) (int, error) {
	rd.unlock()
	n, err := rd.src.Read(p)
	if n > 0 {
		return n, nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return 0, err
}

// try reads from the connection what has come; errDry says that nothing has.
func (rd *reader) try(p []byte) (int, error) {
	rd.c.g.dry = true
	n, err := rd.pull(p)
	rd.c.g.dry = false
	return n, err
}

// wait waits for bytes from the connection.
func (rd *reader) wait() {
	rd.idle()
	rd.c.g.wait()
}

// idle is called before the reader waits: everybody hears of what has come.
func (rd *reader) idle() {
	rd.settle()
	if !rd.c.heard.Load() {
		rd.c.heard.Store(true)
	}
}

// settle wakes whom it concerns and sends what is to be answered. mu is held or not, and is not held afterwards.
func (rd *reader) settle() {
	c := rd.c
	rd.lock()
	for _, s := range rd.listed {
		s.listed = false
		if f := s.forward(); f != nil {
			rd.locked = false // it lets others have the lock
			f.up()
			rd.locked = true
			continue
		}
		if w := s.rw; w != nil {
			s.rw = nil
			w.let()
			rd.wakes = append(rd.wakes, w)
		}
	}
	clear(rd.listed)
	much := rd.since >= record
	rd.listed, rd.since = rd.listed[:0], 0
	if !c.out.flushing && c.hasWork() && c.out.head != nil {
		c.kick() // encrypting bulk is not for us
	}
	flush := !c.out.flushing && c.hasWork() && c.out.head == nil
	rd.unlock()
	for _, w := range rd.wakes {
		w.wake()
	}
	woken := len(rd.wakes)
	clear(rd.wakes)
	rd.wakes = rd.wakes[:0]
	for _, answered := range rd.answers {
		signal(answered)
	}
	clear(rd.answers)
	rd.answers = rd.answers[:0]
	if flush {
		c.mu.Lock()
		if !c.out.flushing && c.out.head == nil {
			c.flushSoon(false)
		}
		c.mu.Unlock()
	}
	if woken > 0 && much && rd.yield.wanted() {
		// Who was woken takes his bytes while they are in the cache, and comes back with room for more.
		start := now()
		runtime.Gosched()
		rd.yield.done(now().sub(start), 4*time.Millisecond, 1)
	}
}

// list has s's blocked Read woken with the next settle, or its socket written to; mu is held.
func (rd *reader) list(s *Stream) {
	if (s.rw != nil || s.forward() != nil) && !s.listed {
		s.listed = true
		rd.listed = append(rd.listed, s)
	}
}

func (rd *reader) lock() {
	if !rd.locked {
		rd.c.mu.Lock()
		rd.locked = true
	}
}

func (rd *reader) unlock() {
	if rd.locked {
		rd.locked = false
		rd.c.mu.Unlock()
	}
}

// advance takes n bytes off the buffer, and gives it back when it is empty.
func (rd *reader) advance(n int) {
	if rd.r += n; rd.r == rd.w {
		rd.buf.Free()
		rd.buf, rd.r, rd.w = nil, 0, 0
	}
}

// word reads a payload of four bytes. mu is held afterwards.
func (rd *reader) word() (uint32, error) {
	if err := rd.full(rd.four[:]); err != nil {
		return 0, err
	}
	rd.lock()
	return binary.BigEndian.Uint32(rd.four[:]), nil
}

// full reads exactly p. mu is not held afterwards when there was something to wait for.
func (rd *reader) full(p []byte) error {
	for len(p) > 0 {
		n, err := rd.Read(p)
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

func (c *Conn) readLoop() {
	rd := &c.rd
	err := rd.all()
	rd.unlock()
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		// Never io.EOF: nobody may take the loss of a connection for the end of a stream.
		err = fmt.Errorf("the peer closed the connection: %w", io.ErrUnexpectedEOF)
	}
	c.mu.Lock()
	c.failLocked(c.lost(err))
	c.mu.Unlock()
	rd.settle()
	if rd.buf != nil {
		rd.buf.Free()
	}
	var away [4 << 10]byte
	for left := int(c.cfg.connWindow()) + maxControl; left > 0 && !errors.Is(err, errGone); { // while our side lingers, and for what may be on its way
		n, err := rd.pull(away[:])
		if err != nil {
			break
		}
		left -= n
	}
	c.g.forget()
	close(c.read)
}

func (rd *reader) all() error {
	if !rd.c.client {
		var preface [len(http2.ClientPreface)]byte
		if err := rd.full(preface[:]); err != nil {
			return err
		}
		if string(preface[:]) != http2.ClientPreface {
			return &connError{http2.ErrCodeProtocol, "no HTTP/2 preface"}
		}
	}
	for first := true; ; first = false {
		if !first {
			if err := rd.many(); err != nil {
				return err
			}
		}
		if err := rd.next(); err != nil {
			return err
		}
		if isClosed(rd.c.dead) { // fail has a cause already
			if err := rd.goodbye(); err != nil {
				return err
			}
			return errGone
		}
		h := parseHeader(rd.head[:])
		if first && (h.kind != http2.FrameSettings || h.flags.Has(http2.FlagSettingsAck)) {
			return &connError{http2.ErrCodeProtocol, "the first frame is not SETTINGS"}
		}
		if h.length > rd.c.cfg.maxFrameSize() {
			return &connError{http2.ErrCodeFrameSize, fmt.Sprintf("a frame of %d bytes", h.length)}
		}
		rd.small = h.kind != http2.FrameData || h.length < bulk
		err := rd.frame(h)
		if err != nil {
			return err
		}
	}
}

// What a refill before a frame asks for: while the connection is idle the buffer is held.
const (
	leastAsked = 256
	mostAsked  = record
)

// next reads the header of a frame. Where frames are small, what else has come is read with it.
func (rd *reader) next() error {
	if rd.small && rd.r == rd.w {
		if err := rd.refill(rd.ask); err != nil {
			return err
		}
		full := rd.w == rd.ask
		rd.ask = leastAsked
		if full {
			rd.ask = mostAsked
		}
	}
	return rd.full(rd.head[:])
}

// header is a frame's.
type header struct {
	length uint32
	id     uint32
	kind   http2.FrameType
	flags  http2.Flags
}

func parseHeader(b []byte) header {
	_ = b[8]
	return header{
		length: uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2]),
		kind:   http2.FrameType(b[3]),
		flags:  http2.Flags(b[4]),
		id:     (uint32(b[5])<<24 | uint32(b[6])<<16 | uint32(b[7])<<8 | uint32(b[8])) & lastStreamID,
	}
}

// many takes the DATA frames that the buffer holds as a whole, under one hold of the lock.
func (rd *reader) many() error {
	for rd.w-rd.r >= frameHeader {
		h := parseHeader(rd.buf.B[rd.r:])
		if h.kind != http2.FrameData || h.flags.Has(http2.FlagDataPadded) || rd.w-rd.r-frameHeader < int(h.length) {
			return nil
		}
		rd.lock()
		s, err := rd.data(h, 0)
		if err != nil {
			return err
		}
		if s != nil {
			rd.deliver(s, rd.buf.B[rd.r+frameHeader:rd.r+frameHeader+int(h.length)])
			if h.flags.Has(http2.FlagDataEndStream) {
				rd.c.endOfStream(s)
			}
		}
		rd.advance(frameHeader + int(h.length))
	}
	return nil
}

// frame takes the frame whose header is in rd.head.
func (rd *reader) frame(h header) error {
	switch {
	case h.kind == http2.FrameData:
	case h.kind == http2.FrameHeaders:
		return rd.headers(h)
	case h.kind == http2.FrameRSTStream && h.length == 4 && h.id != 0:
		return rd.onReset(h.id)
	case h.kind == http2.FrameWindowUpdate && h.length == 4:
		return rd.onWindowUpdate(h.id)
	default:
		rd.again = frameHeader
		err := rd.other()
		if h.length > keptFrame {
			rd.renew()
		}
		return err
	}
	pad := uint32(0)
	if h.flags.Has(http2.FlagDataPadded) {
		if h.length == 0 {
			return &connError{http2.ErrCodeFrameSize, "a padded frame without a pad length"}
		}
		if err := rd.full(rd.four[:1]); err != nil {
			return err
		}
		if pad = uint32(rd.four[0]) + 1; pad > h.length {
			return &connError{http2.ErrCodeProtocol, "padding longer than its frame"}
		}
	}
	rd.lock()
	s, err := rd.data(h, pad)
	if err != nil {
		return err
	}
	if s, err = rd.payload(s, int(h.length-pad)); err != nil {
		return err
	}
	if pad > 1 {
		rd.unlock()
		if _, err := rd.payload(nil, int(pad-1)); err != nil {
			return err
		}
	}
	if s != nil && h.flags.Has(http2.FlagDataEndStream) {
		rd.lock()
		rd.c.endOfStream(s)
	}
	return nil
}

// data is what a DATA frame does to windows and streams. A nil stream means that the payload is nobody's. mu is held.
func (rd *reader) data(h header, pad uint32) (*Stream, error) {
	c := rd.c
	body := h.length - pad
	if h.id == 0 {
		return nil, &connError{http2.ErrCodeProtocol, "DATA on stream 0"}
	}
	if c.recvWindow -= int64(h.length); c.recvWindow < 0 {
		return nil, &connError{http2.ErrCodeFlowControl, "more DATA than the connection's window"}
	}
	empty := body == 0 && !h.flags.Has(http2.FlagDataEndStream)
	if empty {
		if err := rd.cost(10); err != nil {
			return nil, err
		}
	}
	c.bytesIn += uint64(body)
	c.unreturned += h.length
	c.returnCredit()
	s := c.streams[h.id]
	switch {
	case s == nil && c.idle(h.id):
		return nil, &connError{http2.ErrCodeProtocol, "DATA on an idle stream"}
	case s == nil:
		return nil, rd.dataBehind(h)
	case s.recvEnd:
		return nil, rd.provoked(s, http2.ErrCodeStreamClosed)
	case c.client && s.status == 0:
		return nil, rd.provoked(s, http2.ErrCodeProtocol)
	}
	if int64(h.length) > int64(s.recvWindow) {
		return nil, rd.provoked(s, http2.ErrCodeFlowControl)
	}
	if !empty {
		rd.abuse.pay(int(body>>6) + 1)
	}
	s.recvWindow -= int32(h.length)
	if s != c.latest {
		c.turned = c.turned || c.latest != nil
		c.latest = s
	}
	if pad > 0 {
		s.credit(int(pad))
	}
	if s.closedByUser && body > 0 {
		s.reset(http2.ErrCodeCancel) // nobody reads it
		return nil, nil
	}
	return s, nil
}

// returnCredit gives connection window back as soon as bytes are here, unless too many wait for Read already. mu is held.
func (c *Conn) returnCredit() {
	if c.unreturned < min(c.cfg.connWindow()/4, mostOwed) || c.unread > c.cfg.maxUnread() {
		return
	}
	_ = c.cw.WriteWindowUpdate(0, c.unreturned)
	c.recvWindow += int64(c.unreturned)
	c.unreturned = 0
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
