package h2

import (
	"net"
	"os"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/internal/bufpool"
	"golang.org/x/net/http2"
)

// grace is how long a socket may go on sending to nobody, once it has been given all that the tunnel brought.
const grace = 10 * time.Second

// forward is a tunnel that is joined with a socket. It has no goroutine: the connection's reader writes to the socket what the tunnel brings, and
// who flushes the connection reads from the socket what there is to send. What cannot be done at once is done when the epoll set tells of
// the socket. The connection's mu guards it; fd is used without while reading or writing is set, and closed when neither is.
type forward struct {
	s     *Stream
	fd    int
	timer *time.Timer // ends a socket that sends to nobody
	left  *leftover   // once the stream has ended
	owed  int         // what the socket had not delivered when timer looked last
	ask   int32       // what the next read asks for
	// pending is the Connect that waits for the socket; nil otherwise.
	pending *waiter

	readable bool // there may be bytes, or the end
	toEnd    bool // a read that gives less than it asked for may have left some: the end is behind the bytes, or urgent data between them
	writable bool // there may be room
	watched  bool // for room, too: from the first time on that there was none
	reading  bool
	writing  bool
	upDone   bool // what the tunnel brought has been written, and its end
	downDone bool // the socket's end has been read
	nobody   bool // the peer wants no more: what the socket sends is thrown away
	deaf     bool // the socket takes no more, as it was reset: what it had sent before that is still to be read
	aborted  bool // the application is to see a reset
	closing  bool // as soon as nobody uses fd
	closed   bool
}

// Join forwards between the stream, which has been answered, and nc until both directions have ended, and closes both. An end of stream
// passes on as one, a reset or a failure as a reset. It does not wait. It takes over the descriptor of nc, whose deadlines end with that;
// when it returns false it could not, and nc is the caller's as before. Of the stream only Reset, Done and WaitDone may be used from then on.
func (s *Stream) Join(nc net.Conn) bool {
	rc := rawOf(nc)
	if rc == nil {
		return false
	}
	fd, err := takeOver(rc)
	if err != nil {
		return false
	}
	c := s.c
	c.mu.Lock()
	j, err := c.join()
	if err == nil {
		j.enter(s, fd)
		c.flushSoon(false)
	}
	c.mu.Unlock()
	if err != nil {
		syscall.Close(fd)
		return false // out of descriptors, as a rule
	}
	nc.Close()
	return true
}

// takeOver gives a second descriptor of a socket. The first can be closed, and with it what Go holds to watch it.
func takeOver(rc syscall.RawConn) (int, error) {
	var fd uintptr
	var errno syscall.Errno
	err := rc.Control(func(old uintptr) {
		fd, _, errno = syscall.Syscall(syscall.SYS_FCNTL, old, syscall.F_DUPFD_CLOEXEC, 0)
	})
	switch {
	case err != nil:
		return -1, err
	case errno != 0:
		return -1, os.NewSyscallError("fcntl", errno)
	}
	if err := syscall.SetNonblock(int(fd), true); err != nil { // somebody may have made it blocking
		syscall.Close(int(fd))
		return -1, os.NewSyscallError("fcntl", err)
	}
	return int(fd), nil
}

// hold makes fd the socket of s, which does nothing yet. mu is held.
func (j *joined) hold(s *Stream, fd int) *forward {
	f := &forward{s: s, fd: fd, ask: leastAsk}
	s.more().forward = f
	j.count++
	j.c.serving.Add(1)
	if s.isDone {
		f.drift()
		f.ended()
	}
	return f
}

// enter joins s with fd, a socket that is connected. mu is held, but for system calls.
func (j *joined) enter(s *Stream, fd int) {
	f := j.hold(s, fd)
	if !f.closing && j.add(f) != nil {
		f.fail()
	}
	f.writable = true
	f.up()
}

// up writes what the tunnel has brought, and its end. mu is held, but for system calls.
func (f *forward) up() {
	s := f.s
	if f.writing || f.closing || f.pending != nil {
		return
	}
	f.writing = true
	for f.writable && s.in.n > 0 && !f.closing && !f.deaf {
		f.writable = false // an event that comes meanwhile sets it
		var all bool
		var err error
		s.lend(s.in.head(), func(b []byte) (n int) {
			n, err = write(f.fd, b)
			all = n == len(b)
			return n
		})
		switch {
		case err != nil:
			f.deafen()
		case all:
			f.writable = true
		case !f.closing && !f.watched:
			f.watched = true
			s.c.joined.again(f)
		}
	}
	if f.deaf {
		s.drop()
	} else if s.recvEnd && s.in.n == 0 && !f.upDone && !f.closing {
		f.upDone = true
		s.c.mu.Unlock()
		err := syscall.Shutdown(f.fd, syscall.SHUT_WR)
		s.c.mu.Lock()
		if err != nil { // it was reset
			f.deafen()
		}
	}
	f.writing = false
	f.settle()
}

// keepsUp reports whether the socket has taken all that came until now. mu is held.
func (f *forward) keepsUp() bool { return f.writable }

// write writes what the socket takes at once.
func write(fd int, b []byte) (int, error) {
	for {
		n, err := syscall.Write(fd, b)
		switch err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			err = nil
		}
		return max(n, 0), err
	}
}

// down has the flusher read from the socket, when there is something to be had and window for it. mu is held.
func (f *forward) down() {
	switch {
	case !f.readable || f.reading || f.closing || f.downDone || f.pending != nil:
	case f.nobody:
		f.s.c.joined.again(f)
	case f.s.sendWindow > 0: // else a WINDOW_UPDATE calls again
		f.s.c.out.push(f.s)
	}
}

// discard reads away what nobody wants. mu is held, but for system calls.
func (f *forward) discard() {
	if f.reading || f.closing || f.downDone {
		return
	}
	f.readable, f.reading = false, true
	c := f.s.c
	c.mu.Unlock()
	buf := bufpool.Get(64 << 10)
	n, err := syscall.Read(f.fd, buf.B)
	buf.Free()
	c.mu.Lock()
	f.reading = false
	switch {
	case n == 0 || n < 0 && err != syscall.EAGAIN && err != syscall.EINTR: // whatever its end is, it is one
		f.downDone = true
	case n > 0 || err == syscall.EINTR:
		f.readable = true
		f.down()
	}
	f.settle()
}

// ended follows the end of the stream. mu is held.
func (f *forward) ended() {
	if f.s.recvErr() != nil || f.s.c.cut || f.deaf {
		f.abort()
		return
	}
	f.nobody = true // nothing is closed or reset now: that could destroy what the application has not read yet
	if f.pending != nil {
		f.pending.wake()
	}
	f.down()
	f.settle()
}

// drift keeps the socket in sight when its stream leaves the connection's table. mu is held.
func (f *forward) drift() {
	if f.closed {
		return
	}
	f.s.c.joined.keep(f.s)
	if !f.closing && !f.upDone {
		f.left = f.s.leave(f.abort, func() int { return outq(f.fd) })
	}
}

// deafen follows that the socket takes no more. An application that closes without having read all may have answered before that: the peer gets the answer, and then a
// reset. mu is held.
func (f *forward) deafen() {
	if f.downDone || f.nobody {
		f.fail()
		return
	}
	f.deaf, f.readable, f.toEnd = true, true, true
	f.s.drop()
	f.down()
}

// fail makes both ends see a reset. mu is held.
func (f *forward) fail() {
	f.s.reset(http2.ErrCodeConnect)
	f.abort()
}

// abort has the application see a reset. mu is held.
func (f *forward) abort() {
	if f.closing {
		return
	}
	f.aborted, f.closing = true, true
	f.s.drop()
	f.settle()
}

// expire ends a socket that has sent to nobody for long enough, unless the application goes on reading.
func (f *forward) expire() {
	c := f.s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.closing {
		return
	}
	if n := outq(f.fd); n > 0 && n != f.owed {
		f.owed = n
		f.timer.Reset(c.cfg.leftoverTimeout())
		return
	}
	f.abort()
}

// settle closes the socket when it is time. mu is held; closing does not wait.
func (f *forward) settle() {
	if f.upDone || f.closing {
		f.left.stop()
	}
	switch {
	case f.upDone && f.downDone:
		f.closing = true
	case f.upDone && f.nobody && f.timer == nil && !f.closing:
		f.timer = time.AfterFunc(grace, f.expire)
	}
	if !f.closing || f.closed || f.reading || f.writing {
		return
	}
	f.closed = true
	if f.pending != nil {
		f.pending.wake()
	}
	if f.timer != nil {
		f.timer.Stop()
	}
	if f.aborted {
		_ = syscall.SetsockoptLinger(f.fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
	}
	syscall.Close(f.fd)
	f.s.c.joined.left(f)
}
