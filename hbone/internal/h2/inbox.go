package h2

import (
	"sync"

	"github.com/isthmus-mesh/isthmus/hbone/internal/bufpool"
)

// maxChunk is the largest piece of received bytes that is kept together.
const maxChunk = 64 << 10

// maxJoined is that of a joined stream whose socket takes all that comes, in one write.
const maxJoined = 256 << 10

// chunk is a piece of received bytes. The connection's mu guards it; the bytes between r and w may be read, and those beyond w written,
// outside the lock by who holds a reference.
type chunk struct {
	next *chunk
	buf  *bufpool.Buf
	r, w int
	refs int // the inbox, the user's Read, the connection's reader
}

var chunks = sync.Pool{New: func() any { return new(chunk) }}

func (k *chunk) release() {
	if k.refs--; k.refs == 0 {
		k.buf.Free()
		*k = chunk{}
		chunks.Put(k)
	}
}

// inbox holds the received bytes of a stream. The zero value is empty and owns nothing. The connection's mu guards it.
type inbox struct {
	tail *chunk // whose next is the head
	n    uint32 // bytes held
}

func (q *inbox) head() *chunk {
	if q.tail == nil {
		return nil
	}
	return q.tail.next
}

// space is a chunk with room for some of want bytes at its end. What a few bytes hold on to is bounded: chunks grow with what is held, up to most.
func (q *inbox) space(want, most int) *chunk {
	if k := q.tail; k != nil && len(k.buf.B)-k.w >= min(want, 4<<10) {
		return k
	}
	k := chunks.Get().(*chunk)
	k.buf, k.refs = bufpool.Get(min(max(want, int(q.n)), most)), 1
	if k.next = k; q.tail != nil {
		k.next, q.tail.next = q.tail.next, k
	}
	q.tail = k
	return k
}

// write copies p in.
func (q *inbox) write(p []byte) {
	for len(p) > 0 {
		k := q.space(len(p), maxChunk)
		n := copy(k.buf.B[k.w:], p)
		k.w += n
		q.n += uint32(n)
		p = p[n:]
	}
}

// skip takes n bytes away from the head chunk, which has as many.
func (q *inbox) skip(n int) {
	k := q.head()
	k.r += n
	q.n -= uint32(n)
	if k.r == k.w && (k != q.tail || k.refs == 1) {
		q.pop()
	}
}

// trim drops empty chunks at the head, which a reader of the connection may have left there.
func (q *inbox) trim() {
	for k := q.head(); k != nil && k.r == k.w && (k != q.tail || k.refs == 1); k = q.head() {
		q.pop()
	}
}

func (q *inbox) pop() {
	k := q.head()
	if q.tail.next = k.next; k == q.tail {
		q.tail = nil
	}
	k.next = nil
	k.release()
}

// drop gives everything back.
func (q *inbox) drop() {
	for q.tail != nil {
		q.pop()
	}
	q.n = 0
}
