package h2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	frameHeader  = 9
	maxControl   = 64 << 10 // bytes of replies that a peer can make us hold
	assumeMax    = 100      // streams before the peer's SETTINGS are known (RFC 9113, section 6.5.2)
	lastStreamID = 1<<31 - 1
)

// Conn is an HTTP/2 connection whose streams are CONNECT tunnels.
type Conn struct {
	nc     net.Conn
	g      *Gather
	client bool
	cfg    Config
	fresh  func() Tunnel // server
	born   time.Time

	rd    reader      // the reader goroutine's
	heard atomic.Bool // something came since the last look

	wake    chan struct{} // capacity 1: the standby writer has something to do
	done    chan struct{} // closed when all goroutines have returned
	dead    chan struct{} // closed when err is set
	read    chan struct{} // closed when the reader has returned
	going   chan struct{} // closed when no new stream will be opened here
	ready   chan struct{} // closed when the peer's SETTINGS are known
	loops   atomic.Int32  // goroutines that have not returned
	serving sync.WaitGroup

	mu        sync.Mutex // guards the fields below; never held across I/O
	streams   map[uint32]*Stream
	out       outbox
	enc       *hpack.Encoder
	encBuf    appendWriter
	encLast   []hpack.HeaderField // whose block encBuf has
	encAgain  bool                // and it may be sent again
	encSized  bool                // the peer has set the table's size: the next block begins with that (RFC 7541, section 4.2)
	cw        *http2.Framer       // writes into out
	err       error               // first cause of the end
	nextID    uint32              // client: the next stream's
	leftBelow uint32              // client: the CONNECTs of streams from this one on have not left
	lastPeer  uint32              // server: the highest stream the peer opened
	goneLast  uint32              // the last stream that a GOAWAY of the peer covers
	wentAway  bool                // the peer sent GOAWAY
	farewell  *FarewellError
	drain     drainState
	rounds    uint8       // PINGs of the drain that were answered
	drainSeen uint32      // lastPeer when the latest of them was
	drainEnd  *time.Timer // sends the last GOAWAY of a drain whose PINGs nobody answers
	cut       bool        // nobody waits for what streams have left behind
	whenCut   map[*Stream]*cutter

	sendWindow int64
	peerWindow int64 // initial window of a stream
	peerFrame  int
	peerMax    uint32
	settled    bool
	handlers   uint32 // server: accept calls that have not returned

	recvWindow int64  // what the peer may still send on all streams
	unreturned uint32 // of the connection's window
	unread     int64  // bytes that wait for Read
	growth     int64  // by how much stream windows have grown
	rtt        rtt
	latest     *Stream // that got DATA
	turned     bool    // another than the latest got DATA since a window was tuned
	turnedAt   uint32  // microseconds of the connection's life when that was seen last
	past       past    // streams that have ended
	joined     *joined // the sockets that streams are joined with; nil before the first
	earned     uint64  // what bytes sent pay back of the peer's account

	bytesIn, bytesOut, opened uint64
}

// drainState is how far a server's two-step GOAWAY has come.
type drainState int

const (
	drainNone  drainState = iota
	drainAsked            // GOAWAY 2^31-1 is out, and a PING after the other
	drainLast             // GOAWAY with the real last stream is out
)

// NewClient speaks HTTP/2 on nc as the client. It owns nc from now on. It does not block. It is fast when nc is a TLS connection over
// a Gather, which it finds by itself.
func NewClient(nc net.Conn, cfg Config) *Conn {
	c := newConn(nc, cfg, true)
	c.nextID = 1
	c.out.raw([]byte(http2.ClientPreface))
	c.start([]http2.Setting{
		{ID: http2.SettingEnablePush, Val: 0},
		{ID: http2.SettingInitialWindowSize, Val: cfg.streamWindow()},
		{ID: http2.SettingMaxFrameSize, Val: cfg.maxFrameSize()},
		{ID: http2.SettingMaxHeaderListSize, Val: cfg.maxHeaderBytes(true)},
	})
	return c
}

// Tunnel is what a server's user has for a stream, with the Stream in it: they are made at once.
type Tunnel interface {
	// Stream is the tunnel's own, always the same.
	Stream() *Stream
	// Serve takes the CONNECT. It is called in a goroutine of its own.
	Serve()
}

// plain is a Tunnel that is a Stream.
type plain struct {
	s      Stream
	accept func(*Stream)
}

func (p *plain) Stream() *Stream { return &p.s }
func (p *plain) Serve()          { p.accept(&p.s) }

// NewServer speaks HTTP/2 on nc as the server and calls accept, in a goroutine of its own, for every CONNECT. It owns nc from now
// on. It does not block.
func NewServer(nc net.Conn, cfg Config, accept func(*Stream)) *Conn {
	return NewTunnels(nc, cfg, func() Tunnel { return &plain{accept: accept} })
}

// NewTunnels is NewServer for a user who makes Tunnels himself: fresh is called for every CONNECT, with a lock held, and only makes one.
func NewTunnels(nc net.Conn, cfg Config, fresh func() Tunnel) *Conn {
	c := newConn(nc, cfg, false)
	c.fresh = fresh
	c.start([]http2.Setting{
		{ID: http2.SettingMaxConcurrentStreams, Val: cfg.maxStreams()},
		{ID: http2.SettingInitialWindowSize, Val: cfg.streamWindow()},
		{ID: http2.SettingMaxFrameSize, Val: cfg.maxFrameSize()},
		{ID: http2.SettingMaxHeaderListSize, Val: cfg.maxHeaderBytes(false)},
	})
	return c
}

func newConn(nc net.Conn, cfg Config, client bool) *Conn {
	c := &Conn{
		nc: nc, client: client, cfg: cfg, born: time.Now(),
		wake:       make(chan struct{}, 1),
		done:       make(chan struct{}),
		dead:       make(chan struct{}),
		read:       make(chan struct{}),
		going:      make(chan struct{}),
		ready:      make(chan struct{}),
		streams:    map[uint32]*Stream{},
		sendWindow: 65535,
		peerWindow: 65535,
		peerFrame:  16 << 10,
		peerMax:    assumeMax,
		recvWindow: int64(cfg.connWindow()),
		turnedAt:   1<<32 - aloneAfter,
	}
	var r io.Reader = nc
	var w io.Writer = nc
	if c.g = gatherBeneath(nc); c.g == nil {
		c.g = NewGather(nc)
		r, w = c.g, c.g
	}
	c.out.init(c.g, w)
	c.enc = hpack.NewEncoder(&c.encBuf)
	c.cw = http2.NewFramer(&c.out, nil)
	c.rd.init(c, r)
	c.g.attach(c.kick, c.rd.idle)
	return c
}

// gatherBeneath finds the Gather under a TLS connection.
func gatherBeneath(nc net.Conn) *Gather {
	if over, ok := nc.(interface{ NetConn() net.Conn }); ok {
		g, _ := over.NetConn().(*Gather)
		return g
	}
	return nil
}

func (c *Conn) start(settings []http2.Setting) {
	_ = c.cw.WriteSettings(settings...) // into memory
	if grow := c.cfg.connWindow() - 65535; grow > 0 {
		_ = c.cw.WriteWindowUpdate(0, grow)
	}
	c.kick()
	loops := [...]func(*Conn){(*Conn).readLoop, (*Conn).writeLoop, (*Conn).keepalive}
	c.loops.Store(int32(len(loops)))
	for _, loop := range loops {
		go c.run(loop)
	}
}

// run is a goroutine of the connection; the last to end closes done.
func (c *Conn) run(loop func(*Conn)) {
	loop(c)
	if c.loops.Add(-1) == 0 {
		close(c.done)
	}
}

// kick wakes the standby writer.
func (c *Conn) kick() { signal(c.wake) }

// Ready is closed when the peer's SETTINGS are known.
func (c *Conn) Ready() <-chan struct{} { return c.ready }

// GoingAway is closed when no new stream can be opened here, now or later.
func (c *Conn) GoingAway() <-chan struct{} { return c.going }

// Done is closed when the connection has ended and its goroutines have returned.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err is why the connection has ended, nil while it has not.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Available is how many streams a client can still open: what the peer allows less what is open, zero once it is going away.
func (c *Conn) Available() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.available()
}

func (c *Conn) available() int {
	if c.err != nil || c.wentAway || c.nextID > lastStreamID {
		return 0
	}
	return max(0, int(min(c.peerMax, 1<<20))-len(c.streams))
}

// Streams is how many streams are open.
func (c *Conn) Streams() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.streams)
}

// NetConn is the connection beneath, for its addresses.
func (c *Conn) NetConn() net.Conn { return c.nc }

// Open sends a CONNECT with fields (which have :method and :authority first, and must not change afterwards) and waits for the answer. A *StatusError is an answer
// other than 200; an error that is ErrUnprocessed may be tried on another connection. When ctx ends first the stream is reset.
func (c *Conn) Open(ctx context.Context, fields []hpack.HeaderField) (*Stream, error) {
	s, err := c.Start(fields)
	if err != nil {
		return nil, err
	}
	if err := s.Await(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Start sends a CONNECT as Open does and returns at once. The fields must not change afterwards. What is written before the answer goes out as optimistic data; when the answer is a refusal,
// Read and Write give it, and what was written is lost. Await and Answer tell of it.
func (c *Conn) Start(fields []hpack.HeaderField) (*Stream, error) {
	s := &Stream{}
	if err := c.StartIn(s, fields); err != nil {
		return nil, err
	}
	return s, nil
}

// StartIn is Start with a zero Stream of the caller's. After an error it is as it was.
func (c *Conn) StartIn(s *Stream, fields []hpack.HeaderField) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return fmt.Errorf("%w: %w", ErrUnprocessed, c.err)
	case c.wentAway || c.nextID > lastStreamID:
		return fmt.Errorf("the connection is going away: %w", ErrUnprocessed)
	case c.available() == 0:
		return ErrFull
	}
	c.begin(s, c.nextID)
	c.nextID += 2
	c.writeHeaders(s.id, fields, false)
	c.flushSoon(len(c.streams) > 1)
	return nil
}

// fail ends the connection for cause; the first cause is kept. It does not wait.
func (c *Conn) fail(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failLocked(cause)
}

func (c *Conn) failLocked(cause error) {
	if c.err != nil {
		return
	}
	c.err = cause
	c.holdBack()
	if e, ok := errors.AsType[*connError](cause); ok {
		_ = c.cw.WriteGoAway(c.lastPeer, e.code, []byte(e.why))
	}
	c.out.patience = c.patience(cause)
	_ = c.nc.SetWriteDeadline(time.Now().Add(max(c.out.patience, time.Second)))
	close(c.dead)
	c.closeGoing()
	if c.drainEnd != nil {
		c.drainEnd.Stop()
	}
	for _, s := range c.streams {
		var err error = &LostError{Cause: cause}
		if c.client && s.status == 0 && (s.id >= c.leftBelow || c.wentAway && s.id > c.goneLast) {
			err = fmt.Errorf("%w: %w", ErrUnprocessed, cause)
		}
		s.end(err)
	}
	clear(c.streams)
	if c.joined != nil {
		c.joined.stopIfLast()
	}
	c.kick()
}

// holdBack drops what waits to be sent when there is a CONNECT in it: who asked for that may ask elsewhere. mu is held.
func (c *Conn) holdBack() {
	for id := c.leftBelow; c.client && id < c.nextID; id += 2 {
		if c.streams[id] != nil {
			buf, from := c.out.take()
			from.free(buf)
			return
		}
	}
}

func (c *Conn) closeGoing() {
	select {
	case <-c.going:
	default:
		close(c.going)
	}
}

// Close ends the connection and every stream on it, and waits for its goroutines.
func (c *Conn) Close() error {
	c.mu.Lock()
	c.cut = true // before the streams end
	c.failLocked(errClosed)
	c.out.patience = 0
	c.abandon()
	c.mu.Unlock()
	_ = c.nc.SetWriteDeadline(time.Now().Add(time.Second))
	_ = c.nc.SetReadDeadline(time.Now()) // ends a linger
	<-c.done
	c.serving.Wait()
	return nil
}
