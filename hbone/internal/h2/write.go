package h2

import (
	"fmt"
	"runtime"
	"time"
)

// Who has something to send while nobody is flushing becomes the flusher: he yields, so that others can add to the batch, writes until
// his own bytes are out, and hands the rest to the standby writer, who does the same. Nobody but the standby writer ever waits for the connection.

// hasWork reports whether something can be sent; mu is held.
func (c *Conn) hasWork() bool {
	return len(c.out.buf) > 0 || c.err == nil && c.out.head != nil && c.sendWindow > 0
}

// flushSoon sends what is in the outbox, unless somebody is doing so. mu is held; it is released meanwhile.
func (c *Conn) flushSoon(yield bool) {
	if !c.out.flushing && c.hasWork() {
		c.flush(nil, yield)
	}
}

// flush is the flusher's work until own, if any, has been taken. mu is held, and released meanwhile.
func (c *Conn) flush(own *waiter, yield bool) {
	o := &c.out
	o.flushing = true
	o.busy.begin()
	if yield && o.yield.wanted() {
		c.letOthersAdd()
	}
	for c.hasWork() {
		if !c.batch(own, false) {
			c.handOver()
			return
		}
		if own == nil || len(own.p) == 0 {
			break
		}
	}
	if c.hasWork() || c.err != nil || o.g.kept() {
		c.handOver()
		return
	}
	o.flushing = false
	o.busy.end()
}

// A flusher yields as long as others add something, since where a processor is idle it takes him up at once; but not for longer than this.
const (
	maxYields = 8
	longYield = time.Millisecond
)

// letOthersAdd yields before a flush. mu is held, and released meanwhile.
func (c *Conn) letOthersAdd() {
	o, start := &c.out, now()
	before, took := len(o.buf), time.Duration(0)
	for range maxYields {
		n := len(o.buf)
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
		if took = now().sub(start); len(o.buf) == n || took > longYield {
			break
		}
	}
	o.yield.done(took, longYield, len(o.buf)-before)
}

// handOver leaves the flushing to the standby writer; mu is held.
func (c *Conn) handOver() {
	c.out.handed = true
	c.kick()
}

// batch sends what there is, up to maxBatch of DATA, and reports whether the connection took it. mu is held, and released meanwhile.
func (c *Conn) batch(own *waiter, wait bool) bool {
	o := &c.out
	buf, from := o.take()
	c.leftBelow = c.nextID
	size := len(buf)
	size += c.gather(maxBatch - size)
	c.mu.Unlock()
	pulled := o.pull()
	err := o.encode(buf, o.parts, pulled, size+len(pulled))
	from.free(buf)
	locked := false
	for i := range o.parts {
		// The bytes have been taken: the Writes go on while we are in the kernel.
		w := o.parts[i].w
		if w == own {
			continue
		}
		if !locked {
			c.mu.Lock()
			locked = true
		}
		if w.flying { // once a batch
			w.flying = false
			w.wake()
		}
	}
	if locked {
		c.mu.Unlock()
	}
	flushed := false
	if err == nil {
		if wait {
			flushed, err = true, o.g.flush()
		} else {
			flushed, err = o.g.tryFlush()
		}
	}
	c.mu.Lock()
	if own != nil {
		own.flying = false
	}
	clear(o.parts)
	o.parts = o.parts[:0]
	c.pulledAll()
	if err != nil {
		c.failLocked(c.lost(fmt.Errorf("write: %w", err)))
		return false
	}
	return flushed
}

// gather takes DATA of Writes that wait, each stream in turn, and says how many bytes that makes. mu is held.
func (c *Conn) gather(room int) int {
	o, size := &c.out, 0
	limit := min(c.peerFrame, c.cfg.maxSendFrame(), quantum-frameHeader)
	if limit+frameHeader >= record {
		limit = (limit+frameHeader)/record*record - frameHeader // records are full
	}
	for c.err == nil && o.head != nil && c.sendWindow > 0 && room-size-o.asked > frameHeader {
		s := o.pop()
		if f := s.forward(); f != nil {
			c.reserve(f, room-size-o.asked, limit)
			continue
		}
		w := s.ww
		if w == nil || s.ending != nil && s.ending.send != nil {
			continue
		}
		n := int(min(int64(min(len(w.p), limit, room-size-o.asked-frameHeader)), c.sendWindow, int64(s.sendWindow)))
		if n <= 0 {
			continue // a WINDOW_UPDATE puts it back
		}
		last := s.wantEnd && n == len(w.p)
		o.parts = append(o.parts, part{head: dataHeader(s.id, n, last), p: w.p[:n], w: w})
		size += n + frameHeader
		w.p, w.flying = w.p[n:], true
		c.sent(s, n)
		switch {
		case last:
			s.sentEnd()
		case len(w.p) > 0 && s.sendWindow > 0:
			o.push(s)
		}
	}
	return size
}

// sent takes n bytes of DATA off the windows; mu is held.
func (c *Conn) sent(s *Stream, n int) {
	c.sendWindow -= int64(n)
	s.sendWindow -= int32(n)
	c.counted(s, n)
}

// counted notes that n bytes of DATA are on their way; mu is held.
func (c *Conn) counted(s *Stream, n int) {
	c.bytesOut += uint64(n)
	c.earned += uint64(n) >> 6
	if min(c.sendWindow, int64(s.sendWindow)) > 0 {
		c.earned += 2 // WINDOW_UPDATEs for each small packet; but not for packets that are small because of the window
	}
}

// writeLoop is the standby writer: it writes what flushers leave, may wait for the connection, and closes it in the end.
func (c *Conn) writeLoop() {
	defer c.nc.Close() // wakes the reader
	o := &c.out
	for range c.wake {
		c.mu.Lock()
		if o.flushing && !o.handed {
			c.mu.Unlock()
			continue // the flusher sees to it
		}
		if !o.flushing {
			o.busy.begin()
		}
		o.flushing, o.handed = true, false
		if o.head == nil && len(c.streams) > 1 && !o.g.kept() && o.yield.wanted() {
			c.letOthersAdd()
		}
		for c.hasWork() || o.g.kept() {
			if !c.batch(nil, true) && c.err != nil {
				break
			}
		}
		ended := c.err != nil
		o.flushing = false
		o.busy.end()
		c.mu.Unlock()
		if ended {
			c.linger()
			return
		}
	}
}

// yielding decides whether somebody yields. It does not pay for one who is alone, and costs dearly where goroutines that compute hold the
// processors.
type yielding struct {
	skip  int // times without
	alone int // yields in a row that were of no use
	long  int // yields in a row that took too long
}

func (y *yielding) wanted() bool {
	if y.skip > 0 {
		y.skip--
		return false
	}
	return true
}

// worthYield is how many bytes a millisecond of yielding must gather. With thousands of tunnels at work a yield is long, and well spent.
const worthYield = 256

// done notes what a yield cost, against what is too much, and how many bytes it gathered.
func (y *yielding) done(took, limit time.Duration, gathered int) {
	switch {
	case took > limit && int64(gathered) < worthYield*took.Milliseconds():
		if y.long++; y.long >= 3 { // once may be the machine's doing
			y.long, y.skip = 0, 64
		}
	case gathered > 0:
		y.alone, y.long = 0, 0
	default:
		y.long = 0
		if y.alone++; y.alone >= 16 {
			y.alone, y.skip = 0, 16
		}
	}
}
