package h2_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/hbone/hbonetest"
	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

func connectWith(pairs ...string) []hpack.HeaderField {
	return append(hbonetest.Connect(target), fields(pairs...)...)
}

// Malformed requests are stream errors of type PROTOCOL_ERROR (section 8.1.1): nothing is accepted, the connection goes on.
func TestConformanceMalformedRequests(t *testing.T) {
	tests := map[string][]hpack.HeaderField{
		"8.2 an upper-case name":                connectWith("Forwarded", "x"),
		"8.2.1 a space in a name":               connectWith("a b", "x"),
		"8.2.1 a colon in a name":               connectWith("a:b", "x"),
		"8.2.1 an empty name":                   connectWith("", "x"),
		"8.2.1 a line feed in a value":          connectWith("a", "x\ny: z"),
		"8.2.1 a carriage return in a value":    connectWith("a", "x\ry"),
		"8.2.1 a zero byte in a value":          connectWith("a", "x\x00y"),
		"8.3 a pseudo-header after a field":     append(fields("a", "b"), hbonetest.Connect(target)...),
		"8.3 a pseudo-header that nobody knows": append(hbonetest.Connect(target), fields(":foo", "x")...),
		"8.3 a pseudo-header of an answer":      append(hbonetest.Connect(target), fields(":status", "200")...),
		"8.3 :method twice":                     fields(":method", "CONNECT", ":method", "CONNECT", ":authority", target),
		"8.3 :authority twice":                  fields(":method", "CONNECT", ":authority", target, ":authority", "other:1"),
		"8.5 CONNECT with :scheme":              append(hbonetest.Connect(target), fields(":scheme", "https")...),
		"8.5 CONNECT with :path":                append(hbonetest.Connect(target), fields(":path", "/")...),
		"8.5 CONNECT without :authority":        fields(":method", "CONNECT"),
		"8.5 CONNECT with an empty :authority":  fields(":method", "CONNECT", ":authority", ""),
		"8.2.2 connection":                      connectWith("connection", "keep-alive"),
		"8.2.2 transfer-encoding":               connectWith("transfer-encoding", "chunked"),
		"8.2.2 keep-alive":                      connectWith("keep-alive", "1"),
		"8.2.2 proxy-connection":                connectWith("proxy-connection", "keep-alive"),
		"8.2.2 upgrade":                         connectWith("upgrade", "websocket"),
		"8.2.2 te other than trailers":          connectWith("te", "gzip"),
		"8.3.1 no :method":                      fields(":authority", target),
		"8.3.1 an empty :method":                fields(":method", "", ":authority", target),
		"8.3.1 nothing at all":                  {},
		"8.3.1 another method without :path":    fields(":method", "GET", ":scheme", "https", ":authority", target),
		"8.3.1 another method, :path is empty":  fields(":method", "GET", ":scheme", "https", ":path", "", ":authority", target),
		"8.3.1 another method without :scheme":  fields(":method", "GET", ":path", "/", ":authority", target),
		"RFC 8441 extended CONNECT":             fields(":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":path", "/", ":authority", target),
		"RFC 8441 :protocol alone":              append(hbonetest.Connect(target), fields(":protocol", "websocket")...),
	}
	wantMalformed(t, tests)
}

func wantMalformed(t *testing.T, tests map[string][]hpack.HeaderField) {
	for name, list := range tests {
		t.Run(name, func(t *testing.T) {
			p, c, streams := asServer(t, h2.Config{})
			p.Send(hbonetest.Headers{Stream: 1, Fields: list})
			p.WantReset(1, http2.ErrCodeProtocol)
			p.WantQuiet()
			if len(streams) > 0 || c.Streams() > 0 {
				t.Error("a stream was accepted")
			}
			// The next one is served: the connection and its HPACK table are in order.
			p.Send(hbonetest.Headers{Stream: 3, Fields: connectWith("a", "b")})
			s := next(t, streams)
			if got := hbonetest.Value(s.Fields(), "a"); got != "b" {
				t.Errorf("the fields are %v", s.Fields())
			}
			s.Reset(http2.ErrCodeCancel)
		})
	}
}

// Requests that are well-formed reach the user, whatever he thinks of them.
func TestConformanceWellFormedRequests(t *testing.T) {
	long := strings.Repeat("x", 20_000)
	tests := map[string][]hpack.HeaderField{
		"8.5 :authority before :method": fields(":authority", target, ":method", "CONNECT"),
		"8.2 te: trailers":              connectWith("te", "trailers"),
		"8.2 a field twice":             connectWith("a", "1", "a", "2"),
		"8.2.1 bytes beyond ASCII":      connectWith("a", "z\xc3\xbcrich"),
		"8.2.1 an empty value":          connectWith("a", ""),
		"8.3.1 another method":          fields(":method", "GET", ":scheme", "https", ":path", "/", ":authority", target),
		"6.5.2 20 KB of fields":         connectWith("baggage", long),
		"what ztunnel sends":            connectWith("baggage", "k8s.cluster.name=Kubernetes", "forwarded", `for="10.244.0.11:51742"`, "traceparent", "00-x-y-01"),
	}
	for name, list := range tests {
		t.Run(name, func(t *testing.T) {
			p, _, streams := asServer(t, h2.Config{})
			p.Send(split(3, list, 16<<10)...)
			s := next(t, streams)
			if got, want := text(s.Fields()), text(list); got != want {
				t.Errorf("the fields are %.200s, want %.200s", got, want)
			}
			if err := s.Refuse(400); err != nil {
				t.Error(err)
			}
			p.WantAnswer(3, 400)
		})
	}
}

// split is a header block in HEADERS and CONTINUATION frames of at most size bytes.
func split(stream uint32, list []hpack.HeaderField, size int) []hbonetest.Frame {
	block := encode(list)
	n := min(len(block), size)
	frames := []hbonetest.Frame{hbonetest.Headers{Stream: stream, Block: block[:n], Open: n < len(block)}}
	for rest := block[n:]; len(rest) > 0; {
		n := min(len(rest), size)
		frames = append(frames, hbonetest.Continuation{Stream: stream, Block: rest[:n], Open: n < len(rest)})
		rest = rest[n:]
	}
	return frames
}

// text shows names and values.
func text(list []hpack.HeaderField) string {
	var b strings.Builder
	for _, f := range list {
		fmt.Fprintf(&b, "%q=%q ", f.Name, f.Value)
	}
	return b.String()
}

// encode uses no table, so that the order of blocks plays no part.
func encode(list []hpack.HeaderField) []byte {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for _, f := range list {
		f.Sensitive = true // never indexed
		_ = enc.WriteField(f)
	}
	return b.Bytes()
}

// A header block may be cut anywhere, also within a byte's meaning, and into empty pieces (sections 4.3 and 6.10).
func TestConformance6_10BlocksMayBeCutAnywhere(t *testing.T) {
	list := connectWith("forwarded", `for="10.0.0.1:1"`, "baggage", "k8s.cluster.name=x")
	for size := 1; size < 40; size += 3 {
		p, _, streams := asServer(t, h2.Config{})
		p.Send(split(1, list, size)...)
		if got, want := text(next(t, streams).Fields()), text(list); got != want {
			t.Errorf("pieces of %d: the fields are %s", size, got)
		}
	}
	p, _, streams := asServer(t, h2.Config{})
	block := encode(list)
	p.Send(hbonetest.Headers{Stream: 1, Block: []byte{}, Open: true}, hbonetest.Continuation{Stream: 1, Open: true},
		hbonetest.Continuation{Stream: 1, Block: block, Open: true}, hbonetest.Continuation{Stream: 1})
	if got, want := text(next(t, streams).Fields()), text(list); got != want {
		t.Errorf("empty pieces: the fields are %s", got)
	}
}

// HEADERS with padding and with the deprecated priority are HEADERS (section 6.2).
func TestConformance6_2PaddingAndPriority(t *testing.T) {
	p, _, streams := asServer(t, h2.Config{})
	p.Send(hbonetest.Headers{Stream: 1, Fields: hbonetest.Connect(target), Pad: 100, Weight: 255, DependsOn: 0})
	p.Send(hbonetest.Headers{Stream: 3, Fields: hbonetest.Connect(target), Weight: 1, DependsOn: 3}) // itself: no matter any more
	for range 2 {
		if err := next(t, streams).Respond(); err != nil {
			t.Fatal(err)
		}
	}
	if s := p.Sync(); len(s) != 2 {
		t.Errorf("got %+v", s)
	}
}

// What is refused still moves the HPACK table: blocks that lean on it later are read rightly (section 4.3).
func TestConformance4_3RefusedBlocksCount(t *testing.T) {
	p, _, streams := asServer(t, h2.Config{MaxStreams: 1})
	p.Send(hbonetest.Open(1, target))
	first := next(t, streams)
	if err := first.Respond(); err != nil {
		t.Fatal(err)
	}
	p.WantAnswer(1, 200)
	p.Send(hbonetest.Headers{Stream: 3, Fields: connectWith("baggage", "only-in-the-table")}) // refused
	p.WantReset(3, http2.ErrCodeRefusedStream)
	p.Send(hbonetest.Data{Stream: 1, End: true})
	wantRead(t, first, "")
	if err := first.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	p.WantEnd(1)
	<-first.Done()
	p.Send(hbonetest.Headers{Stream: 5, Fields: connectWith("baggage", "only-in-the-table")}) // one byte by now
	if got := hbonetest.Value(next(t, streams).Fields(), "baggage"); got != "only-in-the-table" {
		t.Errorf("baggage is %q", got)
	}
}

// Our own blocks obey the peer's HEADER_TABLE_SIZE (section 4.3.1) and MAX_FRAME_SIZE.
func TestConformance4_3OurBlocks(t *testing.T) {
	long := strings.Repeat("y", 40_000)
	p, c := asClient(t, h2.Config{}, http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0})
	<-c.Ready()
	for i := range 3 {
		go c.Open(t.Context(), connectWith("baggage", long, "x-same", "again and again"))
		var block []byte
		for {
			f := nextRaw(t, p)
			if len(f.Payload) > 16<<10 {
				t.Errorf("a frame of %d bytes came", len(f.Payload))
			}
			if f.Type != http2.FrameHeaders && f.Type != http2.FrameContinuation {
				if len(block) > 0 {
					t.Fatalf("%v came within a header block", f.Type)
				}
				continue
			}
			block = append(block, f.Payload...)
			if f.Flags.Has(http2.FlagHeadersEndHeaders) {
				break
			}
		}
		dec := hpack.NewDecoder(0, nil) // a peer without a table
		dec.SetAllowedMaxDynamicTableSize(4096)
		got, err := dec.DecodeFull(block)
		if err != nil || hbonetest.Value(got, "baggage") != long || hbonetest.Value(got, "x-same") == "" {
			t.Errorf("block %d: %v", i, err)
		}
	}
}

// nextRaw reads one frame from the connection itself.
func nextRaw(t *testing.T, p *hbonetest.Peer) hbonetest.Raw {
	t.Helper()
	f, err := p.NextRaw()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// A header list beyond MAX_HEADER_LIST_SIZE is refused, as a stream error or with 431 (section 10.5.1); the connection goes on.
func TestConformance10_5_1HeaderLists(t *testing.T) {
	p, _, streams := asServer(t, h2.Config{MaxHeaderBytes: 4 << 10})
	if v, ok := p.Setting(http2.SettingMaxHeaderListSize); ok && v != 4<<10 {
		t.Errorf("MAX_HEADER_LIST_SIZE %d is announced", v)
	}
	var many []string
	for i := range 200 { // 32 bytes more each
		many = append(many, fmt.Sprint("x-", i), "v")
	}
	for i, list := range [][]hpack.HeaderField{connectWith(many...), connectWith(many...)} {
		id := uint32(2*i + 1)
		p.Send(hbonetest.Headers{Stream: id, Fields: list})
		f := p.Sync()
		if len(f) == 0 {
			t.Fatal("it was not refused")
		}
		switch f := f[0].(type) {
		case hbonetest.Reset:
		case hbonetest.Headers:
			if hbonetest.Value(f.Fields, ":status") != "431" {
				t.Errorf("got %+v", f)
			}
		default:
			t.Errorf("got %+v", f)
		}
		if len(streams) > 0 {
			t.Error("it was accepted")
		}
	}
	p.Send(hbonetest.Headers{Stream: 9, Fields: connectWith("a", strings.Repeat("x", 3000))})
	next(t, streams)
}

// One field that is longer than the whole limit is no other matter, and later blocks that lean on what it left in the table are read rightly.
func TestConformance10_5_1OneLongField(t *testing.T) {
	for name, list := range map[string][]hpack.HeaderField{
		"a little": connectWith("x-mark", "kept", "a", strings.Repeat("x", 5_000), "x-behind", "kept too"),
		"much":     connectWith("x-mark", "kept", "a", strings.Repeat("x", 50_000), "x-behind", "kept too"),
		"Huffman":  connectWith("x-mark", "kept", "a", strings.Repeat("0", 100_000), "x-behind", "kept too"),
	} {
		t.Run(name, func(t *testing.T) {
			p, c, streams := asServer(t, h2.Config{MaxHeaderBytes: 4 << 10})
			for _, id := range []uint32{1, 3} {
				p.Send(hbonetest.Headers{Stream: id, Fields: list})
				for _, f := range p.Sync() { // the connection stands
					switch f := f.(type) {
					case hbonetest.Reset, hbonetest.Headers:
					default:
						t.Errorf("got %+v", f)
					}
				}
			}
			p.Send(hbonetest.Headers{Stream: 5, Fields: connectWith("x-mark", "kept", "x-behind", "kept too")})
			s := next(t, streams)
			if hbonetest.Value(s.Fields(), "x-mark") != "kept" || hbonetest.Value(s.Fields(), "x-behind") != "kept too" {
				t.Errorf("the fields are %v", s.Fields())
			}
			if n := c.Streams(); n != 1 {
				t.Errorf("%d streams are open", n)
			}
		})
	}
}

// What is far beyond the limit is not worth decoding: the connection ends.
func TestConformance10_5_1FarTooLong(t *testing.T) {
	p, c, _ := asServer(t, h2.Config{MaxHeaderBytes: 4 << 10})
	p.Send(split(1, connectWith("a", strings.Repeat("\x01\xff", 50_000)), 16<<10)[:6]...)
	p.WantGoAway(http2.ErrCodeEnhanceYourCalm)
	p.WantClosed()
	p.Conn.Close()
	wantEnded(t, c)
}

// Answers that are malformed (section 8.1.1) or none reset the stream; Open says so and the connection goes on.
func TestConformanceMalformedAnswers(t *testing.T) {
	tests := map[string]hbonetest.Frame{
		"8.3.2 no :status":                  hbonetest.Headers{Stream: 1, Fields: fields("a", "b")},
		"8.3.2 a :status that is no number": hbonetest.Headers{Stream: 1, Fields: fields(":status", "ok")},
		"8.3.2 :status twice":               hbonetest.Headers{Stream: 1, Fields: fields(":status", "200", ":status", "200")},
		"8.3 a pseudo-header of a request":  hbonetest.Headers{Stream: 1, Fields: fields(":status", "200", ":method", "GET")},
		"8.3 a pseudo-header after a field": hbonetest.Headers{Stream: 1, Fields: fields("a", "b", ":status", "200")},
		"8.2 an upper-case name":            hbonetest.Headers{Stream: 1, Fields: fields(":status", "200", "A", "b")},
		"8.2.2 transfer-encoding":           hbonetest.Headers{Stream: 1, Fields: fields(":status", "200", "transfer-encoding", "chunked")},
		"10.5.1 a header list too long":     hbonetest.Headers{Stream: 1, Fields: fields(":status", "200", "a", strings.Repeat("x", 9000))},
		"8.6 101":                           hbonetest.Headers{Stream: 1, Fields: fields(":status", "101")},
		"8.1 an interim answer that ends":   hbonetest.Headers{Stream: 1, Fields: fields(":status", "103"), End: true},
		"8.1 DATA before the answer":        hbonetest.Data{Stream: 1, Bytes: []byte("x")},
		"8.1 END_STREAM before the answer":  hbonetest.Data{Stream: 1, End: true},
	}
	wantMalformedAnswers(t, tests)
}

func wantMalformedAnswers(t *testing.T, tests map[string]hbonetest.Frame) {
	for name, f := range tests {
		t.Run(name, func(t *testing.T) {
			p, c := asClient(t, h2.Config{MaxHeaderBytes: 8 << 10})
			opened := open(t, c)
			p.WantConnect(target)
			p.Send(f)
			if s, err := opened.Wait(); err == nil || errors.Is(err, hbonetest.ErrRunning) || errors.Is(err, io.EOF) {
				t.Fatalf("open gave %v, %v", s, err)
			} else if errors.Is(err, h2.ErrUnprocessed) {
				t.Errorf("the peer may have acted on it, and %v says that it has not", err)
			}
			for _, f := range p.Sync() {
				if _, ok := f.(hbonetest.Reset); !ok {
					t.Errorf("got %+v", f)
				}
			}
			again := open(t, c)
			p.WantConnect(target)
			p.Send(hbonetest.Answer(3, 200))
			if _, err := again.Wait(); err != nil {
				t.Errorf("the next stream: %v", err)
			}
		})
	}
}

// Answers that are in order.
func TestConformance8_5Answers(t *testing.T) {
	tests := map[string]struct {
		send   []hbonetest.Frame
		status int // 0: the tunnel stands
	}{
		"200":                              {[]hbonetest.Frame{hbonetest.Answer(1, 200)}, 0},
		"interim answers before":           {[]hbonetest.Frame{hbonetest.Headers{Stream: 1, Fields: fields(":status", "100")}, hbonetest.Headers{Stream: 1, Fields: fields(":status", "103", "link", "x")}, hbonetest.Answer(1, 200)}, 0},
		"401":                              {[]hbonetest.Frame{hbonetest.Answer(1, 401)}, 401},
		"503 with a body":                  {[]hbonetest.Frame{hbonetest.Headers{Stream: 1, Fields: fields(":status", "503")}, hbonetest.Data{Stream: 1, Bytes: []byte("why"), End: true}}, 503},
		"503, a body and a reset":          {[]hbonetest.Frame{hbonetest.Headers{Stream: 1, Fields: fields(":status", "503")}, hbonetest.Data{Stream: 1, Bytes: []byte("why"), End: true}, hbonetest.Reset{Stream: 1, Code: http2.ErrCodeConnect}}, 503},
		"what ztunnel sends":               {[]hbonetest.Frame{hbonetest.Answer(1, 400), hbonetest.Reset{Stream: 1, Code: http2.ErrCodeNo}}, 400},
		"a redirect":                       {[]hbonetest.Frame{hbonetest.Answer(1, 302)}, 302},
		"8.5 another status of success":    {[]hbonetest.Frame{hbonetest.Answer(1, 204)}, 204},
		"200 with the end of the stream":   {[]hbonetest.Frame{hbonetest.Headers{Stream: 1, Fields: fields(":status", "200"), End: true}}, 0},
		"200 and data in the same segment": {[]hbonetest.Frame{hbonetest.Answer(1, 200), hbonetest.Data{Stream: 1, Bytes: []byte("hello")}}, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p, c := asClient(t, h2.Config{})
			opened := open(t, c)
			p.WantConnect(target)
			p.Send(tt.send...)
			s, err := opened.Wait()
			e, _ := errors.AsType[*h2.StatusError](err)
			switch {
			case tt.status == 0 && err != nil:
				t.Fatalf("open gave %v", err)
			case tt.status != 0 && (e == nil || e.Status != tt.status):
				t.Fatalf("open gave %v, want status %d", err, tt.status)
			}
			if err := c.Err(); err != nil {
				t.Errorf("the connection ended: %v", err)
			}
			if s != nil && name == "200 with the end of the stream" {
				wantRead(t, s, "")
				if _, err := s.Write([]byte("x")); err != nil {
					t.Errorf("the other direction stands: %v", err)
				}
				p.WantData(1, []byte("x"))
			}
			if s != nil && name == "200 and data in the same segment" {
				got := make([]byte, 5)
				if _, err := io.ReadFull(s, got); err != nil || string(got) != "hello" {
					t.Errorf("read %q, %v", got, err)
				}
			}
			if tt.status != 0 {
				p.Sync()
				if n := c.Streams(); n != 0 {
					t.Errorf("%d streams are left", n)
				}
			}
		})
	}
}

// A CONNECT may come with its data, and with its end (section 8.5).
func TestConformance8_5DataBeforeTheAnswer(t *testing.T) {
	p, _, streams := asServer(t, h2.Config{})
	p.Send(hbonetest.Open(1, target), hbonetest.Data{Stream: 1, Bytes: []byte("at once"), End: true})
	s := next(t, streams)
	if err := s.Respond(); err != nil {
		t.Fatal(err)
	}
	p.WantAnswer(1, 200)
	wantRead(t, s, "at once")
	p.Send(hbonetest.Headers{Stream: 3, Fields: hbonetest.Connect(target), End: true})
	s = next(t, streams)
	if err := s.Respond(); err != nil {
		t.Fatal(err)
	}
	p.WantAnswer(3, 200)
	wantRead(t, s, "")
	if _, err := s.Write([]byte("one way")); err != nil {
		t.Fatal(err)
	}
	p.WantData(3, []byte("one way"))
	// Refused: the data is dropped, the status arrives, and no byte of it is taken for another stream's.
	p.Send(hbonetest.Open(5, target), hbonetest.Data{Stream: 5, Bytes: make([]byte, 10_000)})
	if err := next(t, streams).Refuse(503); err != nil {
		t.Fatal(err)
	}
	p.WantAnswer(5, 503)
	for _, f := range p.Sync() {
		if r, ok := f.(hbonetest.Reset); !ok || r.Stream != 5 {
			t.Errorf("got %+v", f)
		}
	}
}

// A client that says the same again and again, with other things in between, is understood each time, also when the peer changes the table.
func TestConformance4_3RepeatedHeaders(t *testing.T) {
	p, c := asClient(t, h2.Config{})
	lists := map[string][]http2Field{}
	for _, authority := range []string{"10.0.0.1:80", "10.0.0.2:80"} {
		lists[authority] = hbonetest.Connect(authority, http2Field{Name: "baggage", Value: "of " + authority})
	}
	opened := 0
	say := func(authority string, times int) {
		t.Helper()
		for range times {
			s, err := c.Start(lists[authority])
			if err != nil {
				t.Fatal(err)
			}
			id := p.WantConnect(authority)
			if opened++; id != uint32(2*opened-1) {
				t.Fatalf("stream %d is %s", id, authority)
			}
			s.Reset(http2.ErrCodeCancel)
			p.WantReset(id, http2.ErrCodeCancel)
		}
	}
	for _, size := range []uint32{4096, 0, 100, 4096} {
		p.Send(hbonetest.Settings{List: []http2.Setting{{ID: http2.SettingHeaderTableSize, Val: size}}})
		p.Sync()
		say("10.0.0.1:80", 3)
		say("10.0.0.2:80", 3)
		say("10.0.0.1:80", 2)
	}
}
