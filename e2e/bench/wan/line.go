package wan

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// Line is a long path for TCP connections on one machine. Set its fields before Serve.
type Line struct {
	// Target is where connections go.
	Target string
	// OneWay is how long bytes take, in each direction. A new connection's first bytes come one round trip later still, since a
	// TCP handshake would take that. Zero is no delay.
	OneWay time.Duration
	// InFlight is how many bytes each direction of a connection holds at most. Zero means 32 MiB, which is what a sender with a
	// buffer of 64 MiB has under way in one direction.
	InFlight int
	// Dial makes the connections to Target. Nil means net.Dial.
	Dial func(network, address string) (net.Conn, error)
}

// chunk is bytes and when they arrive. A chunk without bytes is the end: of the stream, or for err.
type chunk struct {
	due  time.Time
	held store
	n    int
	err  error
}

// Serve takes connections from l until it closes, and then returns its error. It does not close l.
func (ln *Line) Serve(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go ln.carry(c, time.Now())
	}
}

// carry is one connection.
func (ln *Line) carry(near net.Conn, begun time.Time) {
	dial := ln.Dial
	if dial == nil {
		dial = net.Dial
	}
	far, err := dial("tcp", ln.Target)
	if err != nil {
		reset(near)
		return
	}
	first := begun.Add(2 * ln.OneWay)
	var wg sync.WaitGroup
	wg.Go(func() { ln.way(far, near, first) })
	wg.Go(func() { ln.way(near, far, first) })
	wg.Wait()
	near.Close()
	far.Close()
}

// way carries one direction. What it reads leaves no earlier than first and OneWay after it came.
func (ln *Line) way(dst, src net.Conn, first time.Time) {
	q := newQueue(ln.inFlight())
	stores := storesFor(dst, src)
	go func() {
		for {
			held := stores.Get().(store)
			n, err := held.fill(src)
			now := time.Now()
			if now.Before(first) {
				now = first
			}
			if n > 0 && !q.put(chunk{due: now.Add(ln.OneWay), held: held, n: n}) {
				return
			}
			if err != nil {
				q.put(chunk{due: now.Add(ln.OneWay), err: err})
				return
			}
		}
	}()
	for {
		c := q.take()
		time.Sleep(time.Until(c.due))
		if c.err != nil {
			if errors.Is(c.err, io.EOF) {
				closeWrite(dst)
			} else {
				reset(dst)
			}
			return
		}
		err := c.held.drain(dst)
		q.done(c.n)
		if err == nil {
			stores.Put(c.held)
		} else {
			q.close()
			if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
				reset(src)
			}
			return
		}
	}
}

func (ln *Line) inFlight() int {
	if ln.InFlight == 0 {
		return 32 << 20
	}
	return ln.InFlight
}

func closeWrite(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
}

// reset closes c so that its peer sees a reset.
func reset(c net.Conn) {
	if l, ok := c.(interface{ SetLinger(int) error }); ok {
		_ = l.SetLinger(0) // closed already: so be it
	}
	c.Close()
}

// queue is what is under way in one direction.
type queue struct {
	limit int

	mu     sync.Mutex // guards the fields below
	change sync.Cond
	held   int
	list   []chunk
	closed bool
}

func newQueue(limit int) *queue {
	q := &queue{limit: limit}
	q.change.L = &q.mu
	return q
}

// put waits for room. It reports false when the other end is gone.
func (q *queue) put(c chunk) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.held > 0 && q.held+c.n > q.limit && !q.closed {
		q.change.Wait()
	}
	q.held += c.n
	q.list = append(q.list, c)
	q.change.Broadcast()
	return !q.closed
}

// take waits for a chunk. It still counts as under way until done.
func (q *queue) take() chunk {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.list) == 0 {
		q.change.Wait()
	}
	c := q.list[0]
	q.list[0] = chunk{}
	q.list = q.list[1:]
	return c
}

func (q *queue) done(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.held -= n
	q.change.Broadcast()
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.change.Broadcast()
}
