package h2

import "time"

// deadline is a point in time that can be moved while somebody waits for it. The connection's mu guards it.
type deadline struct {
	at     time.Time
	timer  *time.Timer
	passed bool
}

// set moves a stream's deadline; wake is called, with mu held, when it passes.
func (s *Stream) setDeadline(t time.Time, which func(*extra) *deadline, wake func(*Stream)) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.IsZero() && s.extra == nil {
		return
	}
	d := which(s.more())
	d.at, d.passed = t, false
	if d.timer != nil {
		d.timer.Stop()
	}
	if t.IsZero() {
		return
	}
	left := time.Until(t)
	d.at = time.Now().Add(left) // by the clock that timers go by
	switch {
	case left <= 0:
		d.passed = true
		wake(s)
	case d.timer != nil:
		d.timer.Reset(left)
	default:
		d.timer = time.AfterFunc(left, func() { s.expire(d, wake) })
	}
}

// expire ends what waits for d, unless d was moved meanwhile.
func (s *Stream) expire(d *deadline, wake func(*Stream)) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if d.passed || d.at.IsZero() || time.Until(d.at) > 0 {
		return
	}
	d.passed = true
	wake(s)
}
