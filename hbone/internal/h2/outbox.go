package h2

import (
	"encoding/binary"
	"io"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/internal/bufpool"
	"golang.org/x/net/http2"
)

const (
	// quantum is what one stream sends before it is the next one's turn.
	quantum = 64 << 10
	// maxBatch is how much one write to the connection gathers; with what TLS adds it fits a buffer of 128 KiB. More makes bulk no cheaper, and a
	// small frame wait longer.
	maxBatch = 124 << 10
	// maxSmall is what a Write may copy into the outbox; the bytes of a larger one are used in place.
	maxSmall = 8 << 10
	// maxOutbox is how much may wait there before Writes wait too.
	maxOutbox = 128 << 10
	// record is what a TLS record carries.
	record = 16 << 10
)

// outbox is what is to be sent: control frames and small DATA frames in the order in which they were made, then the DATA of Writes that wait.
// The connection's mu guards it, but the fields under "flusher" belong to who has set flushing.
type outbox struct {
	buf        []byte  // nil while there is nothing in it
	slab       *slab   // where it comes from
	control    int     // bytes in buf that the peer provoked
	head, tail *Stream // with a Write that waits and a window of its own, in turn
	flushing   bool    // somebody is writing, or about to
	handed     bool    // it is the standby writer
	busy       busyness
	yield      yielding
	patience   time.Duration // how long a peer may take to end its side once we have ended ours

	// flusher
	g      *Gather
	w      io.Writer
	parts  []part
	pulls  []pull       // reads from the sockets of joined streams
	asked  int          // room for them
	pulled *bufpool.Buf // borrowed for what they give
	packed []byte       // the beginning of a record; borrowed for a batch
}

// slab is memory for small frames. It is lent while there are some, so that a connection on which nothing happens has none.
type slab struct{ b []byte }

// maxSlab is what is kept of it; a Write adds nothing beyond maxOutbox.
const maxSlab = 2 * maxOutbox

var slabs = sync.Pool{New: func() any { return new(slab) }}

// lend gets memory for buf when it has none.
func (o *outbox) lend() {
	if o.slab == nil {
		o.slab = slabs.Get().(*slab)
		o.buf = o.slab.b[:0]
	}
}

// take empties the outbox of small frames. The caller gives the slab back with free.
func (o *outbox) take() ([]byte, *slab) {
	buf, from := o.buf, o.slab
	o.buf, o.slab, o.control = nil, nil, 0
	return buf, from
}

// free gives back what take gave.
func (k *slab) free(buf []byte) {
	if k == nil {
		return
	}
	if k.b = buf[:0]; cap(buf) > maxSlab {
		k.b = nil
	}
	slabs.Put(k)
}

// part is a DATA frame whose bytes are the caller's.
type part struct {
	head [frameHeader]byte
	p    []byte
	w    *waiter
}

func (o *outbox) init(g *Gather, w io.Writer) { o.g, o.w = g, w }

// Write takes a control frame.
func (o *outbox) Write(p []byte) (int, error) {
	o.raw(p)
	o.control += len(p)
	return len(p), nil
}

// shrink gives up the memory of a connection that nobody uses.
func (o *outbox) shrink() {
	if !o.flushing {
		o.parts, o.pulls = nil, nil
	}
}

// raw takes frames that nobody provoked.
func (o *outbox) raw(p []byte) {
	o.lend()
	o.buf = append(o.buf, p...)
}

// data takes a DATA frame, copying p.
func (o *outbox) data(id uint32, p []byte, end bool) {
	o.lend()
	h := dataHeader(id, len(p), end)
	o.buf = append(append(o.buf, h[:]...), p...)
}

// statusOK is the header field ":status: 200" (RFC 7541, appendix A).
const statusOK = 0x88

// ok takes HEADERS that say no more than that.
func (o *outbox) ok(id uint32) {
	o.lend()
	h := [frameHeader]byte{2: 1, 3: byte(http2.FrameHeaders), 4: byte(http2.FlagHeadersEndHeaders)}
	binary.BigEndian.PutUint32(h[5:], id)
	o.buf = append(append(o.buf, h[:]...), statusOK)
}

// reset takes RST_STREAM.
func (o *outbox) reset(id uint32, code http2.ErrCode) {
	o.lend()
	h := [frameHeader + 4]byte{2: 4, 3: byte(http2.FrameRSTStream)}
	binary.BigEndian.PutUint32(h[5:], id)
	binary.BigEndian.PutUint32(h[9:], uint32(code))
	o.buf = append(o.buf, h[:]...)
	o.control += len(h)
}

func dataHeader(id uint32, n int, end bool) (h [frameHeader]byte) {
	h[0], h[1], h[2], h[3] = byte(n>>16), byte(n>>8), byte(n), byte(http2.FrameData)
	if end {
		h[4] = byte(http2.FlagDataEndStream)
	}
	binary.BigEndian.PutUint32(h[5:], id)
	return h
}

// push puts s last in turn.
func (o *outbox) push(s *Stream) {
	if s.queued {
		return
	}
	s.queued, s.next = true, nil
	if o.tail == nil {
		o.head = s
	} else {
		o.tail.next = s
	}
	o.tail = s
}

func (o *outbox) pop() *Stream {
	s := o.head
	if o.head = s.next; o.head == nil {
		o.tail = nil
	}
	s.queued, s.next = false, nil
	return s
}

// pack writes p in full records: what does not fill one waits for more, and only the edges are copied.
func (o *outbox) pack(p []byte) error {
	if len(o.packed) > 0 || len(p) < record {
		n := min(record-len(o.packed), len(p))
		o.packed = append(o.packed, p[:n]...)
		p = p[n:]
		if len(o.packed) < record {
			return nil
		}
		if err := o.unpack(); err != nil {
			return err
		}
	}
	if full := len(p) / record * record; full > 0 {
		if _, err := o.w.Write(p[:full]); err != nil {
			return err
		}
		p = p[full:]
	}
	o.packed = append(o.packed, p...)
	return nil
}

// unpack writes what waits.
func (o *outbox) unpack() error {
	if len(o.packed) == 0 {
		return nil
	}
	_, err := o.w.Write(o.packed)
	o.packed = o.packed[:0]
	return err
}

// encode writes a batch into the Gather. It does not wait.
func (o *outbox) encode(buf []byte, parts []part, pulled []byte, size int) error {
	o.g.hold(size + size/record*64 + 512)
	defer o.g.release()
	edge := bufpool.Get(record)
	o.packed = edge.B[:0]
	defer func() { o.packed = nil; edge.Free() }()
	if err := o.pack(buf); err != nil {
		return err
	}
	for i := range parts {
		if err := o.pack(parts[i].head[:]); err != nil {
			return err
		}
		if err := o.pack(parts[i].p); err != nil {
			return err
		}
	}
	if err := o.pack(pulled); err != nil {
		return err
	}
	return o.unpack()
}

// appendWriter collects what is written to it.
type appendWriter struct{ b []byte }

func (a *appendWriter) Write(p []byte) (int, error) {
	a.b = append(a.b, p...)
	return len(p), nil
}
