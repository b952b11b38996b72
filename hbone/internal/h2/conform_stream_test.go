package h2_test

import (
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/hbonetest"
	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
	"golang.org/x/net/http2"
)

// Violations that end one stream: RST_STREAM with the code (section 5.4.2), the tunnel reads a reset, the connection and a
// second tunnel on it go on.
func TestConformanceStreamErrors(t *testing.T) {
	tests := []struct {
		name string
		send []hbonetest.Frame
		code http2.ErrCode
	}{
		{"6.9 WINDOW_UPDATE of 0", []hbonetest.Frame{hbonetest.WindowUpdate{Stream: 1}}, http2.ErrCodeProtocol},
		{"6.9.1 the stream's window overflows", []hbonetest.Frame{hbonetest.WindowUpdate{Stream: 1, Increment: 1<<31 - 1}}, http2.ErrCodeFlowControl},
		{"6.9.1 more than the stream's window", []hbonetest.Frame{hbonetest.Data{Stream: 1, Bytes: make([]byte, 1001)}}, http2.ErrCodeFlowControl},
		{"6.9.1 padding beyond the stream's window", []hbonetest.Frame{hbonetest.Data{Stream: 1, Bytes: make([]byte, 900), Pad: 200}}, http2.ErrCodeFlowControl},
		{"8.1 trailers without END_STREAM", []hbonetest.Frame{hbonetest.Headers{Stream: 1, Fields: fields("a", "b")}}, http2.ErrCodeProtocol},
		{"8.1 trailers with a pseudo-header", []hbonetest.Frame{hbonetest.Headers{Stream: 1, Fields: fields(":status", "200"), End: true}}, http2.ErrCodeProtocol},
		{"8.1 trailers with :method", []hbonetest.Frame{hbonetest.Headers{Stream: 1, Fields: fields(":method", "CONNECT"), End: true}}, http2.ErrCodeProtocol},
		{"8.2.1 trailers with an upper-case name", []hbonetest.Frame{hbonetest.Headers{Stream: 1, Fields: fields("A", "b"), End: true}}, http2.ErrCodeProtocol},
	}
	for _, tt := range tests {
		for role, begin := range roles {
			t.Run(tt.name+", "+role, func(t *testing.T) {
				w := begin(t, h2.Config{StreamWindow: 1000})
				w.p.Send(tt.send...)
				w.p.WantReset(1, tt.code)
				wantLost(t, w.s)
				if _, err := w.s.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("write gave %v, want ECONNRESET", err)
				}
				w.p.WantQuiet()
				if n := w.c.Streams(); n != 0 {
					t.Errorf("%d streams are left", n)
				}
				if err := w.c.Err(); err != nil {
					t.Errorf("the connection ended: %v", err)
				}
			})
		}
	}
}

// A side that has sent END_STREAM may still send WINDOW_UPDATE, PRIORITY and RST_STREAM, and nothing else.
func TestConformance5_1HalfClosedRemote(t *testing.T) {
	tests := map[string]struct {
		send hbonetest.Frame
		ok   bool
	}{
		"WINDOW_UPDATE": {hbonetest.WindowUpdate{Stream: 1, Increment: 9}, true},
		"PRIORITY":      {hbonetest.Priority{Stream: 1, Weight: 1}, true},
		"DATA":          {hbonetest.Data{Stream: 1, Bytes: []byte("x")}, false},
		"empty DATA":    {hbonetest.Data{Stream: 1}, false},
		"a second end":  {hbonetest.Data{Stream: 1, End: true}, false},
		"HEADERS":       {hbonetest.Headers{Stream: 1, Fields: fields("a", "b")}, false},
		"trailers":      {hbonetest.Headers{Stream: 1, Fields: fields("a", "b"), End: true}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			inBothRoles(t, h2.Config{}, func(t *testing.T, w world) {
				w.p.Send(hbonetest.Data{Stream: 1, Bytes: []byte("all"), End: true})
				wantRead(t, w.s, "all")
				w.p.Send(tt.send)
				if tt.ok {
					w.p.WantQuiet()
					if _, err := w.s.Write([]byte("y")); err != nil {
						t.Fatal(err)
					}
					w.p.WantData(1, []byte("y"))
					return
				}
				wantStreamClosed(t, w.p, 1)
				// What had ended cleanly has ended cleanly.
				if _, err := w.s.Read(make([]byte, 1)); err != io.EOF && !errors.Is(err, syscall.ECONNRESET) { //nolint:errorlint // io.EOF is never wrapped
					t.Errorf("read gave %v", err)
				}
			})
		})
	}
}

// wantStreamClosed reads RST_STREAM or GOAWAY; both may answer a frame after END_STREAM. CONNECT allows no HEADERS at all: there
// PROTOCOL_ERROR is as right.
func wantStreamClosed(t *testing.T, p *hbonetest.Peer, stream uint32) {
	t.Helper()
	for {
		f, err := p.Next()
		if err != nil {
			t.Fatalf("want STREAM_CLOSED: %v", err)
		}
		var code http2.ErrCode
		switch f := f.(type) {
		case hbonetest.Reset:
			if f.Stream != stream {
				t.Fatalf("stream %d was reset", f.Stream)
			}
			code = f.Code
		case hbonetest.GoAway:
			code = f.Code
		default:
			continue
		}
		if code != http2.ErrCodeStreamClosed && code != http2.ErrCodeProtocol {
			t.Errorf("the code is %v, want STREAM_CLOSED", code)
		}
		return
	}
}

// A stream that both sides have ended, or that the peer has reset.
func TestConformance5_1Closed(t *testing.T) {
	tests := map[string]struct {
		send hbonetest.Frame
		ok   bool
	}{
		"WINDOW_UPDATE": {hbonetest.WindowUpdate{Stream: 1, Increment: 9}, true},
		"RST_STREAM":    {hbonetest.Reset{Stream: 1}, true},
		"PRIORITY":      {hbonetest.Priority{Stream: 1}, true},
		"DATA":          {hbonetest.Data{Stream: 1, Bytes: []byte("x")}, false},
		"END_STREAM":    {hbonetest.Data{Stream: 1, End: true}, false},
		"HEADERS":       {hbonetest.Headers{Stream: 1, Fields: fields("a", "b"), End: true}, false},
	}
	ends := map[string]func(t *testing.T, w world){
		"both have ended it": func(t *testing.T, w world) {
			w.p.Send(hbonetest.Data{Stream: 1, End: true})
			wantRead(t, w.s, "")
			if err := w.s.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			w.p.WantEnd(1)
			<-w.s.Done()
		},
		"the peer has reset it": func(t *testing.T, w world) {
			w.p.Send(hbonetest.Reset{Stream: 1, Code: http2.ErrCodeCancel})
			<-w.s.Done()
		},
	}
	for name, tt := range tests {
		for how, end := range ends {
			t.Run(name+", "+how, func(t *testing.T) {
				inBothRoles(t, h2.Config{}, func(t *testing.T, w world) {
					end(t, w)
					w.p.Send(tt.send)
					if tt.ok {
						w.p.WantQuiet()
						return
					}
					wantStreamClosed(t, w.p, 1)
					if n := w.c.Streams(); n != 0 {
						t.Errorf("%d streams are open", n)
					}
				})
			})
		}
	}
}

// A refusal of a CONNECT whose sender has ended his side leaves nothing to reset: RST_STREAM would be a frame on a closed stream.
func TestConformance5_1RefusalOfAnEndedStream(t *testing.T) {
	p, c, streams := asServer(t, h2.Config{})
	p.Send(hbonetest.Headers{Stream: 1, Fields: hbonetest.Connect(target), End: true})
	if err := next(t, streams).Refuse(403); err != nil {
		t.Fatal(err)
	}
	p.WantAnswer(1, 403)
	p.WantQuiet()
	p.Send(hbonetest.Open(3, target))
	if err := next(t, streams).Refuse(403); err != nil {
		t.Fatal(err)
	}
	p.WantAnswer(3, 403)
	p.WantReset(3, http2.ErrCodeNo) // he may stop sending (section 8.1)
	wantHealthy(t, c)
}

// Frames that were on their way when we reset a stream are taken in silence, and DATA among them is counted and paid back.
func TestConformance5_1FramesAfterOurReset(t *testing.T) {
	inBothRoles(t, h2.Config{ConnWindow: 65535}, func(t *testing.T, w world) {
		w.s.Reset(http2.ErrCodeCancel)
		w.p.WantReset(1, http2.ErrCodeCancel)
		w.p.Send(hbonetest.WindowUpdate{Stream: 1, Increment: 5}, hbonetest.Data{Stream: 1, Bytes: []byte("x")},
			hbonetest.Headers{Stream: 1, Fields: fields("a", "b"), End: true}, hbonetest.Data{Stream: 1, End: true},
			hbonetest.Reset{Stream: 1, Code: http2.ErrCodeCancel})
		w.p.WantQuiet()
		// Four times the connection's window: it is paid back, or it comes to a stop.
		for sent := 0; sent < 4*65535; sent += 16 << 10 {
			for w.p.Credit(0) < 16<<10 {
				f, err := w.p.Next()
				if err != nil {
					t.Fatalf("%d bytes were sent, and no credit comes: %v", sent, err)
				}
				if g, ok := f.(hbonetest.GoAway); ok {
					t.Fatalf("got %+v", g)
				}
			}
			w.p.Send(hbonetest.Data{Stream: 1, Bytes: make([]byte, 16<<10)})
		}
	})
}

// RST_STREAM before END_STREAM is a reset for both directions, whatever its code; it is never answered.
func TestConformance6_4ResetBeforeTheEnd(t *testing.T) {
	for _, code := range []http2.ErrCode{http2.ErrCodeNo, http2.ErrCodeCancel, http2.ErrCodeConnect, http2.ErrCodeStreamClosed, 0xabcdef} {
		t.Run(code.String(), func(t *testing.T) {
			inBothRoles(t, h2.Config{}, func(t *testing.T, w world) {
				w.p.Send(hbonetest.Data{Stream: 1, Bytes: []byte("a part")}, hbonetest.Reset{Stream: 1, Code: code})
				_ = w.s.SetReadDeadline(time.Now().Add(patience))
				got, err := io.ReadAll(w.s)
				if !errors.Is(err, syscall.ECONNRESET) || !strings.HasPrefix("a part", string(got)) {
					t.Errorf("read %q, %v, want ECONNRESET", got, err)
				}
				if e, ok := errors.AsType[*h2.ResetError](err); !ok || !e.Remote || e.Code != code {
					t.Errorf("the error does not say that the peer reset with %v: %v", code, err)
				}
				if _, err := w.s.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("write gave %v, want ECONNRESET", err)
				}
				w.p.WantQuiet()
			})
		})
	}
}

// RST_STREAM after END_STREAM ends only our sending: all that came is read, then the end.
func TestConformance6_4ResetAfterTheEnd(t *testing.T) {
	for _, code := range []http2.ErrCode{http2.ErrCodeNo, http2.ErrCodeCancel, http2.ErrCodeInternal} {
		t.Run(code.String(), func(t *testing.T) {
			inBothRoles(t, h2.Config{}, func(t *testing.T, w world) {
				w.p.Send(hbonetest.Data{Stream: 1, Bytes: []byte("all of it"), End: true}, hbonetest.Reset{Stream: 1, Code: code})
				w.p.WantQuiet() // it has been seen
				wantRead(t, w.s, "all of it")
				if _, err := w.s.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
					t.Errorf("write gave %v, want EPIPE", err)
				}
				if n := w.c.Streams(); n != 0 {
					t.Errorf("%d streams are left", n)
				}
			})
		})
	}
}

// A write that waits for a window ends with the reset.
func TestConformance6_4ResetWakesAWriter(t *testing.T) {
	inBothRoles(t, h2.Config{}, func(t *testing.T, w world) {
		write := hbonetest.Go(func() (int, error) { return w.s.Write(make([]byte, 1<<20)) })
		w.p.WantData(1, make([]byte, 65535))
		w.p.Send(hbonetest.Reset{Stream: 1, Code: http2.ErrCodeCancel})
		if n, err := write.Wait(); !errors.Is(err, syscall.ECONNRESET) || n < 65535 || n >= 1<<20 {
			t.Errorf("write gave %d, %v", n, err)
		}
	})
}

// END_STREAM ends one direction; bytes go on in the other for as long as one likes (section 8.5: FIN is END_STREAM).
func TestConformance8_5HalfClose(t *testing.T) {
	inBothRoles(t, h2.Config{}, func(t *testing.T, w world) {
		w.p.Send(hbonetest.Data{Stream: 1, Bytes: []byte("first and last"), End: true})
		wantRead(t, w.s, "first and last")
		for range 3 {
			if _, err := w.s.Write([]byte("on and on")); err != nil {
				t.Fatal(err)
			}
			w.p.WantData(1, []byte("on and on"))
		}
		if err := w.s.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if rest := w.p.WantEnd(1); len(rest) != 0 {
			t.Errorf("%q came before the end", rest)
		}
		<-w.s.Done()
		w.p.WantQuiet() // no RST_STREAM behind a clean end
	})
	inBothRoles(t, h2.Config{}, func(t *testing.T, w world) {
		if err := w.s.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		w.p.WantEnd(1)
		for range 3 {
			w.p.Send(hbonetest.Data{Stream: 1, Bytes: []byte("on and on")})
			got := make([]byte, 9)
			if _, err := io.ReadFull(w.s, got); err != nil || string(got) != "on and on" {
				t.Fatalf("read %q, %v", got, err)
			}
		}
		w.p.Send(hbonetest.Data{Stream: 1, End: true})
		wantRead(t, w.s, "")
		<-w.s.Done()
		w.p.WantQuiet()
	})
}

// Trailers are no part of a CONNECT: they end the direction or are a stream error, and what came before them is not lost.
func TestConformance8_5Trailers(t *testing.T) {
	inBothRoles(t, h2.Config{}, func(t *testing.T, w world) {
		w.p.Send(hbonetest.Data{Stream: 1, Bytes: []byte("body")}, hbonetest.Headers{Stream: 1, Fields: fields("grpc-status", "0"), End: true})
		_ = w.s.SetReadDeadline(time.Now().Add(patience))
		got, err := io.ReadAll(w.s)
		switch {
		case err == nil && string(got) == "body":
		case errors.Is(err, syscall.ECONNRESET):
			w.p.WantReset(1, http2.ErrCodeProtocol)
		default:
			t.Errorf("read %q, %v", got, err)
		}
		w.p.Sync()
		if err := w.c.Err(); err != nil {
			t.Errorf("the connection ended: %v", err)
		}
	})
}

// A stream id below the highest is closed, also one that was never used (section 5.1.1).
func TestConformance5_1_1StreamIDsOnlyGrow(t *testing.T) {
	for _, id := range []uint32{3, 5} { // skipped, and used before
		p, c, streams := asServer(t, h2.Config{})
		p.Send(hbonetest.Open(5, target))
		s := next(t, streams)
		if err := s.Respond(); err != nil {
			t.Fatal(err)
		}
		p.WantAnswer(5, 200)
		s.Reset(http2.ErrCodeCancel)
		p.WantReset(5, http2.ErrCodeCancel)
		p.Send(hbonetest.Open(id, target))
		p.Send(hbonetest.Ping{Data: [8]byte{1}})
		for range 3 { // GOAWAY, RST_STREAM or nothing for the closed one: no stream must come to be
			f, err := p.Next()
			if err != nil {
				break
			}
			if h, ok := f.(hbonetest.Headers); ok {
				t.Errorf("stream %d was answered: %v", id, h)
			}
			if ping, ok := f.(hbonetest.Ping); ok && ping.Ack {
				break
			}
		}
		if len(streams) > 0 || c.Streams() > 0 {
			t.Errorf("stream %d was opened again", id)
		}
	}
}

func fields(pairs ...string) []http2Field {
	var list []http2Field
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, http2Field{Name: pairs[i], Value: pairs[i+1]})
	}
	return list
}
