package h2

import (
	"errors"
	"syscall"
	"unsafe"

	"github.com/isthmus-mesh/isthmus/hbone/internal/bufpool"
)

// How much a read from a joined socket asks for: as much as comes at once.
const (
	leastAsk = 2 << 10
	mostAsk  = maxBatch
	// mostFrames is in how many frames one read may put its bytes.
	mostFrames = maxBatch / record
)

// pull is what the flusher reads from a socket, as DATA frames.
type pull struct {
	f     *forward
	asked int
	limit int // bytes in one frame
	got   int
	end   bool // of what the socket sends
	err   error
}

// size is how much n bytes in frames are.
func (p *pull) size(n int) int { return n + (n+p.limit-1)/p.limit*frameHeader }

// reserve takes the turn of a joined stream, and gives the room that it may need. What is reserved of windows and not used goes back in pulled. mu
// is held.
func (c *Conn) reserve(f *forward, room, limit int) int {
	s := f.s
	if !f.readable || f.reading || f.closing || f.nobody || f.downDone || s.sendErr() != nil {
		return 0
	}
	o := &c.out
	if o.head != nil || len(o.pulls) > 0 || len(o.parts) > 0 {
		room = min(room, quantum)
	}
	p := pull{f: f, limit: limit}
	p.asked = room - (room+limit+frameHeader-1)/(limit+frameHeader)*frameHeader
	p.asked = int(min(int64(min(p.asked, int(f.ask), mostFrames*limit)), c.sendWindow, int64(s.sendWindow)))
	if p.asked <= 0 {
		return 0 // a WINDOW_UPDATE calls down
	}
	f.readable, f.reading = false, true
	c.sendWindow -= int64(p.asked)
	s.sendWindow -= int32(p.asked)
	o.pulls = append(o.pulls, p)
	n := p.size(p.asked)
	o.asked += n
	return n
}

// pull reads what was reserved, each socket's bytes behind the headers of their frames, and gives all frames. It does not wait.
func (o *outbox) pull() []byte {
	if len(o.pulls) == 0 {
		return nil
	}
	o.pulled = bufpool.Get(o.asked)
	used := 0
	for i := range o.pulls {
		p := &o.pulls[i]
		used += p.read(o.pulled.B[used:])
	}
	return o.pulled.B[:used]
}

// read puts frames into b, and says how long they are.
func (p *pull) read(b []byte) int {
	var n int
	var err error
	for {
		if p.asked <= p.limit {
			n, err = syscall.Read(p.f.fd, b[frameHeader:frameHeader+p.asked])
		} else {
			n, err = p.scatter(b)
		}
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	switch {
	case n == 0:
		p.end = true
		return 0
	case n < 0:
		if !errors.Is(err, syscall.EAGAIN) {
			p.err = err
		}
		return 0
	}
	p.got = n
	id, at := p.f.s.id, 0
	for left := n; left > 0; left -= p.limit {
		h := dataHeader(id, min(left, p.limit), false)
		copy(b[at:], h[:])
		at += frameHeader + p.limit
	}
	return p.size(n)
}

// scatter reads with room for frame headers in between.
func (p *pull) scatter(b []byte) (int, error) {
	var parts [mostFrames]syscall.Iovec
	k := 0
	for left, at := p.asked, frameHeader; left > 0; k++ {
		n := min(left, p.limit)
		parts[k].Base = &b[at]
		parts[k].SetLen(n)
		left -= n
		at += n + frameHeader
	}
	n, _, errno := syscall.Syscall(syscall.SYS_READV, uintptr(p.f.fd), uintptr(unsafe.Pointer(&parts[0])), uintptr(k))
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

// pulledAll follows a batch: unused window goes back, and who may have more gets another turn. mu is held.
func (c *Conn) pulledAll() {
	o := &c.out
	if len(o.pulls) == 0 {
		return
	}
	o.pulled.Free()
	o.pulled = nil
	for i := range o.pulls {
		p := &o.pulls[i]
		p.f.reading = false
		if p.got > 0 {
			c.counted(p.f.s, p.got)
		}
		c.sendWindow += int64(p.asked - p.got)
		if !p.f.s.widen(int64(p.asked - p.got)) { // the peer gave more than there may be
			p.f.fail()
		}
		p.f.pulled(p)
	}
	clear(o.pulls)
	o.pulls, o.asked = o.pulls[:0], 0
}

// pulled takes the outcome of a read. mu is held.
func (f *forward) pulled(p *pull) {
	switch {
	case f.closing:
	case p.err != nil, p.end && f.deaf: // the write that failed may have taken the error
		f.fail()
	case p.end:
		f.downDone = true
		f.s.closeWrite()
	case p.got == p.asked || p.got > 0 && f.toEnd:
		f.readable = true
	}
	switch {
	case p.got == int(f.ask):
		f.ask = min(4*f.ask, mostAsk)
	case p.got < int(f.ask)/8:
		f.ask = max(f.ask/4, leastAsk)
	}
	f.down()
	f.settle()
}
