package h2_test

import (
	"bytes"
	"testing"

	"github.com/isthmus-mesh/isthmus/hbone/hbonetest"
	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
	"golang.org/x/net/http2"
)

const both = ""

// Violations that end the connection: GOAWAY with the code (section 5.4.1), then its end; the tunnel on it reads a reset.
func TestConformanceConnectionErrors(t *testing.T) {
	setting := func(id http2.SettingID, v uint32) hbonetest.Frame {
		return hbonetest.Settings{List: []http2.Setting{{ID: id, Val: v}}}
	}
	raw := func(kind http2.FrameType, stream uint32, payload int) hbonetest.Frame {
		return hbonetest.Raw{Type: kind, Stream: stream, Payload: make([]byte, payload)}
	}
	tests := []struct {
		name string
		role string // both when empty
		send []hbonetest.Frame
		code http2.ErrCode
	}{
		{"4.2 a frame beyond MAX_FRAME_SIZE", both, []hbonetest.Frame{hbonetest.Raw{Type: http2.FrameData, Stream: 1, Length: 16<<10 + 1}}, http2.ErrCodeFrameSize},
		{"4.2 HEADERS beyond MAX_FRAME_SIZE", both, []hbonetest.Frame{hbonetest.Raw{Type: http2.FrameHeaders, Stream: 3, Length: 16<<10 + 1}}, http2.ErrCodeFrameSize},
		{"4.2 an unknown frame beyond MAX_FRAME_SIZE", both, []hbonetest.Frame{hbonetest.Raw{Type: 0x99, Length: 16<<10 + 1}}, http2.ErrCodeFrameSize},
		{"4.3 a header block that is no HPACK", "server", []hbonetest.Frame{hbonetest.Headers{Stream: 3, Block: []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}}, http2.ErrCodeCompression},
		{"4.3 a header block cut short", "server", []hbonetest.Frame{hbonetest.Headers{Stream: 3, Block: []byte("\x02\x07CONN")}}, http2.ErrCodeCompression},
		{"4.3 an index that the table does not have", "server", []hbonetest.Frame{hbonetest.Headers{Stream: 3, Block: []byte{0xff, 0x40}}}, http2.ErrCodeCompression},
		{"4.3 trailers that are no HPACK", both, []hbonetest.Frame{hbonetest.Headers{Stream: 1, Block: []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, End: true}}, http2.ErrCodeCompression},
		{"4.3 a table beyond HEADER_TABLE_SIZE", both, []hbonetest.Frame{hbonetest.Headers{Stream: 1, Block: []byte{0x3f, 0xe2, 0x1f}, End: true}}, http2.ErrCodeCompression}, // 4097
		{"5.1 DATA on an idle stream", both, []hbonetest.Frame{hbonetest.Data{Stream: 5, Bytes: []byte("x")}}, http2.ErrCodeProtocol},
		{"5.1 RST_STREAM on an idle stream", both, []hbonetest.Frame{hbonetest.Reset{Stream: 5}}, http2.ErrCodeProtocol},
		{"5.1 WINDOW_UPDATE on an idle stream", both, []hbonetest.Frame{hbonetest.WindowUpdate{Stream: 5, Increment: 1}}, http2.ErrCodeProtocol},
		{"5.1 DATA on an idle stream of the other side", both, []hbonetest.Frame{hbonetest.Data{Stream: 2, Bytes: []byte("x")}}, http2.ErrCodeProtocol},
		{"5.1 HEADERS on an idle stream", "client", []hbonetest.Frame{hbonetest.Answer(5, 200)}, http2.ErrCodeProtocol},
		{"5.1.1 a stream id that was skipped", "server", []hbonetest.Frame{hbonetest.Open(5, target), hbonetest.Open(3, target)}, http2.ErrCodeProtocol},
		{"5.1 HEADERS of a stream that the peer has reset", "server", []hbonetest.Frame{hbonetest.Open(3, target), hbonetest.Reset{Stream: 3}, hbonetest.Open(3, target)}, http2.ErrCodeStreamClosed},
		{"5.1.1 an even stream of a client", "server", []hbonetest.Frame{hbonetest.Open(2, target)}, http2.ErrCodeProtocol},
		{"5.1.1 HEADERS on a stream of the server's own", "client", []hbonetest.Frame{hbonetest.Answer(2, 200)}, http2.ErrCodeProtocol},
		{"6.1 DATA on stream 0", both, []hbonetest.Frame{hbonetest.Data{Bytes: []byte("x")}}, http2.ErrCodeProtocol},
		{"6.1 empty DATA on stream 0", both, []hbonetest.Frame{hbonetest.Data{}}, http2.ErrCodeProtocol},
		{"6.1 padding as long as its frame", both, []hbonetest.Frame{hbonetest.Raw{Type: http2.FrameData, Flags: http2.FlagDataPadded, Stream: 1, Payload: []byte{5, 1, 2, 3, 4}}}, http2.ErrCodeProtocol},
		{"6.2 HEADERS on stream 0", both, []hbonetest.Frame{hbonetest.Open(0, target)}, http2.ErrCodeProtocol},
		{"6.2 padding longer than its frame", "server", []hbonetest.Frame{hbonetest.Raw{Type: http2.FrameHeaders, Flags: http2.FlagHeadersPadded | http2.FlagHeadersEndHeaders, Stream: 3, Payload: []byte{9, 0x82}}}, http2.ErrCodeProtocol},
		{"6.3 PRIORITY on stream 0", both, []hbonetest.Frame{hbonetest.Priority{}}, http2.ErrCodeProtocol},
		{"6.4 RST_STREAM on stream 0", both, []hbonetest.Frame{hbonetest.Reset{}}, http2.ErrCodeProtocol},
		{"6.4 RST_STREAM of 3 bytes", both, []hbonetest.Frame{raw(http2.FrameRSTStream, 1, 3)}, http2.ErrCodeFrameSize},
		{"6.5 SETTINGS on a stream", both, []hbonetest.Frame{raw(http2.FrameSettings, 1, 0)}, http2.ErrCodeProtocol},
		{"6.5 SETTINGS of 7 bytes", both, []hbonetest.Frame{raw(http2.FrameSettings, 0, 7)}, http2.ErrCodeFrameSize},
		{"6.5 an ACK with a payload", both, []hbonetest.Frame{hbonetest.Settings{Ack: true, List: []http2.Setting{{ID: 1, Val: 1}}}}, http2.ErrCodeFrameSize},
		{"6.5.2 ENABLE_PUSH 2", both, []hbonetest.Frame{setting(http2.SettingEnablePush, 2)}, http2.ErrCodeProtocol},
		{"6.5.2 ENABLE_PUSH of a server", "client", []hbonetest.Frame{setting(http2.SettingEnablePush, 1)}, http2.ErrCodeProtocol},
		{"6.5.2 INITIAL_WINDOW_SIZE of 2^31", both, []hbonetest.Frame{setting(http2.SettingInitialWindowSize, 1<<31)}, http2.ErrCodeFlowControl},
		{"6.5.2 MAX_FRAME_SIZE of 16383", both, []hbonetest.Frame{setting(http2.SettingMaxFrameSize, 16383)}, http2.ErrCodeProtocol},
		{"6.5.2 MAX_FRAME_SIZE of 2^24", both, []hbonetest.Frame{setting(http2.SettingMaxFrameSize, 1<<24)}, http2.ErrCodeProtocol},
		{"6.6 PUSH_PROMISE", both, []hbonetest.Frame{hbonetest.PushPromise{Stream: 1, Promised: 2, Fields: hbonetest.Connect(target)}}, http2.ErrCodeProtocol},
		{"6.7 PING on a stream", both, []hbonetest.Frame{raw(http2.FramePing, 1, 8)}, http2.ErrCodeProtocol},
		{"6.7 PING of 7 bytes", both, []hbonetest.Frame{raw(http2.FramePing, 0, 7)}, http2.ErrCodeFrameSize},
		{"6.8 GOAWAY on a stream", both, []hbonetest.Frame{raw(http2.FrameGoAway, 1, 8)}, http2.ErrCodeProtocol},
		{"6.8 GOAWAY of 7 bytes", both, []hbonetest.Frame{raw(http2.FrameGoAway, 0, 7)}, http2.ErrCodeFrameSize},
		{"6.9 WINDOW_UPDATE of 0 for the connection", both, []hbonetest.Frame{hbonetest.WindowUpdate{}}, http2.ErrCodeProtocol},
		{"6.9 WINDOW_UPDATE of 0 on an idle stream", both, []hbonetest.Frame{hbonetest.WindowUpdate{Stream: 5}}, http2.ErrCodeProtocol},
		{"8.1.1 a malformed answer on an idle stream", "client", []hbonetest.Frame{hbonetest.Headers{Stream: 5, Fields: fields("A", "b")}}, http2.ErrCodeProtocol},
		{"6.9 WINDOW_UPDATE of 5 bytes", both, []hbonetest.Frame{raw(http2.FrameWindowUpdate, 1, 5)}, http2.ErrCodeFrameSize},
		{"6.9.1 the connection's window overflows", both, []hbonetest.Frame{hbonetest.WindowUpdate{Increment: 1<<31 - 1}}, http2.ErrCodeFlowControl},
		{"6.9.2 SETTINGS make a stream's window overflow", both, []hbonetest.Frame{hbonetest.WindowUpdate{Stream: 1, Increment: 1<<31 - 1 - 65535}, setting(http2.SettingInitialWindowSize, 65536)}, http2.ErrCodeFlowControl},
		{"6.10 CONTINUATION out of nowhere", both, []hbonetest.Frame{hbonetest.Continuation{Stream: 1}}, http2.ErrCodeProtocol},
		{"6.10 CONTINUATION on stream 0", both, []hbonetest.Frame{hbonetest.Continuation{}}, http2.ErrCodeProtocol},
		{"6.10 CONTINUATION of another stream", "server", []hbonetest.Frame{hbonetest.Headers{Stream: 3, Block: []byte{0x82}, Open: true}, hbonetest.Continuation{Stream: 5}}, http2.ErrCodeProtocol},
		{"6.10 DATA within a header block", "server", []hbonetest.Frame{hbonetest.Headers{Stream: 3, Block: []byte{0x82}, Open: true}, hbonetest.Data{Stream: 1, Bytes: []byte("x")}}, http2.ErrCodeProtocol},
		{"6.10 PING within a header block", "server", []hbonetest.Frame{hbonetest.Headers{Stream: 3, Block: []byte{0x82}, Open: true}, hbonetest.Ping{}}, http2.ErrCodeProtocol},
		{"6.10 an unknown frame within a header block", "server", []hbonetest.Frame{hbonetest.Headers{Stream: 3, Block: []byte{0x82}, Open: true}, raw(0x99, 3, 1)}, http2.ErrCodeProtocol},
		{"6.10 CONTINUATION after END_HEADERS", "server", []hbonetest.Frame{hbonetest.Open(3, target), hbonetest.Continuation{Stream: 3}}, http2.ErrCodeProtocol},
		{"6.10 DATA within trailers", both, []hbonetest.Frame{hbonetest.Headers{Stream: 1, Block: []byte{}, Open: true, End: true}, hbonetest.Data{Stream: 1}}, http2.ErrCodeProtocol},
	}
	for _, tt := range tests {
		for role, begin := range roles {
			if tt.role != both && tt.role != role {
				continue
			}
			t.Run(tt.name+", "+role, func(t *testing.T) {
				w := begin(t, h2.Config{MaxFrameSize: 16 << 10})
				w.p.Send(tt.send...)
				g := w.p.WantGoAway(tt.code)
				if role == "server" && g.Last == 0 || role == "client" && g.Last != 0 {
					t.Errorf("6.8: the last stream of GOAWAY is %d", g.Last)
				}
				w.p.WantClosed()
				w.p.Conn.Close()
				wantEnded(t, w.c)
				wantLost(t, w.s)
				if w.c.Err() == nil {
					t.Error("the connection has no cause of its end")
				}
			})
		}
	}
}

// What a peer may send and what changes nothing.
func TestConformanceIgnored(t *testing.T) {
	tests := map[string][]hbonetest.Frame{
		"4.1 an unknown frame on stream 0":         {hbonetest.Raw{Type: 0x99, Flags: 0xff, Payload: []byte("?")}},
		"4.1 an unknown frame on a stream":         {hbonetest.Raw{Type: 0x99, Flags: 0xff, Stream: 1, Payload: []byte("?")}},
		"4.1 an unknown frame on an idle stream":   {hbonetest.Raw{Type: 0x99, Stream: 99}},
		"4.1 the reserved bit of a stream id":      {hbonetest.Raw{Type: http2.FramePriority, Stream: 1<<31 | 1, Payload: make([]byte, 5)}},
		"4.1 flags that a type does not define":    {hbonetest.Raw{Type: http2.FramePriority, Flags: 0xff, Stream: 1, Payload: make([]byte, 5)}},
		"5.3.2 PRIORITY of an open stream":         {hbonetest.Priority{Stream: 1, DependsOn: 3, Weight: 7}},
		"5.3.2 PRIORITY of an idle stream":         {hbonetest.Priority{Stream: 101}},
		"5.3.2 PRIORITY that depends on itself":    {hbonetest.Priority{Stream: 1, DependsOn: 1}},
		"6.5 SETTINGS with an unknown id":          {hbonetest.Settings{List: []http2.Setting{{ID: 0xabc, Val: 1}}}},
		"6.5 empty SETTINGS":                       {hbonetest.Settings{}},
		"6.5.3 an ACK of nothing":                  {hbonetest.Settings{Ack: true}},
		"6.7 an ACK of no PING":                    {hbonetest.Ping{Ack: true, Data: [8]byte{9}}},
		"6.9 WINDOW_UPDATE with the reserved bit":  {hbonetest.WindowUpdate{Stream: 1, Increment: 1<<31 | 1}},
		"6.1 empty DATA":                           {hbonetest.Data{Stream: 1}},
		"6.1 DATA of nothing but padding":          {hbonetest.Data{Stream: 1, Pad: 255}},
		"6.1 padding of length 0":                  {hbonetest.Raw{Type: http2.FrameData, Flags: http2.FlagDataPadded, Stream: 1, Payload: []byte{0}}},
		"6.8 GOAWAY of NO_ERROR that covers it":    {hbonetest.GoAway{Last: 1<<31 - 1, Code: http2.ErrCodeNo, Debug: "bye"}},
		"7 GOAWAY with a code that nobody knows":   {hbonetest.GoAway{Last: 1<<31 - 1, Code: 0xfeed}},
		"6.5.2 limits that a tunnel does not need": {hbonetest.Settings{List: []http2.Setting{{ID: http2.SettingMaxHeaderListSize, Val: 1}, {ID: http2.SettingEnableConnectProtocol, Val: 1}}}},
	}
	for name, frames := range tests {
		t.Run(name, func(t *testing.T) {
			inBothRoles(t, h2.Config{}, func(t *testing.T, w world) {
				w.p.Send(frames...)
				w.p.WantQuiet()
				w.wantAlive(t)
			})
		})
	}
}

func TestConformance3_4Preface(t *testing.T) {
	t.Run("a client begins with the preface and SETTINGS", func(t *testing.T) {
		p, _ := asClient(t, h2.Config{})
		f, err := p.Next() // it checks the preface
		if s, ok := f.(hbonetest.Settings); err != nil || !ok || s.Ack {
			t.Fatalf("the first frame is %+v, %v", f, err)
		}
		if v, ok := p.Setting(http2.SettingEnablePush); !ok || v != 0 {
			t.Errorf("8.4: push is not turned off (%d, %t)", v, ok)
		}
		if _, ok := p.Setting(http2.SettingMaxConcurrentStreams); ok {
			t.Log("the client limits streams that a server cannot open")
		}
	})
	t.Run("a server begins with SETTINGS", func(t *testing.T) {
		p, _, _ := asServer(t, h2.Config{MaxStreams: 7})
		f, err := p.Next()
		if s, ok := f.(hbonetest.Settings); err != nil || !ok || s.Ack {
			t.Fatalf("the first frame is %+v, %v", f, err)
		}
		if v, _ := p.Setting(http2.SettingMaxConcurrentStreams); v != 7 {
			t.Errorf("the limit of streams is %d", v)
		}
		if _, ok := p.Setting(http2.SettingEnablePush); ok {
			t.Error("6.5.2: a server speaks of push")
		}
		if v, ok := p.Setting(http2.SettingEnableConnectProtocol); ok && v != 0 {
			t.Error("RFC 8441: extended CONNECT is offered")
		}
	})
	begin := map[string][]hbonetest.Frame{
		"HTTP/1.1":          {hbonetest.Bytes("GET / HTTP/1.1\r\nHost: a\r\n\r\n")},
		"a wrong preface":   {hbonetest.Bytes("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r"), hbonetest.Settings{}},
		"PING first":        {hbonetest.Bytes(http2.ClientPreface), hbonetest.Ping{}},
		"an ACK first":      {hbonetest.Bytes(http2.ClientPreface), hbonetest.Settings{Ack: true}},
		"HEADERS first":     {hbonetest.Bytes(http2.ClientPreface), hbonetest.Open(1, target)},
		"garbage of nobody": {hbonetest.Bytes(bytes.Repeat([]byte{0xee}, 100))},
	}
	for name, frames := range begin {
		t.Run("a server refuses "+name, func(t *testing.T) {
			a, b := hbonetest.Pipe()
			c := h2.NewServer(b, h2.Config{}, func(*h2.Stream) { t.Error("a stream was accepted") })
			defer c.Close()
			p := hbonetest.Bare(t, a)
			p.Send(frames...)
			p.WantClosed()
			p.Conn.Close()
			wantEnded(t, c)
		})
	}
	first := map[string]hbonetest.Frame{
		"PING":     hbonetest.Ping{},
		"an ACK":   hbonetest.Settings{Ack: true},
		"HTTP/1.1": hbonetest.Bytes("HTTP/1.1 400 Bad Request\r\n\r\n"),
	}
	for name, f := range first {
		t.Run("a client refuses a server that begins with "+name, func(t *testing.T) {
			a, b := hbonetest.Pipe()
			c := h2.NewClient(a, h2.Config{})
			defer c.Close()
			p := hbonetest.Bare(t, b)
			p.Send(f)
			p.WantClosed()
			p.Conn.Close()
			wantEnded(t, c)
		})
	}
}

func TestConformance6_5_3SettingsAreAcknowledgedInOrder(t *testing.T) {
	inBothRoles(t, h2.Config{}, func(t *testing.T, w world) {
		w.p.Send(hbonetest.Settings{}, hbonetest.Settings{List: []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 1}}}, hbonetest.Settings{}, hbonetest.Ping{Data: [8]byte{7}})
		acks := 0
		for {
			f, err := w.p.Next()
			if err != nil {
				t.Fatal(err)
			}
			switch f := f.(type) {
			case hbonetest.Settings:
				if f.Ack {
					acks++
				}
				continue
			case hbonetest.WindowUpdate:
				continue
			case hbonetest.Ping:
				if f.Ack && f.Data == [8]byte{7} {
					break
				}
				continue
			default:
				t.Fatalf("got %+v", f)
			}
			break
		}
		// One for the first SETTINGS may have come before.
		if acks < 3 || acks > 4 {
			t.Errorf("%d ACKs came before that of the PING behind them, want 3", acks)
		}
	})
}

func TestConformance6_7PingsAreAnsweredWithTheirData(t *testing.T) {
	inBothRoles(t, h2.Config{}, func(t *testing.T, w world) {
		want := [8]byte{1, 2, 3, 4, 5, 6, 7, 8}
		w.p.Send(hbonetest.Ping{Data: want})
		for {
			f, err := w.p.Next()
			if err != nil {
				t.Fatal(err)
			}
			if p, ok := f.(hbonetest.Ping); ok && p.Ack {
				if p.Data != want {
					t.Errorf("the ACK has %v", p.Data)
				}
				return
			}
		}
	})
}
