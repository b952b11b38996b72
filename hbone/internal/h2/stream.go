package h2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Stream is one tunnel. Read and Write may be called from different goroutines, as for a net.Conn. There may be a hundred thousand that do
// nothing: what only some need is made when they do.
type Stream struct {
	c        *Conn
	rmu, wmu sync.Mutex // one reader, one writer at a time

	// The connection's mu guards the rest.
	next           *Stream // in the outbox
	in             inbox
	rw, ww         *waiter       // the Read and the Write that wait
	answered, done chan struct{} // nil until asked for
	rdl, wdl       *deadline     // nil until set
	fields         *headerList
	ending         *ending // nil while neither direction has failed or ended
	sendWindow     int64
	recvWindow     int32 // what the peer may still send
	consumed       uint32
	window         uint32 // of the peer, what was not read included
	measured       uint32 // bytes consumed since
	measuredFrom   uint32 // microseconds of the connection's life
	id             uint32
	status         uint16 // client: the answer; server: what was answered
	isDone         bool
	recvEnd        bool // END_STREAM came and in ends with it
	wantEnd        bool
	endSent        bool
	queued         bool // in the outbox
	listed         bool // among those whose Read is to be woken
	closedByUser   bool
	answeredOnce   bool
}

// ending is how the directions of a stream end.
type ending struct {
	recv error // ends reading once in is empty
	send error // ends writing
}

// newStream registers a stream; mu is held.
func (c *Conn) newStream(id uint32) *Stream {
	s := &Stream{c: c, id: id, window: c.cfg.streamWindow(), sendWindow: c.peerWindow}
	s.recvWindow = int32(s.window)
	c.streams[id] = s
	c.opened++
	return s
}

// Fields is the peer's header list: of the request at a server, until it is answered; of the answer at a client.
func (s *Stream) Fields() []hpack.HeaderField {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.fields == nil {
		return nil
	}
	return s.fields.fields
}

// closedChan is a channel that is closed.
var closedChan = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// lazily makes a channel in slot that somebody will close, or gives a closed one; mu is held.
func lazily(slot *chan struct{}, closed bool) <-chan struct{} {
	if *slot == nil {
		if closed {
			return closedChan
		}
		*slot = make(chan struct{})
	}
	return *slot
}

// Answered is closed when the peer has answered the CONNECT or the stream has ended.
func (s *Stream) Answered() <-chan struct{} {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return lazily(&s.answered, s.answeredOnce)
}

// Answer is what the peer answered: nil for 200, or when there is no answer yet; a *StatusError; or what ended the stream before, which is
// ErrUnprocessed when the peer did not act on it.
func (s *Stream) Answer() error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	switch {
	case s.status == http.StatusOK:
		return nil
	case s.status != 0:
		return &StatusError{Status: int(s.status)}
	}
	return s.recvErr()
}

// Done is closed when both directions have ended.
func (s *Stream) Done() <-chan struct{} {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return lazily(&s.done, s.isDone)
}

// Conn is the connection that the stream is on.
func (s *Stream) Conn() *Conn { return s.c }

// Respond answers a CONNECT with 200 and fields; the tunnel stands.
func (s *Stream) Respond(fields ...hpack.HeaderField) error {
	return s.respond(http.StatusOK, fields)
}

// Refuse answers a CONNECT with another status and ends the stream.
func (s *Stream) Refuse(status int, fields ...hpack.HeaderField) error {
	return s.respond(status, fields)
}

func (s *Stream) respond(status int, fields []hpack.HeaderField) error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := s.sendErr(); err != nil {
		return err
	}
	if s.status != 0 {
		return errors.New("the CONNECT is answered already")
	}
	s.status, s.fields = uint16(status), nil
	if status == http.StatusOK && len(fields) == 0 {
		c.out.buf = append(c.out.buf, 0, 0, 1, byte(http2.FrameHeaders), byte(http2.FlagHeadersEndHeaders), byte(s.id>>24), byte(s.id>>16), byte(s.id>>8), byte(s.id), statusOK)
	} else {
		list := append([]hpack.HeaderField{{Name: ":status", Value: strconv.Itoa(status)}}, fields...)
		c.writeHeaders(s.id, list, status != http.StatusOK)
	}
	if status != http.StatusOK {
		_ = c.cw.WriteRSTStream(s.id, http2.ErrCodeNo)
		s.endSent = true
		s.end(net.ErrClosed)
		s.forget()
	}
	c.flushSoon(len(c.streams) > 1)
	return nil
}

// statusOK is the header field ":status: 200" (RFC 7541, appendix A).
const statusOK = 0x88

func (s *Stream) recvErr() error {
	if s.ending == nil {
		return nil
	}
	return s.ending.recv
}

func (s *Stream) sendErr() error {
	if s.ending == nil {
		return nil
	}
	return s.ending.send
}

func (s *Stream) endings() *ending {
	if s.ending == nil {
		s.ending = &ending{}
	}
	return s.ending
}

// Read reads what the peer sent. It ends with io.EOF after the peer's END_STREAM, and with an error that is ECONNRESET
// when the stream was reset or the connection lost before.
func (s *Stream) Read(p []byte) (int, error) {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	c := s.c
	c.mu.Lock()
	for {
		if err := s.readErr(); err != nil {
			c.mu.Unlock()
			return 0, err
		}
		if s.in.n > 0 || len(p) == 0 {
			n := s.take(p)
			c.flushSoon(false)
			c.mu.Unlock()
			return n, nil
		}
		if err := s.ended(); err != nil {
			c.mu.Unlock()
			return 0, err
		}
		n := s.await(p, nil)
		if n > 0 {
			return n, nil
		}
		c.mu.Lock()
	}
}

// readErr is why nothing can be read even if there is something; mu is held.
func (s *Stream) readErr() error {
	switch {
	case s.rdl.over():
		return os.ErrDeadlineExceeded
	case s.closedByUser:
		return net.ErrClosed
	}
	return nil
}

// ended is the end of what can be read; mu is held.
func (s *Stream) ended() error {
	if s.recvEnd {
		return io.EOF
	}
	return s.recvErr()
}

// await waits for bytes or the end, and says how many came into p, or went to the sink, meanwhile. mu is held at first, and released.
func (s *Stream) await(p []byte, to *sink) int {
	c, w := s.c, getWaiter(p)
	w.to = to
	s.rw = w
	c.mu.Unlock()
	n, loose := w.wait()
	if !loose {
		c.mu.Lock()
		if s.rw == w {
			s.rw = nil
		}
		for w.flying { // not for long: the connection's reader does not wait meanwhile
			c.mu.Unlock()
			w.wait()
			c.mu.Lock()
		}
		n = w.filled()
		c.mu.Unlock()
	}
	w.free()
	return n
}

// take copies out of the inbox; larger pieces without the lock. mu is held.
func (s *Stream) take(p []byte) int {
	total := 0
	for total < len(p) && s.in.n > 0 {
		k := s.in.head
		if n := min(k.w-k.r, len(p)-total); n <= 1<<10 {
			total += copy(p[total:], k.buf.B[k.r:k.r+n])
			s.skip(n)
		} else {
			total += s.lend(k, func(b []byte) int { return copy(p[total:], b) })
		}
	}
	return total
}

// lend shows what k holds to use, without the lock, and takes away what it used. mu is held, but for that.
func (s *Stream) lend(k *chunk, use func([]byte) int) int {
	b := k.buf.B[k.r:k.w]
	k.refs++
	s.c.mu.Unlock()
	n := use(b)
	s.c.mu.Lock()
	if s.in.head != k { // dropped meanwhile
		k.release()
		return n
	}
	k.refs--
	s.skip(n)
	return n
}

// skip takes n bytes off the inbox; mu is held.
func (s *Stream) skip(n int) {
	s.in.skip(n)
	s.c.unread -= int64(n)
	s.c.returnCredit()
	s.credit(n)
}

// Write sends p. What is small is copied, and may go out with what others write; a larger one returns when its last byte was taken. After a
// deadline the count says how much was taken.
func (s *Stream) Write(p []byte) (int, error) {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := s.writeErr(); err != nil || len(p) == 0 {
		return 0, err
	}
	if n := len(p); n <= maxSmall && len(c.out.buf)+n <= maxOutbox && int64(n) <= min(c.sendWindow, s.sendWindow) {
		c.out.data(s.id, p, false)
		c.sent(s, n)
		c.flushSoon(len(c.streams) > 1)
		return n, nil
	}
	w := getWaiter(p)
	s.ww = w
	if s.sendWindow > 0 {
		c.out.push(s)
	}
	var err error
	for {
		if !w.flying {
			if len(w.p) == 0 {
				break
			}
			if err = s.writeErr(); err != nil {
				break
			}
			if s.queued && !c.out.flushing && c.hasWork() {
				c.flush(w, false)
				continue
			}
		}
		c.mu.Unlock()
		w.wait()
		c.mu.Lock()
	}
	s.ww = nil
	n := len(p) - len(w.p)
	w.free()
	return n, err
}

// writeErr is why nothing can be written; mu is held.
func (s *Stream) writeErr() error {
	switch {
	case s.wdl.over():
		return os.ErrDeadlineExceeded
	case s.closedByUser:
		return net.ErrClosed
	case s.sendErr() != nil:
		return s.sendErr()
	case s.wantEnd:
		return fmt.Errorf("write after CloseWrite: %w", syscall.EPIPE)
	}
	return nil
}

// CloseWrite sends END_STREAM after what was written. The other direction goes on.
func (s *Stream) CloseWrite() error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.closedByUser {
		return net.ErrClosed
	}
	if err := s.sendErr(); err != nil {
		return err
	}
	s.closeWrite()
	c.flushSoon(len(c.streams) > 1)
	return nil
}

// closeWrite is CloseWrite without the flush; mu is held.
func (s *Stream) closeWrite() {
	if s.wantEnd || s.sendErr() != nil {
		return
	}
	s.wantEnd = true
	if s.ww != nil && len(s.ww.p) > 0 {
		return // the END_STREAM goes with its last frame
	}
	s.c.out.data(s.id, nil, true)
	s.sentEnd()
}

// sentEnd follows END_STREAM; mu is held.
func (s *Stream) sentEnd() {
	s.endSent = true
	s.endings().send = errSentEnd
	switch {
	case s.recvEnd || s.recvErr() != nil:
		s.finish()
		s.forget()
	case s.closedByUser:
		_ = s.c.cw.WriteRSTStream(s.id, http2.ErrCodeCancel)
		s.end(io.ErrClosedPipe)
		s.forget()
	}
}

// Close ends the stream: cleanly when the peer has ended its direction and all it sent was read, else with RST_STREAM CANCEL. It does not
// wait; what a returned Write took is still sent.
func (s *Stream) Close() error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.closedByUser {
		return nil
	}
	s.closedByUser = true
	unread := s.in.n > 0
	s.drop()
	s.wakeReader()
	s.wakeWriter()
	if s.isDone {
		return nil
	}
	switch {
	case s.recvEnd && !unread:
		s.closeWrite()
	// What was written goes first: END_STREAM, then the reset that says we read no more.
	case s.sendErr() == nil && !s.endSent && s.status == http.StatusOK:
		s.closeWrite()
	default:
		s.reset(http2.ErrCodeCancel)
	}
	c.flushSoon(len(c.streams) > 1)
	return nil
}

// drop gives back what was not read; mu is held.
func (s *Stream) drop() {
	s.c.unread -= int64(s.in.n)
	s.c.returnCredit()
	s.in.drop()
}

// Reset ends the stream at once with RST_STREAM.
func (s *Stream) Reset(code http2.ErrCode) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	s.reset(code)
	c.flushSoon(len(c.streams) > 1)
}

// reset is Reset without the flush; mu is held.
func (s *Stream) reset(code http2.ErrCode) {
	if s.isDone {
		return
	}
	_ = s.c.cw.WriteRSTStream(s.id, code)
	s.end(&ResetError{Code: code})
	s.forget()
}

// end makes err the end of both directions that have not ended; mu is held.
func (s *Stream) end(err error) {
	e := s.endings()
	if e.recv == nil && !s.recvEnd {
		e.recv = err
	}
	if e.send == nil {
		e.send = err
		if s.recvEnd {
			e.send = fmt.Errorf("the stream has ended: %w", syscall.EPIPE)
		}
	}
	s.finish()
	s.wakeReader()
	s.wakeWriter()
}

// finish closes the channels that tell of the end; mu is held.
func (s *Stream) finish() {
	if s.isDone {
		return
	}
	s.isDone = true
	if s.done != nil {
		close(s.done)
		s.done = nil
	}
	s.answer()
}

// answer wakes Open; mu is held.
func (s *Stream) answer() {
	if s.answeredOnce {
		return
	}
	s.answeredOnce = true
	if s.answered != nil {
		close(s.answered)
		s.answered = nil
	}
}

// forget takes the stream out of the table; mu is held.
func (s *Stream) forget() {
	if s.c.streams[s.id] != s {
		return
	}
	delete(s.c.streams, s.id)
	s.c.growth -= int64(s.window) - int64(s.c.cfg.streamWindow())
	s.c.maybeDrained()
}

// wakeReader makes a blocked Read look again; mu is held.
func (s *Stream) wakeReader() {
	if s.rw != nil {
		s.rw.wake()
	}
}

// wakeWriter makes a blocked Write look again; mu is held.
func (s *Stream) wakeWriter() {
	if s.ww != nil {
		s.ww.wake()
	}
}

// SetDeadline sets both deadlines; the zero Time means none.
func (s *Stream) SetDeadline(t time.Time) error {
	_ = s.SetReadDeadline(t)
	return s.SetWriteDeadline(t)
}

// SetReadDeadline ends Reads, also those under way, at t.
func (s *Stream) SetReadDeadline(t time.Time) error {
	s.setDeadline(&s.rdl, t, (*Stream).wakeReader)
	return nil
}

// SetWriteDeadline ends Writes, also those under way, at t.
func (s *Stream) SetWriteDeadline(t time.Time) error {
	s.setDeadline(&s.wdl, t, (*Stream).wakeWriter)
	return nil
}

// WaitDone blocks until both directions have ended or ctx has.
func (s *Stream) WaitDone(ctx context.Context) error {
	select {
	case <-s.Done():
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
