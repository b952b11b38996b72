package h2

import (
	"net/http"
	"time"

	"golang.org/x/net/http2"
)

// A peer has an account for frames that cost us and carry nothing. What the tunnels carry pays it back, in either direction, and so does time, so
// that what is right now and then for a connection of many hours (a PING, a CONNECT that is given up) never adds up to an attack.

const (
	maxResets = 1000    // streams opened and reset at once before the peer is cut off
	perReset  = 10      // what one of them costs
	perSecond = 20 * 10 // what a second pays back
	young     = 1000    // milliseconds: a CONNECT given up later than that has not been opened to be reset
)

// account is the reader's, of its peer.
type account struct {
	debt int
	from time.Time // time since then has not paid back yet
}

// charge takes n, and reports whether the peer is still to be served.
func (a *account) charge(n int) bool {
	if a.debt += n; a.debt <= perReset*maxResets {
		return true
	}
	now := time.Now()
	a.pay(int(now.Sub(a.from).Seconds() * perSecond))
	a.from = now
	return a.debt <= perReset*maxResets
}

func (a *account) pay(n int) { a.debt = max(0, a.debt-n) }

// cost charges the peer for a frame that carries nothing. mu is held.
func (rd *reader) cost(n int) error {
	rd.abuse.pay(int(min(rd.c.earned, 1<<20)))
	rd.c.earned = 0
	if !rd.abuse.charge(n) {
		return &connError{http2.ErrCodeEnhanceYourCalm, "too many frames that carry nothing"}
	}
	if rd.c.out.control > maxControl {
		return &connError{http2.ErrCodeEnhanceYourCalm, "more to answer than the peer reads"}
	}
	return nil
}

// refuse resets a stream that never came to be; mu is held.
func (rd *reader) refuse(id uint32, code http2.ErrCode, cost int) error {
	if !rd.abuse.charge(cost) {
		return &connError{http2.ErrCodeEnhanceYourCalm, "too many streams that were refused"}
	}
	rd.c.past.note(pastStream(id))
	_ = rd.c.cw.WriteRSTStream(id, code)
	return nil
}

// age is the connection's, in milliseconds; it wraps.
func (c *Conn) age() uint32 { return uint32(time.Since(c.born).Milliseconds()) }

// provoked resets a stream for what the peer did to it (CVE-2025-8671). mu is held.
func (rd *reader) provoked(s *Stream, code http2.ErrCode) error {
	s.reset(code)
	return rd.cost(perReset)
}

// resetCost is what RST_STREAM of s costs. A tunnel that stood ends so when its user closes it, and a client waits for answers no faster
// than they are given: only a CONNECT that is taken back at once is an attack (CVE-2023-44487). mu is held.
func (c *Conn) resetCost(s *Stream) int {
	if c.client || s.status == http.StatusOK || c.age()-s.measuredFrom >= young {
		return 0
	}
	return perReset
}
