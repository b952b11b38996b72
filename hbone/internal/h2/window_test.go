package h2

import (
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// farPair is a connection whose bytes take a while, and of which any number is on the way.
func farPair(oneWay time.Duration) (net.Conn, net.Conn) {
	ab, ba := newFarPipe(oneWay), newFarPipe(oneWay)
	return &farConn{r: ba, w: ab}, &farConn{r: ab, w: ba}
}

type farPipe struct {
	oneWay time.Duration
	mu     sync.Mutex
	cond   *sync.Cond
	queue  []farPiece
	closed bool
}

type farPiece struct {
	at time.Time
	b  []byte
}

func newFarPipe(oneWay time.Duration) *farPipe {
	p := &farPipe{oneWay: oneWay}
	p.cond = sync.NewCond(&p.mu)
	return p
}

type farConn struct{ r, w *farPipe }

func (c *farConn) Read(b []byte) (int, error) {
	p := c.r
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if len(p.queue) == 0 {
			if p.closed {
				return 0, io.EOF
			}
			p.cond.Wait()
			continue
		}
		left := time.Until(p.queue[0].at)
		if left <= 0 {
			break
		}
		p.mu.Unlock()
		time.Sleep(left) // the bubble's clock
		p.mu.Lock()
	}
	n := copy(b, p.queue[0].b)
	if p.queue[0].b = p.queue[0].b[n:]; len(p.queue[0].b) == 0 {
		p.queue = p.queue[1:]
	}
	return n, nil
}

func (c *farConn) Write(b []byte) (int, error) {
	p := c.w
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, os.ErrClosed
	}
	p.queue = append(p.queue, farPiece{time.Now().Add(p.oneWay), append([]byte(nil), b...)})
	p.cond.Broadcast()
	return len(b), nil
}

func (c *farConn) Close() error {
	for _, p := range []*farPipe{c.r, c.w} {
		p.mu.Lock()
		p.closed = true
		p.cond.Broadcast()
		p.mu.Unlock()
	}
	return nil
}

func (c *farConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *farConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *farConn) SetDeadline(time.Time) error      { return nil }
func (c *farConn) SetReadDeadline(time.Time) error  { return nil }
func (c *farConn) SetWriteDeadline(time.Time) error { return nil }

// farTransfer sends size bytes up one tunnel of a path, reads them, and tells how many round trips that took.
func farTransfer(t *testing.T, oneWay time.Duration, scfg Config, size int) (trips float64, window uint32) {
	a, b := farPair(oneWay)
	accepted := make(chan *Stream, 1)
	server := NewServer(b, scfg, func(s *Stream) {
		if s.Respond() == nil {
			accepted <- s
		}
	})
	client := NewClient(a, Config{})
	s, err := client.Open(t.Context(), connect("10.0.0.1:80"))
	if err != nil {
		t.Fatal(err)
	}
	far := <-accepted
	start := time.Now()
	go func() {
		buf := make([]byte, 256<<10)
		for left := size; left > 0; left -= len(buf) {
			if _, err := s.Write(buf); err != nil {
				t.Error(err)
				return
			}
		}
		_ = s.CloseWrite()
	}()
	n, err := io.Copy(io.Discard, struct{ io.Reader }{far})
	if err != nil || n != int64(size) {
		t.Errorf("%d bytes came, %v", n, err)
	}
	trips = float64(time.Since(start)) / float64(2*oneWay)
	server.mu.Lock()
	window = far.window
	if server.unread != 0 {
		t.Errorf("%d bytes count as unread", server.unread)
	}
	server.mu.Unlock()
	_ = far.CloseWrite()
	<-s.Done()
	if server.growth != 0 {
		t.Errorf("streams that are gone count as grown by %d", server.growth)
	}
	client.Close()
	server.Close()
	return trips, window
}

func TestWindowFollowsTheRoundTrip(t *testing.T) {
	const size = 256 << 20
	synctest.Test(t, func(t *testing.T) {
		fixed, _ := farTransfer(t, 25*time.Millisecond, Config{MaxStreamWindow: 1}, size/8)
		if want := float64(size/8) / (512 << 10); fixed < want*0.9 {
			t.Fatalf("a fixed window took %.0f round trips; the path is not what this test thinks", fixed)
		}
		grown, window := farTransfer(t, 25*time.Millisecond, Config{}, size)
		// 512 KiB doubles to 64 MiB in seven, which carry 64 MiB; the rest takes four.
		if grown > 20 {
			t.Errorf("256 MiB took %.1f round trips, want at most 20", grown)
		}
		if window != 64<<20 {
			t.Errorf("the window ended at %d", window)
		}
	})
}

func TestWindowGrowthIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, window := farTransfer(t, 25*time.Millisecond, Config{MaxStreamWindow: 2 << 20}, 64<<20)
		if window != 2<<20 {
			t.Errorf("the window is %d, want the bound of 2 MiB", window)
		}
		_, window = farTransfer(t, 25*time.Millisecond, Config{MaxGrowth: 1 << 20}, 64<<20)
		if window > 512<<10+1<<20 {
			t.Errorf("the window is %d: more growth than all streams together may have", window)
		}
	})
}

// Who reads nothing gets no more than a window, and his neighbours go on.
func TestStalledTunnelsHoldAWindowEach(t *testing.T) {
	client, server, streams := pair(t, Config{}, Config{StreamWindow: 64 << 10, ConnWindow: 256 << 10})
	for range 16 { // four times the connection's window
		a, _ := tunnel(t, client, streams)
		go func() { _, _ = a.Write(make([]byte, 1<<20)) }()
	}
	a, b := tunnel(t, client, streams)
	go func() {
		_, _ = a.Write(make([]byte, 4<<20))
		_ = a.CloseWrite()
	}()
	if n, err := io.Copy(io.Discard, struct{ io.Reader }{b}); err != nil || n != 4<<20 {
		t.Errorf("%d bytes came beside stalled tunnels, %v", n, err)
	}
	server.mu.Lock()
	defer server.mu.Unlock()
	if limit := int64(16 * 64 << 10); server.unread > limit {
		t.Errorf("%d bytes wait for Read, want at most %d", server.unread, limit)
	}
}

// Beyond MaxUnread the connection's window stays with us, until somebody reads.
func TestUnreadBytesAreBounded(t *testing.T) {
	client, server, streams := pair(t, Config{}, Config{ConnWindow: 128 << 10, MaxUnread: 256 << 10})
	const tunnels, each = 8, 256 << 10
	var ends []*Stream
	for range tunnels {
		a, b := tunnel(t, client, streams)
		go func() {
			_, _ = a.Write(make([]byte, each))
			_ = a.CloseWrite()
		}()
		ends = append(ends, b)
	}
	var wg sync.WaitGroup
	for i, b := range ends {
		wg.Go(func() {
			n, err := io.Copy(io.Discard, struct{ io.Reader }{b})
			if err != nil || n != each {
				t.Errorf("tunnel %d gave %d bytes, %v", i, n, err)
			}
			server.mu.Lock()
			defer server.mu.Unlock()
			if limit := int64(256<<10 + 128<<10 + 128<<10/4); server.unread > limit {
				t.Errorf("%d bytes wait for Read, want at most %d", server.unread, limit)
			}
		})
	}
	wg.Wait()
}

// A large window is given back in small pieces: on a long path its sender needs it.
func TestCreditOfALargeWindow(t *testing.T) {
	const window, much = 32 << 20, 5 << 20
	client, server, streams := pair(t, Config{}, Config{StreamWindow: window, MaxStreamWindow: window})
	near, far := tunnel(t, client, streams)
	go func() { _, _ = near.Write(make([]byte, much)) }()
	if _, err := io.ReadFull(far, make([]byte, much)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the windows are nearly whole", func() bool {
		client.mu.Lock()
		defer client.mu.Unlock()
		return near.sendWindow > window-mostOwed && client.sendWindow > int64(server.cfg.connWindow())-mostOwed
	})
}
