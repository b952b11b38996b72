package h2

import "time"

// A stream's window follows the product of bandwidth and delay: what Read takes in one round trip must not be more than half of it. The round
// trip is the shortest that was seen, so that queues on the way do not feed themselves, and neighbours do not wait behind them. A stream that
// has had the connection to itself for a while keeps nobody waiting: up to aloneWindow, the latest round trip counts, with what processors that
// are busy add to it.

const (
	leastWindow = 256 << 10        // what a window shrinks to, unless it began with less
	leastSpan   = time.Millisecond // over less, what comes in bursts has no rate
	aloneWindow = 4 << 20
	mostOwed    = 2 << 20 // credit that is kept back: on a long path a quarter of a large window would cost a fifth of the rate
	aloneAfter  = 250_000 // microseconds without a neighbour; far more than one's message takes behind the largest window
)

// rtt measures round trips by PING, while bulk flows. The connection's mu guards it.
type rtt struct {
	least time.Duration
	now   time.Duration // the latest
	sent  time.Time     // when the PING under way left; zero: none is
	last  time.Time
	early int // measurements among the first rttEarly
}

var rttPing = [8]byte{'r', 't', 't'}

// Between two measurements is rttEvery, or rttSoon among the first: one of them alone may have met a busy processor, and made a window of it.
const (
	rttEvery = 500 * time.Millisecond
	rttSoon  = 20 * time.Millisecond
	rttEarly = 8
)

func (r *rtt) every() time.Duration {
	if r.early < rttEarly {
		return rttSoon
	}
	return rttEvery
}

// measure sends a PING when it is time for one; mu is held.
func (c *Conn) measure(now time.Time) {
	r := &c.rtt
	if r.sent.IsZero() && (r.least == 0 || now.Sub(r.last) >= r.every()) {
		r.sent = now
		_ = c.cw.WritePing(false, rttPing)
	}
}

// measured takes the answer; mu is held.
func (r *rtt) measured(now time.Time) {
	if r.sent.IsZero() {
		return
	}
	r.now = max(now.Sub(r.sent), time.Microsecond)
	if r.least == 0 || r.now < r.least {
		r.least = r.now
	}
	r.last, r.sent = now, time.Time{}
	r.early = min(r.early+1, rttEarly)
}

// credit takes note of n bytes that are no longer ours to hold, and returns window once a quarter of it has come together, or mostOwed. mu is held.
func (s *Stream) credit(n int) {
	s.consumed += uint32(n)
	if s.consumed < min(s.window/4, mostOwed) || s.recvEnd || s.recvErr() != nil || s.closedByUser {
		return
	}
	old := s.window
	s.tune()
	give := s.consumed + s.window - old // a window shrinks by what was consumed, at most
	s.consumed = 0
	if give > 0 {
		_ = s.c.cw.WriteWindowUpdate(s.id, give)
		s.recvWindow += int32(give)
	}
}

// tune sets the window anew, once a round trip or a span. mu is held.
func (s *Stream) tune() {
	c := s.c
	now := time.Now()
	at := uint32(now.Sub(c.born).Microseconds())
	s.measured += s.consumed
	c.measure(now)
	least := c.rtt.least
	if least == 0 {
		return
	}
	took := time.Duration(at-s.measuredFrom) * time.Microsecond
	span := max(least, leastSpan)
	if took < span {
		return
	}
	rate := int64(s.measured) // in took
	s.measured, s.measuredFrom = 0, at
	if c.turned {
		c.turned, c.turnedAt = false, at
	}
	alone := at-c.turnedAt >= aloneAfter
	need := 2 * rate * int64(least) / int64(took)
	if alone {
		need = max(need, min(2*rate*int64(c.rtt.now)/int64(took), aloneWindow))
	}
	start, most := c.cfg.streamWindow(), c.cfg.maxStreamWindow()
	switch {
	case need > int64(s.window) && s.window < most:
		grown := min(2*s.window, most)
		if c.growth+int64(grown-s.window) > c.cfg.maxGrowth() {
			return
		}
		c.growth += int64(grown - s.window)
		s.window = grown
	case need*2 < int64(s.window) && s.window-s.consumed >= min(start, leastWindow) && start < most && took < 8*span:
		c.growth -= int64(s.consumed)
		s.window -= s.consumed
	}
}

// onSettingsAck takes our own SETTINGS' acknowledgement, the first round trip. mu is held.
func (c *Conn) onSettingsAck() {
	if c.rtt.least == 0 && c.rtt.last.IsZero() {
		c.rtt.sent = c.born
		c.rtt.measured(time.Now())
	}
}
