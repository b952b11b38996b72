package h2

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/net/nettest"
)

// TestMain fails when a goroutine of the engine is left.
func TestMain(m *testing.M) {
	code := m.Run()
	for range 100 {
		buf := make([]byte, 1<<20)
		if !bytes.Contains(buf[:runtime.Stack(buf, true)], []byte("h2.(*")) {
			os.Exit(code)
		}
		time.Sleep(10 * time.Millisecond) // a real clock: goroutines on their way out
	}
	buf := make([]byte, 1<<20)
	os.Stderr.Write(buf[:runtime.Stack(buf, true)])
	os.Exit(1)
}

func connect(authority string) []hpack.HeaderField {
	return []hpack.HeaderField{{Name: ":method", Value: "CONNECT"}, {Name: ":authority", Value: authority}}
}

// tcpPair is a connected pair of TCP connections.
func tcpPair(t testing.TB) (net.Conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

// pair is a client and a server whose accepted streams come out of the channel, already answered.
func pair(t testing.TB, ccfg, scfg Config) (*Conn, *Conn, <-chan *Stream) {
	t.Helper()
	a, b := tcpPair(t)
	streams := make(chan *Stream, 1000)
	client := NewClient(a, ccfg)
	server := NewServer(b, scfg, func(s *Stream) {
		if err := s.Respond(); err == nil {
			streams <- s
		}
	})
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server, streams
}

// tunnel opens one stream; both ends come back.
func tunnel(t testing.TB, client *Conn, streams <-chan *Stream) (*Stream, *Stream) {
	t.Helper()
	s, err := client.Open(t.Context(), connect("10.0.0.1:80"))
	if err != nil {
		t.Fatal(err)
	}
	return s, <-streams
}

func write4(t testing.TB, w io.Writer) {
	t.Helper()
	if _, err := w.Write([]byte("four")); err != nil {
		t.Fatal(err)
	}
}

func read4(t testing.TB, r io.Reader) {
	t.Helper()
	var b [4]byte
	if _, err := io.ReadFull(r, b[:]); err != nil || string(b[:]) != "four" {
		t.Fatalf("read %q, %v", b, err)
	}
}

// eventually waits for what an end does by itself.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

func TestBytesArriveOnceAndInOrder(t *testing.T) {
	for name, cfg := range map[string]Config{
		"default windows": {},
		"tiny windows":    {StreamWindow: 1000, ConnWindow: 70000, MaxFrameSize: 16 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			client, _, streams := pair(t, cfg, cfg)
			var wg sync.WaitGroup
			for range 4 {
				a, b := tunnel(t, client, streams)
				for _, ends := range [][2]*Stream{{a, b}, {b, a}} {
					data := make([]byte, 3<<20)
					rand.Read(data)
					wg.Go(func() {
						for rest := data; len(rest) > 0; {
							n := min(len(rest), 1+len(rest)%70001)
							if _, err := ends[0].Write(rest[:n]); err != nil {
								t.Error(err)
								return
							}
							rest = rest[n:]
						}
						if err := ends[0].CloseWrite(); err != nil {
							t.Error(err)
						}
					})
					wg.Go(func() {
						h := sha256.New()
						if _, err := io.Copy(h, ends[1]); err != nil {
							t.Error(err)
						}
						if want := sha256.Sum256(data); !bytes.Equal(h.Sum(nil), want[:]) {
							t.Error("other bytes arrived")
						}
					})
				}
			}
			wg.Wait()
		})
	}
}

func TestNetConn(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		client, server, streams := pair(t, Config{}, Config{})
		a, b := tunnel(t, client, streams)
		return addressed{a}, addressed{b}, func() { client.Close(); server.Close() }, nil
	})
}

type addressed struct{ *Stream }

func (addressed) LocalAddr() net.Addr  { return &net.TCPAddr{} }
func (addressed) RemoteAddr() net.Addr { return &net.TCPAddr{} }

func TestHalfCloseLeavesTheOtherDirection(t *testing.T) {
	client, _, streams := pair(t, Config{}, Config{})
	for _, first := range []string{"client", "server"} {
		a, b := tunnel(t, client, streams)
		if first == "server" {
			a, b = b, a
		}
		if _, err := a.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := a.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(b); err != nil || string(got) != "x" {
			t.Fatalf("%s ended first: the other read %q, %v", first, got, err)
		}
		if _, err := a.Write([]byte("y")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write after CloseWrite: %v, want EPIPE", err)
		}
		want := bytes.Repeat([]byte("back"), 1<<18)
		go func() {
			if _, err := b.Write(want); err == nil {
				err = b.CloseWrite()
				if err != nil {
					t.Error(err)
				}
			}
		}()
		if got, err := io.ReadAll(a); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s ended first: %d bytes came back, %v", first, len(got), err)
		}
		<-a.Done()
		<-b.Done()
	}
}

func TestResetIsNeverACleanEnd(t *testing.T) {
	for _, code := range []http2.ErrCode{http2.ErrCodeNo, http2.ErrCodeCancel, http2.ErrCodeConnect} {
		client, _, streams := pair(t, Config{}, Config{})
		a, b := tunnel(t, client, streams)
		b.Reset(code)
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%v: read gave %v, want ECONNRESET", code, err)
		}
		if _, err := a.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%v: write gave %v, want ECONNRESET", code, err)
		}
	}
}

func TestResetAfterTheEndOnlyEndsSending(t *testing.T) {
	client, _, streams := pair(t, Config{}, Config{})
	a, b := tunnel(t, client, streams)
	if _, err := b.Write([]byte("all of it")); err != nil {
		t.Fatal(err)
	}
	b.Close() // END_STREAM, then RST_STREAM: nobody reads any more
	if got, err := io.ReadAll(a); err != nil || string(got) != "all of it" {
		t.Errorf("read %q, %v", got, err)
	}
	<-a.Done()
	if _, err := a.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write gave %v, want EPIPE", err)
	}
}

func TestLostConnectionIsAReset(t *testing.T) {
	client, server, streams := pair(t, Config{}, Config{})
	a, _ := tunnel(t, client, streams)
	server.nc.Close()
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read gave %v, want ECONNRESET", err)
	}
	<-client.Done()
	if _, err := client.Open(t.Context(), connect("a:1")); !errors.Is(err, ErrUnprocessed) {
		t.Errorf("open gave %v, want ErrUnprocessed", err)
	}
}

func TestRefusalCarriesTheStatus(t *testing.T) {
	a, b := tcpPair(t)
	client := NewClient(a, Config{})
	server := NewServer(b, Config{}, func(s *Stream) {
		if err := s.Refuse(401); err != nil {
			t.Error(err)
		}
	})
	defer server.Close()
	defer client.Close()
	_, err := client.Open(t.Context(), connect("a:1"))
	if e, ok := errors.AsType[*StatusError](err); !ok || e.Status != 401 {
		t.Errorf("open gave %v, want status 401", err)
	}
	if n := client.Streams(); n != 0 {
		t.Errorf("%d streams are left", n)
	}
}

func TestPeersLimitIsObeyed(t *testing.T) {
	client, _, _ := pair(t, Config{}, Config{MaxStreams: 3})
	<-client.Ready()
	for i := range 3 {
		if _, err := client.Open(t.Context(), connect("a:1")); err != nil {
			t.Fatalf("stream %d: %v", i, err)
		}
	}
	if _, err := client.Open(t.Context(), connect("a:1")); !errors.Is(err, ErrFull) {
		t.Errorf("stream 4 gave %v, want ErrFull", err)
	}
}

func TestDrainInTwoStepsLosesNothing(t *testing.T) {
	client, server, streams := pair(t, Config{}, Config{})
	a, b := tunnel(t, client, streams)
	drained := make(chan error, 1)
	go func() { drained <- server.Shutdown(t.Context()) }()
	<-client.GoingAway()
	if _, err := client.Open(t.Context(), connect("a:1")); !errors.Is(err, ErrUnprocessed) {
		t.Errorf("open gave %v, want ErrUnprocessed", err)
	}
	if _, err := a.Write([]byte("late")); err != nil {
		t.Error(err)
	}
	if err := a.CloseWrite(); err != nil {
		t.Error(err)
	}
	if got, err := io.ReadAll(b); err != nil || string(got) != "late" {
		t.Errorf("read %q, %v", got, err)
	}
	if err := b.CloseWrite(); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadAll(a); err != nil {
		t.Error(err)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

func TestOpenObeysTheContext(t *testing.T) {
	a, b := tcpPair(t)
	client := NewClient(a, Config{})
	reset := make(chan struct{})
	server := NewServer(b, Config{}, func(s *Stream) { <-s.Done(); close(reset) })
	defer server.Close()
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := client.Open(ctx, connect("a:1")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("open gave %v", err)
	}
	<-reset
}

func TestSilentPeerIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		go func() {
			fr := http2.NewFramer(b, b)
			if _, err := io.ReadFull(b, make([]byte, len(http2.ClientPreface))); err != nil {
				return
			}
			go fr.WriteSettings()
			for {
				if _, err := fr.ReadFrame(); err != nil {
					return
				}
			}
		}()
		start := time.Now()
		client := NewClient(a, Config{})
		<-client.Done()
		if d := time.Since(start); d < 25*time.Second || d > 41*time.Second {
			t.Errorf("given up after %v", d)
		}
		if err := client.Err(); err == nil || !strings.Contains(err.Error(), "PING") {
			t.Errorf("cause %v", err)
		}
		b.Close()
	})
}

// rawClient speaks frames to a Conn that is the server.
type rawClient struct {
	nc net.Conn
	fr *http2.Framer
}

func newRawClient(t *testing.T, cfg Config, accept func(*Stream)) (*rawClient, *Conn) {
	t.Helper()
	a, b := tcpPair(t)
	server := NewServer(b, cfg, accept)
	t.Cleanup(func() { a.Close(); server.Close() })
	r := &rawClient{nc: a}
	r.hello(t)
	return r, server
}

func (r *rawClient) hello(t testing.TB) {
	t.Helper()
	r.fr = http2.NewFramer(r.nc, r.nc)
	if _, err := io.WriteString(r.nc, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := r.fr.WriteSettings(); err != nil {
		t.Fatal(err)
	}
}

func block(fields ...hpack.HeaderField) []byte {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for _, f := range fields {
		_ = enc.WriteField(f)
	}
	return b.Bytes()
}

// wantGoAway reads until the GOAWAY with that code.
func (r *rawClient) wantGoAway(t *testing.T, code http2.ErrCode) {
	t.Helper()
	_ = r.nc.SetReadDeadline(time.Now().Add(10 * time.Second))
	for {
		f, err := r.fr.ReadFrame()
		if err != nil {
			t.Fatalf("no GOAWAY %v came: %v", code, err)
		}
		if g, ok := f.(*http2.GoAwayFrame); ok {
			if g.ErrCode != code {
				t.Errorf("GOAWAY %v (%s), want %v", g.ErrCode, g.DebugData(), code)
			}
			return
		}
	}
}

func TestMalformedPeersLoseTheConnection(t *testing.T) {
	tests := map[string]struct { // RFC 9113 sections in the names
		send func(r *rawClient)
		code http2.ErrCode
	}{
		"5.1 DATA on an idle stream":          {func(r *rawClient) { _ = r.fr.WriteData(1, false, []byte("x")) }, http2.ErrCodeProtocol},
		"5.1.1 an even stream":                {func(r *rawClient) { r.open(2) }, http2.ErrCodeProtocol},
		"6.1 DATA on stream 0":                {func(r *rawClient) { r.raw(0, 0, 0, 0, 0, 0, 0, 0, 0) }, http2.ErrCodeProtocol},
		"6.4 RST_STREAM on an idle stream":    {func(r *rawClient) { _ = r.fr.WriteRSTStream(9, http2.ErrCodeCancel) }, http2.ErrCodeProtocol},
		"6.9 WINDOW_UPDATE on an idle stream": {func(r *rawClient) { _ = r.fr.WriteWindowUpdate(9, 1) }, http2.ErrCodeProtocol},
		"6.9.1 the window overflows":          {func(r *rawClient) { _ = r.fr.WriteWindowUpdate(0, 1<<31-1) }, http2.ErrCodeFlowControl},
		"4.2 a frame beyond the limit":        {func(r *rawClient) { r.raw(0x20, 0, 0, 0, 0, 0, 0, 0, 1) }, http2.ErrCodeFrameSize},
		"6.10 CONTINUATION out of nowhere":    {func(r *rawClient) { _ = r.fr.WriteContinuation(1, true, nil) }, http2.ErrCodeProtocol},
		"8.4 PUSH_PROMISE":                    {func(r *rawClient) { r.raw(0, 0, 4, 5, 4, 0, 0, 0, 1, 0, 0, 0, 2) }, http2.ErrCodeProtocol},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r, _ := newRawClient(t, Config{}, func(*Stream) {})
			tt.send(r)
			r.wantGoAway(t, tt.code)
		})
	}
}

func (r *rawClient) raw(b ...byte) { _, _ = r.nc.Write(b) }

func (r *rawClient) open(id uint32) {
	_ = r.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, BlockFragment: block(connect("10.0.0.1:80")...)})
}

func TestFloodsEnd(t *testing.T) {
	tests := map[string]func(r *rawClient, i int) error{
		"rapid reset": func(r *rawClient, i int) error {
			r.open(uint32(2*i + 1))
			return r.fr.WriteRSTStream(uint32(2*i+1), http2.ErrCodeCancel)
		},
		"PING":     func(r *rawClient, _ int) error { return r.fr.WritePing(false, [8]byte{}) },
		"SETTINGS": func(r *rawClient, _ int) error { return r.fr.WriteSettings() },
		"PRIORITY": func(r *rawClient, _ int) error {
			return r.fr.WritePriority(1, http2.PriorityParam{StreamDep: 3})
		},
		"refused streams": func(r *rawClient, i int) error { r.open(uint32(2*i + 1)); return nil },
		"empty DATA": func(r *rawClient, i int) error {
			if i == 0 {
				r.open(1)
			}
			return r.fr.WriteData(1, false, nil)
		},
	}
	for name, send := range tests {
		t.Run(name, func(t *testing.T) {
			r, server := newRawClient(t, Config{}, func(s *Stream) { <-s.Done() })
			go io.Copy(io.Discard, r.nc)
			for i := range 100_000 {
				if send(r, i) != nil {
					break
				}
			}
			select {
			case <-server.dead:
			case <-time.After(10 * time.Second):
				t.Fatal("the peer is still served")
			}
			if _, ok := errors.AsType[*connError](server.Err()); !ok {
				t.Errorf("ended by %v", server.Err())
			}
		})
	}
}

func TestSmallPacketsAreNoFlood(t *testing.T) {
	client, server, streams := pair(t, Config{}, Config{})
	a, b := tunnel(t, client, streams)
	go func() {
		buf := make([]byte, 64)
		for {
			n, err := b.Read(buf)
			if err != nil {
				return
			}
			if _, err := b.Write(buf[:n]); err != nil {
				return
			}
		}
	}()
	one := make([]byte, 1)
	for i := range 30_000 {
		if _, err := a.Write(one); err != nil {
			t.Fatalf("packet %d: %v", i, err)
		}
		if _, err := io.ReadFull(a, one); err != nil {
			t.Fatalf("packet %d: %v", i, err)
		}
	}
	if err := errors.Join(client.Err(), server.Err()); err != nil {
		t.Error(err)
	}
}

// A sender gets nothing but WINDOW_UPDATEs.
func TestWindowUpdatesOfALongUploadAreNoFlood(t *testing.T) {
	client, server, streams := pair(t, Config{}, Config{StreamWindow: 4 << 10, MaxStreamWindow: 1})
	a, b := tunnel(t, client, streams)
	go io.Copy(io.Discard, b)
	buf := make([]byte, 64<<10)
	for range 30_000 * 1 << 10 / len(buf) { // three times what a peer may send for nothing
		if _, err := a.Write(buf); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(client.Err(), server.Err()); err != nil {
		t.Error(err)
	}
}

func TestMoreThanTheWindowIsRefused(t *testing.T) {
	accepted := make(chan *Stream, 1)
	r, _ := newRawClient(t, Config{StreamWindow: 10}, func(s *Stream) { accepted <- s })
	r.open(1)
	s := <-accepted
	_ = r.fr.WriteData(1, false, make([]byte, 11))
	if _, err := io.ReadAll(s); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read gave %v, want ECONNRESET", err)
	}
}

func TestGoAwayLeavesCoveredStreams(t *testing.T) {
	a, b := tcpPair(t)
	client := NewClient(a, Config{})
	defer client.Close()
	defer b.Close()
	fr := http2.NewFramer(b, b)
	go func() {
		if _, err := io.ReadFull(b, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		_ = fr.WriteSettings()
		opened := 0
		for opened < 2 {
			f, err := fr.ReadFrame()
			if err != nil {
				return
			}
			if h, ok := f.(*http2.HeadersFrame); ok {
				if opened++; h.StreamID == 1 {
					_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: block(hpack.HeaderField{Name: ":status", Value: "200"})})
				}
			}
		}
		_ = fr.WriteGoAway(1, http2.ErrCodeNo, nil)
		_ = fr.WriteData(1, true, []byte("still here"))
	}()
	first, err := client.Open(t.Context(), connect("a:1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Open(t.Context(), connect("a:1")); !errors.Is(err, ErrUnprocessed) {
		t.Errorf("the second stream gave %v, want ErrUnprocessed", err)
	}
	if got, err := io.ReadAll(first); err != nil || string(got) != "still here" {
		t.Errorf("read %q, %v", got, err)
	}
}
