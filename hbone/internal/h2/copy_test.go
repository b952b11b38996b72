package h2

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/internal/bufpool"
	"golang.org/x/net/http2"
)

// forwarded is a client's stream whose other end is joined to a TCP connection with Join, or with ReadFrom and WriteTo; the far end of that comes
// back.
func forwarded(t testing.TB, join bool, bufs int) (*Stream, net.Conn) {
	t.Helper()
	app, backend := tcpPair(t)
	// Small buffers, so that the sink is full now and then.
	for _, c := range []net.Conn{app, backend} {
		_ = c.(*net.TCPConn).SetReadBuffer(bufs)
		_ = c.(*net.TCPConn).SetWriteBuffer(bufs)
	}
	client, _ := gathered(t, Config{}, Config{}, func(s *Stream) {
		_ = s.Respond()
		if join {
			if !s.Join(backend) {
				t.Error("it cannot be joined")
			}
			return
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := s.WriteTo(backend); err == nil {
				_ = backend.(*net.TCPConn).CloseWrite()
			} else {
				_ = backend.(*net.TCPConn).SetLinger(0)
				backend.Close()
			}
		})
		if _, err := s.ReadFrom(backend); err == nil {
			_ = s.CloseWrite()
		}
		wg.Wait()
		s.Close()
		backend.Close()
	})
	s, err := client.Open(t.Context(), connect("10.0.0.1:80"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { app.Close() })
	return s, app
}

// ways are those in which forwarded can do it here.
func ways() map[string]bool {
	if runtime.GOOS != "linux" {
		return map[string]bool{"copied": false}
	}
	return map[string]bool{"copied": false, "joined": true}
}

func TestForwardedBytesArriveOnceAndInOrder(t *testing.T) {
	for name, join := range ways() {
		t.Run(name, func(t *testing.T) { forwardMuch(t, join) })
	}
}

func forwardMuch(t *testing.T, join bool) {
	s, app := forwarded(t, join, 256<<10)
	data := make([]byte, 8<<20)
	_, _ = rand.Read(data)
	want := sha256.Sum256(data)
	var wg sync.WaitGroup
	for name, ends := range map[string]struct {
		w interface {
			io.Writer
			CloseWrite() error
		}
		r io.Reader
	}{"up": {s, app}, "down": {app.(*net.TCPConn), s}} {
		wg.Go(func() {
			for rest := data; len(rest) > 0; {
				n := min(len(rest), 1+len(rest)%300_007)
				if _, err := ends.w.Write(rest[:n]); err != nil {
					t.Error(name, err)
					return
				}
				rest = rest[n:]
			}
			if err := ends.w.CloseWrite(); err != nil {
				t.Error(name, err)
			}
		})
		wg.Go(func() {
			h := sha256.New()
			buf := make([]byte, 33_333)
			for {
				n, err := ends.r.Read(buf)
				h.Write(buf[:n])
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Error(name, err)
					return
				}
			}
			if !bytes.Equal(h.Sum(nil), want[:]) {
				t.Errorf("%s: other bytes arrived", name)
			}
		})
	}
	wg.Wait()
}

// Streams that end in the middle of a transfer, in any way, give back every buffer.
func TestBuffersComeBack(t *testing.T) {
	bufpool.Track(true)
	defer bufpool.Track(false)
	client, server, streams := pair(t, Config{}, Config{})
	var wg sync.WaitGroup
	for i := range 12 {
		a, b := tunnel(t, client, streams)
		wg.Go(func() {
			for { // until the other end has enough
				if _, err := a.Write(make([]byte, 100+i*20_000)); err != nil {
					break
				}
			}
			a.Close()
		})
		wg.Go(func() {
			buf := make([]byte, 3000)
			for range 1 + i*10 {
				if _, err := b.Read(buf); err != nil {
					t.Error(err)
				}
			}
			if i%2 == 0 {
				b.Reset(http2.ErrCodeCancel)
			}
			b.Close()
		})
	}
	wg.Wait()
	client.Close()
	server.Close()
	if n := bufpool.Out(); n != 0 {
		t.Errorf("%d buffers did not come back", n)
	}
}

func TestResetIsForwardedAsOne(t *testing.T) {
	for name, join := range ways() {
		t.Run(name, func(t *testing.T) {
			s, app := forwarded(t, join, 256<<10)
			if _, err := s.Write([]byte("part")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(app, make([]byte, 4)); err != nil {
				t.Fatal(err)
			}
			s.Reset(0)
			if _, err := app.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read gave %v, want ECONNRESET", err)
			}
		})
	}
}

// Somebody else's Write to where WriteTo writes may wait for long. The tunnels beside it do not.
func TestWriteToBesideAWriteThatWaits(t *testing.T) {
	client, _, streams := pair(t, Config{}, Config{})
	near, far := tunnel(t, client, streams)
	beside, echo := tunnel(t, client, streams)
	go func() { _, _ = io.Copy(struct{ io.Writer }{echo}, struct{ io.Reader }{echo}) }()
	app, to := tcpPair(t)
	_ = app.(*net.TCPConn).SetReadBuffer(4 << 10)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer near.Close()
	defer to.Close()
	defer app.Close()
	wg.Go(func() { _, _ = far.WriteTo(to) })
	wg.Go(func() { _, _ = to.Write(make([]byte, 16<<20)) })
	_ = beside.SetDeadline(time.Now().Add(5 * time.Second))
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
		write4(t, near)
		write4(t, beside)
		read4(t, beside)
	}
}

func BenchmarkForward(b *testing.B) {
	for name, join := range ways() {
		b.Run(name, func(b *testing.B) { benchmarkForward(b, join) })
	}
}

func benchmarkForward(b *testing.B, join bool) {
	for _, dir := range []string{"up", "down"} {
		b.Run(dir, func(b *testing.B) {
			s, app := forwarded(b, join, 4<<20)
			var w io.Writer = s
			var r io.Reader = app
			stop := s.CloseWrite
			if dir == "down" {
				w, r, stop = app, s, app.(*net.TCPConn).CloseWrite
			}
			end := make(chan int64, 1)
			go drain(r, end)
			pump(b, w, 64<<10, stop, end)
		})
	}
	b.Run("echo", func(b *testing.B) {
		s, app := forwarded(b, join, 4<<20)
		go func() { _, _ = io.Copy(struct{ io.Writer }{app}, struct{ io.Reader }{app}) }()
		buf := make([]byte, 100)
		start := cpuTime(b)
		for b.Loop() {
			if _, err := s.Write(buf); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(s, buf); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64((cpuTime(b)-start).Microseconds())/float64(b.N), "cpu-µs/op")
	})
}
