package h2

// past remembers streams that have ended. Frames that crossed the end on their way are no fault of the peer; frames behind an end of his own are
// (RFC 9113, section 5.1).
type past struct {
	ring  [128]pastStream
	next  int
	cross int // frames that may still cross the ends of streams: each its answer or its RST_STREAM
}

// pastStream is an id, and the bit above it when the peer had ended the stream or reset it.
type pastStream uint32

const endedByPeer pastStream = 1 << 31

// add takes a stream that has ended.
func (p *past) add(id uint32, ended bool) {
	e := pastStream(id)
	if ended {
		e |= endedByPeer
	}
	p.ring[p.next] = e
	p.next = (p.next + 1) % len(p.ring)
	p.cross += 2
}

// reset notes that it was the peer who reset the stream that was added last: nothing more of it is on the way.
func (p *past) reset(id uint32) {
	p.ring[(p.next+len(p.ring)-1)%len(p.ring)] = pastStream(id) | endedByPeer
	p.cross -= 2
}
