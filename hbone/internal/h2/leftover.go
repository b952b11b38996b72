package h2

import (
	"io"
	"syscall"
	"time"
)

// leftover is what a stream that has ended has left for somebody to take. It is given up when he takes nothing for as long as Config says. The
// connection's mu guards it.
type leftover struct {
	s      *Stream
	unsent func() int // what is on its way to him
	last   int        // bytes at the last look
	timer  *time.Timer
	over   bool
}

// leave begins to look after what s has left; nil when that is nothing. giveUp and unsent are called with mu held, which is held here, too.
func (s *Stream) leave(giveUp func(), unsent func() int) *leftover {
	if s.in.n == 0 {
		return nil
	}
	l := &leftover{s: s, unsent: unsent}
	l.last = l.bytes()
	l.timer = time.AfterFunc(s.c.cfg.leftoverTimeout(), func() { l.look(giveUp) })
	return l
}

// bytes counts what is in the socket, too: that may take much before there is room again.
func (l *leftover) bytes() int { return int(l.s.in.n) + l.unsent() }

func (l *leftover) look(giveUp func()) {
	c := l.s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.over || l.s.in.n == 0 {
		return
	}
	n := l.bytes()
	if n == l.last {
		giveUp()
		return
	}
	l.last = n
	l.timer.Reset(c.cfg.leftoverTimeout())
}

// stop ends that; mu is held.
func (l *leftover) stop() {
	if l != nil {
		l.over = true
		l.timer.Stop()
	}
}

// Unsent gives what counts the bytes that a socket has not delivered; another Writer has none.
func Unsent(w io.Writer) func() int {
	sc, ok := w.(syscall.Conn)
	if !ok {
		return func() int { return 0 }
	}
	return func() (n int) {
		if rc, err := sc.SyscallConn(); err == nil {
			_ = rc.Control(func(fd uintptr) { n = outq(int(fd)) }) // closed: it has nothing
		}
		return n
	}
}

// cutter is what WhenCut was given.
type cutter struct {
	f      func()
	unsent func() int
	left   *leftover // once the stream has ended
}

// WhenCut has f called, in a goroutine of its own, when nobody waits any more for what the stream has brought: the connection was closed, the
// context of Shutdown has ended, or to, which takes it, has taken nothing for too long since the stream has ended. forget takes that back, as far as
// it has not begun.
func (s *Stream) WhenCut(to io.Writer, f func()) (forget func()) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		go f()
		return func() {}
	}
	if c.whenCut == nil {
		c.whenCut = map[*Stream]*cutter{}
	}
	c.whenCut[s] = &cutter{f: f, unsent: Unsent(to)}
	if s.isDone {
		s.watchCut()
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.uncut(s)
	}
}

// watchCut follows the end of a stream; mu is held.
func (s *Stream) watchCut() {
	c := s.c
	if w := c.whenCut[s]; w != nil {
		w.left = s.leave(func() {
			c.uncut(s)
			go w.f()
		}, w.unsent)
	}
}

// uncut forgets what WhenCut was given for s; mu is held.
func (c *Conn) uncut(s *Stream) {
	if w := c.whenCut[s]; w != nil {
		w.left.stop()
		delete(c.whenCut, s)
	}
}

// abandon gives up what applications have not taken of streams that have ended. cut is set and mu held.
func (c *Conn) abandon() {
	if c.joined != nil {
		c.joined.abandon()
	}
	for s, w := range c.whenCut {
		c.uncut(s)
		go w.f()
	}
}
