//go:build linux

package h2

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/internal/bufpool"
	"golang.org/x/net/http2"
)

// joinery is a connection whose server joins each stream with a socket; the far ends of these come out of apps in the order of the streams.
type joinery struct {
	client, server *Conn
	apps           chan *net.TCPConn
}

func newJoinery(t testing.TB, ccfg Config) *joinery { return newJoineryOf(t, ccfg, Config{}) }

func newJoineryOf(t testing.TB, ccfg, scfg Config) *joinery {
	j := &joinery{apps: make(chan *net.TCPConn, 4096)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	j.client, j.server = gathered(t, ccfg, scfg, func(s *Stream) {
		backend, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Error(err)
			s.Reset(http2.ErrCodeConnect)
			return
		}
		if scfg.LeftoverTimeout > 0 {
			_ = backend.(*net.TCPConn).SetWriteBuffer(16 << 10) // what is left is left in the tunnel
		}
		app, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		j.apps <- app.(*net.TCPConn)
		if err := s.Respond(); err != nil || !s.Join(backend) {
			abortive(backend)
		}
	})
	return j
}

// open gives both ends of a tunnel.
func (j *joinery) open(t testing.TB) (*Stream, *net.TCPConn) {
	t.Helper()
	s, err := j.client.Open(t.Context(), connect("10.0.0.1:80"))
	if err != nil {
		t.Fatal(err)
	}
	return s, <-j.apps
}

func abortive(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0)
	c.Close()
}

// sockets is how many sockets this process has.
func sockets(t testing.TB) (n int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && len(to) > 7 && to[:7] == "socket:" {
			n++
		}
	}
	return n
}

// held is how many sockets the server's tunnels are joined with.
func (j *joinery) held() int {
	j.server.mu.Lock()
	defer j.server.mu.Unlock()
	if j.server.joined == nil {
		return 0
	}
	return j.server.joined.count
}

// wantEnd reads to the end, which must be err; nil is a clean one.
func wantEnd(t testing.TB, r io.Reader, err error) {
	t.Helper()
	if _, got := io.Copy(io.Discard, struct{ io.Reader }{r}); !errors.Is(got, err) {
		t.Errorf("the end is %v, want %v", got, err)
	}
}

// Every ending of one side is what the other side sees, and leaves no socket.
func TestEndingsOfJoinedTunnels(t *testing.T) {
	tests := map[string]func(t *testing.T, s *Stream, app *net.TCPConn){
		"the client ends first": func(t *testing.T, s *Stream, app *net.TCPConn) {
			_ = s.CloseWrite()
			wantEnd(t, app, nil)
			write4(t, app)
			read4(t, s)
			app.Close()
			wantEnd(t, s, nil)
			s.Close()
		},
		"the application ends first": func(t *testing.T, s *Stream, app *net.TCPConn) {
			_ = app.CloseWrite()
			wantEnd(t, s, nil)
			write4(t, s)
			read4(t, app)
			_ = s.CloseWrite()
			wantEnd(t, app, nil)
			app.Close()
			s.Close()
		},
		"bytes and the end at once, up": func(t *testing.T, s *Stream, app *net.TCPConn) {
			write4(t, s)
			_ = s.CloseWrite()
			read4(t, app)
			wantEnd(t, app, nil)
			app.Close()
			wantEnd(t, s, nil)
		},
		"bytes and the end at once, down": func(t *testing.T, s *Stream, app *net.TCPConn) {
			write4(t, app)
			app.Close()
			read4(t, s)
			wantEnd(t, s, nil)
			s.Close()
		},
		"the client resets": func(t *testing.T, s *Stream, app *net.TCPConn) {
			s.Reset(http2.ErrCodeCancel)
			wantEnd(t, app, syscall.ECONNRESET)
			app.Close()
		},
		"the application resets": func(t *testing.T, s *Stream, app *net.TCPConn) {
			abortive(app)
			wantEnd(t, s, syscall.ECONNRESET)
		},
		"the application resets after the client's end": func(t *testing.T, s *Stream, app *net.TCPConn) {
			_ = s.CloseWrite()
			wantEnd(t, app, nil)
			abortive(app)
			wantEnd(t, s, syscall.ECONNRESET)
		},
		"the client resets after the application's end": func(t *testing.T, s *Stream, app *net.TCPConn) {
			_ = app.CloseWrite()
			wantEnd(t, s, nil)
			s.Reset(http2.ErrCodeCancel)
			if _, err := app.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read gave %v, want ECONNRESET", err)
			}
			app.Close()
		},
		"the client closes, and the application talks on": func(t *testing.T, s *Stream, app *net.TCPConn) {
			write4(t, s)
			s.Close()
			for range 100 {
				if _, err := app.Write(make([]byte, 10_000)); err != nil {
					t.Fatal(err)
				}
			}
			read4(t, app)
			wantEnd(t, app, nil)
			app.Close()
		},
		"the client closes while nobody reads": func(t *testing.T, s *Stream, app *net.TCPConn) {
			if _, err := s.Write(make([]byte, 400_000)); err != nil {
				t.Fatal(err)
			}
			s.Close()
			if n, err := io.Copy(io.Discard, struct{ io.Reader }{app}); n != 400_000 || err != nil {
				t.Errorf("%d bytes arrived: %v", n, err)
			}
			app.Close()
		},
	}
	before := sockets(t)
	t.Run("all", func(t *testing.T) {
		j := newJoinery(t, Config{})
		for name, end := range tests {
			t.Run(name, func(t *testing.T) {
				for range 20 { // the order of events is not always the same
					s, app := j.open(t)
					end(t, s, app)
				}
			})
		}
		eventually(t, "all sockets are closed", func() bool { return j.held() == 0 })
		j.server.mu.Lock()
		defer j.server.mu.Unlock()
		if n := len(j.server.joined.adrift) + len(j.server.streams); n > 0 || j.server.handlers > 0 {
			t.Errorf("%d streams and %d handlers are left", n, j.server.handlers)
		}
	})
	eventually(t, "no socket is left", func() bool { return sockets(t) <= before })
}

// When the connection is lost, an application that has not been told of the end must not take what it got for all.
func TestJoinedTunnelsEndWithTheirConnection(t *testing.T) {
	before := sockets(t)
	j := newJoinery(t, Config{})
	var apps []*net.TCPConn
	for range 10 {
		s, app := j.open(t)
		write4(t, s)
		read4(t, app)
		apps = append(apps, app)
	}
	j.server.Close()
	for _, app := range apps {
		wantEnd(t, app, syscall.ECONNRESET)
		app.Close()
	}
	j.client.Close()
	eventually(t, "no socket is left but the listener", func() bool { return sockets(t) <= before+1 })
}

// A drain lets joined tunnels go on, and waits for what is still to be given to the application.
func TestShutdownWaitsForJoinedTunnels(t *testing.T) {
	j := newJoinery(t, Config{})
	s, app := j.open(t)
	down := make(chan error, 1)
	go func() { down <- j.server.Shutdown(t.Context()) }()
	<-j.client.GoingAway()
	write4(t, app)
	read4(t, s)
	if _, err := s.Write(make([]byte, 400_000)); err != nil {
		t.Fatal(err)
	}
	s.Close()
	select {
	case err := <-down:
		t.Fatalf("Shutdown returned %v before the application had all", err)
	case <-time.After(50 * time.Millisecond): // a real clock: the kernel is part of this
	}
	if n, err := io.Copy(io.Discard, struct{ io.Reader }{app}); n != 400_000 || err != nil {
		t.Errorf("%d bytes arrived: %v", n, err)
	}
	app.Close()
	if err := <-down; err != nil {
		t.Error(err)
	}
}

// Somebody has made the descriptor blocking: nobody may wait in the kernel for it.
func TestASocketThatBlocksIsJoined(t *testing.T) {
	app, backend := tcpPair(t)
	file, err := backend.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	file.Fd() // makes it so
	file.Close()
	client, _ := gathered(t, Config{}, Config{}, func(s *Stream) {
		if _ = s.Respond(); !s.Join(backend) {
			t.Error("it cannot be joined")
		}
	})
	s, err := client.Open(t.Context(), connect("10.0.0.1:80"))
	if err != nil {
		t.Fatal(err)
	}
	write4(t, app)
	read4(t, s)
	write4(t, s)
	read4(t, app)
	app.Close()
	wantEnd(t, s, nil)
}

// An application that sends to nobody for ever is ended.
func TestASocketThatSendsToNobodyEnds(t *testing.T) {
	j := newJoinery(t, Config{})
	s, app := j.open(t)
	s.Close()
	wantEnd(t, app, nil)
	var f *forward
	eventually(t, "it sends to nobody", func() bool {
		j.server.mu.Lock()
		defer j.server.mu.Unlock()
		for _, s := range j.server.joined.adrift {
			f = s.forward()
		}
		return f != nil && f.timer != nil
	})
	if !f.timer.Stop() {
		t.Error("the timer has run out at once")
	}
	eventually(t, "the end has arrived", func() bool { return outq(f.fd) == 0 }) // TCP counts it as a byte, and who takes bytes goes on
	f.expire()
	for {
		if _, err := app.Write(make([]byte, 1000)); err != nil {
			if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
				t.Error(err)
			}
			break
		}
	}
	app.Close()
	if n := j.held(); n != 0 {
		t.Errorf("%d sockets are left", n)
	}
}

// Applications that send to tunnels whose windows are closed are not read from, and hold no buffer; all arrives in the end.
func TestStalledTunnelsHoldNothing(t *testing.T) {
	const tunnels, window, each = 1000, 4 << 10, 40_000
	j := newJoinery(t, Config{StreamWindow: window, MaxStreamWindow: window})
	type end struct {
		s   *Stream
		app *net.TCPConn
	}
	var ends []end
	for range tunnels {
		s, app := j.open(t)
		ends = append(ends, end{s, app})
	}
	idle := runtime.NumGoroutine()
	bufpool.Track(true)
	defer bufpool.Track(false)
	for _, e := range ends {
		if _, err := e.app.Write(make([]byte, each)); err != nil { // the kernel holds it
			t.Fatal(err)
		}
	}
	eventually(t, "all windows are full", func() bool { return j.client.Stats().BytesIn == tunnels*window })
	eventually(t, "the server has nothing to do", func() bool {
		j.server.mu.Lock()
		defer j.server.mu.Unlock()
		return !j.server.out.flushing
	})
	// What a window holds waits at the client, in buffers of 4 KiB that may be begun one behind another.
	if n := bufpool.Out(); n > 5*tunnels {
		t.Errorf("%d buffers are lent", n)
	}
	j.server.mu.Lock()
	for _, s := range j.server.streams {
		if s.in.n > 0 || s.forward().reading {
			t.Errorf("stream %d holds %d bytes", s.id, s.in.n)
		}
	}
	j.server.mu.Unlock()
	if n := runtime.NumGoroutine(); n > idle+2 {
		t.Errorf("%d goroutines more", n-idle)
	}
	var wg sync.WaitGroup
	for _, e := range ends {
		wg.Go(func() {
			_ = e.app.CloseWrite()
			if n, err := io.Copy(io.Discard, struct{ io.Reader }{e.s}); n != each || err != nil {
				t.Errorf("%d bytes arrived: %v", n, err)
			}
			e.s.Close()
			wantEnd(t, e.app, nil)
			e.app.Close()
		})
	}
	wg.Wait()
}

// What an application does not read is bounded by the window of its tunnel, and keeps no other waiting.
func TestAnApplicationThatDoesNotReadStopsItsTunnel(t *testing.T) {
	j := newJoinery(t, Config{})
	s, app := j.open(t)
	sent := make(chan error, 1)
	const much = 32 << 20
	go func() {
		_, err := s.Write(make([]byte, much))
		_ = s.CloseWrite()
		sent <- err
	}()
	last := uint64(0)
	eventually(t, "it stops", func() bool {
		time.Sleep(20 * time.Millisecond)
		in := j.server.Stats().BytesIn
		still := in == last && in > 0
		last = in
		return still
	})
	if last > 16<<20 {
		t.Errorf("%d bytes were taken", last)
	}
	other, otherApp := j.open(t)
	write4(t, other)
	read4(t, otherApp)
	write4(t, otherApp)
	read4(t, other)
	otherApp.Close()
	if n, err := io.Copy(io.Discard, struct{ io.Reader }{app}); n != much || err != nil {
		t.Errorf("%d bytes arrived: %v", n, err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	app.Close()
	wantEnd(t, s, nil)
}

// A tunnel that does nothing has no goroutine and no buffer.
func TestIdleJoinedTunnelsHaveNoGoroutine(t *testing.T) {
	const tunnels = 200
	j := newJoinery(t, Config{})
	j.open(t)
	bufpool.Track(true)
	defer bufpool.Track(false)
	before := runtime.NumGoroutine()
	for range tunnels {
		s, app := j.open(t)
		write4(t, s)
		read4(t, app)
		write4(t, app)
		read4(t, s)
	}
	eventually(t, "goroutines end", func() bool { return runtime.NumGoroutine() <= before })
	if n := bufpool.Out(); n > 4 { // those of the two readers
		t.Errorf("%d buffers are lent", n)
	}
}

// Tunnels whose ends do what they like, at the same time, over one connection with small windows.
func TestManyJoinedTunnels(t *testing.T) {
	before := sockets(t)
	t.Run("all", func(t *testing.T) {
		j := newJoinery(t, Config{StreamWindow: 20_000, ConnWindow: 70_000})
		var wg sync.WaitGroup
		for i := range 64 {
			s, app := j.open(t)
			size := 1 + i*i*311
			copyBoth := func(w io.Writer, r io.Reader, end func() error) {
				wg.Go(func() {
					if _, err := w.Write(pattern(size)); err != nil {
						t.Error(err)
					}
					_ = end()
				})
				wg.Go(func() {
					b, err := io.ReadAll(struct{ io.Reader }{r})
					if err != nil || string(b) != string(pattern(size)) {
						t.Errorf("%d bytes of %d came: %v", len(b), size, err)
					}
				})
			}
			copyBoth(s, app, s.CloseWrite)
			copyBoth(app, s, app.CloseWrite)
			t.Cleanup(func() { app.Close(); s.Close() })
		}
		for i := range 64 {
			s, app := j.open(t)
			wg.Go(func() {
				defer app.Close()
				_, _ = s.Write(make([]byte, i*1000))
				if i%2 == 0 {
					s.Reset(http2.ErrCodeCancel)
				} else {
					abortive(app)
				}
				_, _ = io.Copy(io.Discard, struct{ io.Reader }{s})
				s.Close()
			})
		}
		wg.Wait()
	})
	eventually(t, "no socket is left", func() bool { return sockets(t) <= before })
}

// pattern is n bytes that differ.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7 >> 3)
	}
	return b
}
