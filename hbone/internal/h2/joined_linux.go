package h2

import (
	"os"
	"syscall"
	"time"
)

// joined is the sockets that the tunnels of a connection are joined with. They are in an epoll set of their own, which Go's poller watches: one
// goroutine waits for all of them. Each is put in once, edge-triggered, and leaves the set when it is closed.
type joined struct {
	c    *Conn
	set  int      // the epoll set
	file *os.File // the same; the loop closes it
	rc   syscall.RawConn

	// the loop's
	events [64]syscall.EpollEvent
	n      int // events that have come

	// The connection's mu guards these.
	count   int                // sockets
	adrift  map[uint32]*Stream // those whose stream has left the connection's table
	stopped bool
}

// Bits of epoll_event.events.
const (
	edge       = 1 << 31
	canRead    = syscall.EPOLLIN | readsToEnd
	readsToEnd = syscall.EPOLLRDHUP | syscall.EPOLLHUP | syscall.EPOLLERR | syscall.EPOLLPRI // a read ends at urgent data, too
	canWrite   = syscall.EPOLLOUT | syscall.EPOLLHUP | syscall.EPOLLERR
	wanted     = syscall.EPOLLIN | syscall.EPOLLRDHUP | syscall.EPOLLPRI | edge
)

// join gives the set of the connection, making it if there is none. mu is held.
func (c *Conn) join() (*joined, error) {
	if c.joined != nil && !c.joined.stopped { // else its set is closed
		return c.joined, nil
	}
	set, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := syscall.SetNonblock(set, true); err != nil { // so that Go's poller takes it
		syscall.Close(set)
		return nil, os.NewSyscallError("fcntl", err)
	}
	j := &joined{c: c, set: set, file: os.NewFile(uintptr(set), "epoll")}
	if j.rc, err = j.file.SyscallConn(); err != nil {
		j.file.Close()
		return nil, err
	}
	c.joined = j
	c.serving.Add(1)
	go j.loop()
	return j, nil
}

// add puts a socket into the set. mu is held.
func (j *joined) add(f *forward) error { return j.control(syscall.EPOLL_CTL_ADD, f) }

// again has the loop look at a socket that is in the set, also when it has done so before. mu is held.
func (j *joined) again(f *forward) {
	if j.control(syscall.EPOLL_CTL_MOD, f) != nil { // the kernel has no reason to
		f.abort()
	}
}

func (j *joined) control(op int, f *forward) error {
	ev := syscall.EpollEvent{Events: wanted, Fd: int32(f.s.id)}
	if f.watched {
		ev.Events |= syscall.EPOLLOUT
	}
	return os.NewSyscallError("epoll_ctl", syscall.EpollCtl(j.set, op, f.fd, &ev))
}

// loop passes on what the sockets bring, and is the flusher of that as long as the connection takes it.
func (j *joined) loop() {
	c := j.c
	defer c.serving.Done()
	defer j.file.Close()
	collect := func(uintptr) bool { return j.collect() }
	c.mu.Lock()
	for mine := false; !j.stopped || mine; {
		c.mu.Unlock()
		if mine {
			j.collect()
		} else if j.rc.Read(collect) != nil {
			j.n = 0 // stopped, as a rule
		}
		c.mu.Lock()
		for i := range j.events[:j.n] {
			j.take(&j.events[i])
		}
		mine = c.pump(mine)
	}
	c.mu.Unlock()
}

// collect fetches events, and reports whether there were any.
func (j *joined) collect() bool {
	for {
		n, err := syscall.EpollWait(j.set, j.events[:], 0)
		if err == syscall.EINTR {
			continue
		}
		j.n = max(n, 0)
		return n != 0
	}
}

// take is what an event does. mu is held, but for system calls.
func (j *joined) take(ev *syscall.EpollEvent) {
	id := uint32(ev.Fd)
	s := j.c.streams[id]
	if s == nil {
		s = j.adrift[id]
	}
	if s == nil || s.forward() == nil {
		return
	}
	f := s.forward()
	if f.pending != nil {
		f.pending.wake()
	}
	if ev.Events&canWrite != 0 {
		f.writable = true
		f.up()
	}
	if ev.Events&canRead != 0 {
		f.readable = true
		f.toEnd = f.toEnd || ev.Events&readsToEnd != 0
		if f.nobody && f.pending == nil {
			f.discard()
		} else {
			f.down()
		}
	}
}

// pump sends a batch, unless another is the flusher, and reports whether it is to be called again; mine says that it was called so. mu is held,
// and released meanwhile.
func (c *Conn) pump(mine bool) bool {
	o := &c.out
	if !mine {
		if o.flushing || !c.hasWork() {
			return false
		}
		o.flushing = true
		o.busy.begin()
	}
	if c.hasWork() && !c.batch(nil, false) || c.err != nil {
		c.handOver()
		return false
	}
	if c.hasWork() {
		return true
	}
	if o.g.kept() {
		c.handOver()
		return false
	}
	o.flushing = false
	o.busy.end()
	return false
}

// left counts a socket out. mu is held.
func (j *joined) left(f *forward) {
	delete(j.adrift, f.s.id)
	j.count--
	j.c.handlers--
	j.c.serving.Done()
	j.stopIfLast()
}

// stopIfLast ends the loop of a connection that has ended, when no socket is left. mu is held.
func (j *joined) stopIfLast() {
	if j.count == 0 && j.c.err != nil && !j.stopped {
		j.stopped = true
		_ = j.file.SetReadDeadline(time.Unix(1, 0)) // wakes it
	}
}

// abandon resets the sockets of streams that have ended. mu is held.
func (j *joined) abandon() {
	for _, s := range j.adrift {
		s.forward().abort()
	}
}

// keep takes in a stream that leaves the connection's table while its socket has something to do. mu is held.
func (j *joined) keep(s *Stream) {
	if j.adrift == nil {
		j.adrift = map[uint32]*Stream{}
	}
	j.adrift[s.id] = s
}
