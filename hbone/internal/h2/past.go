package h2

import "golang.org/x/net/http2"

// past remembers streams that have ended. Frames that crossed the end on their way are no fault of the peer; frames behind an end of his own are
// (RFC 9113, section 5.1).
type past struct {
	ring  *[128]pastStream // nil until one has ended
	next  int
	cross int // frames that may still cross the ends of streams
}

// crossing is what may cross the end of one stream: its answer, its END_STREAM, its RST_STREAM. (DATA costs nothing.)
const crossing = 3

// pastStream is an id, and the bit above it when the peer had ended the stream or reset it.
type pastStream uint32

const endedByPeer pastStream = 1 << 31

// add takes a stream that has ended.
func (p *past) add(id uint32, ended bool) {
	e := pastStream(id)
	if ended {
		e |= endedByPeer
	}
	p.note(e)
	p.cross += crossing
}

// note remembers an entry.
func (p *past) note(e pastStream) {
	if p.ring == nil {
		p.ring = &[128]pastStream{}
	}
	p.ring[p.next] = e
	p.next = (p.next + 1) % len(p.ring)
}

// reset notes that it was the peer who reset the stream that was added last: nothing more of it is on the way.
func (p *past) reset(id uint32) {
	p.ring[(p.next+len(p.ring)-1)%len(p.ring)] = pastStream(id) | endedByPeer
	p.cross -= crossing
}

// find gives the entry of a stream, nil when it is too long ago or the peer never opened it.
func (p *past) find(id uint32) *pastStream {
	if p.ring == nil {
		return nil
	}
	for i := range p.ring {
		if uint32(p.ring[i]&^endedByPeer) == id {
			return &p.ring[i]
		}
	}
	return nil
}

// late takes a frame of a stream that has ended, which is free when it may have crossed the end. mu is held.
func (rd *reader) late() error {
	if rd.c.past.cross > 0 {
		rd.c.past.cross--
		return nil
	}
	return rd.cost(perReset)
}

// behind takes HEADERS of a stream that is not open any more, or, at a server, of one that the peer skipped. mu is held.
func (rd *reader) behind(id uint32) error {
	e := rd.c.past.find(id)
	switch {
	case e == nil && !rd.c.client:
		return &connError{http2.ErrCodeProtocol, "a stream id below the highest"}
	case e == nil || *e&endedByPeer == 0:
		return rd.late()
	case rd.c.client:
		return rd.closed(e)
	}
	return &connError{http2.ErrCodeStreamClosed, "HEADERS of a stream that the peer has ended"}
}

// closed answers a frame behind the peer's own end of a stream, once. mu is held.
func (rd *reader) closed(e *pastStream) error {
	*e &^= endedByPeer
	_ = rd.c.cw.WriteRSTStream(uint32(*e), http2.ErrCodeStreamClosed)
	return rd.cost(perReset)
}

// dataBehind takes DATA of a stream that is not open any more. What we reset may have been on its way for as long as there was window. mu is held.
func (rd *reader) dataBehind(h header) error {
	e := rd.c.past.find(h.id)
	switch {
	case e != nil && *e&endedByPeer != 0:
		return rd.closed(e)
	case h.length == 0:
		return rd.late() // the END_STREAM that crossed our reset, as a rule
	}
	return nil
}
