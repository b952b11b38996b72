package hbonetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// patience is how long a Want method waits.
const patience = 10 * time.Second

// Peer is one end of an HTTP/2 connection that does what a test says. Make one with Server, Client, AcceptTLS or DialTLS; the
// connection is closed when the test ends.
type Peer struct {
	// Manual leaves the answers to SETTINGS and PING to the test.
	Manual bool
	// Conn is the connection beneath.
	Conn net.Conn

	t      testing.TB
	r      *reader
	enc    *encoder
	client bool
	first  bool // the other end's preface has not come yet
	theirs []http2.Setting
	credit credit
}

// Server is a peer that is the server on nc, and sends SETTINGS with list.
func Server(t testing.TB, nc net.Conn, list ...http2.Setting) *Peer {
	t.Helper()
	p := newPeer(t, nc, false)
	p.Send(Settings{List: list})
	return p
}

// Client is a peer that is the client on nc, and sends the preface and SETTINGS with list.
func Client(t testing.TB, nc net.Conn, list ...http2.Setting) *Peer {
	t.Helper()
	p := newPeer(t, nc, true)
	p.Send(Bytes(http2.ClientPreface), Settings{List: list})
	return p
}

// Bare is a client that has sent nothing yet, not even the preface.
func Bare(t testing.TB, nc net.Conn) *Peer { return newPeer(t, nc, true) }

// BareServer is a server that has sent nothing yet, not even SETTINGS.
func BareServer(t testing.TB, nc net.Conn) *Peer { return newPeer(t, nc, false) }

func newPeer(t testing.TB, nc net.Conn, client bool) *Peer {
	t.Cleanup(func() { nc.Close() })
	return &Peer{t: t, Conn: nc, r: newReader(nc), enc: newEncoder(), client: client, first: !client}
}

// Send writes frames, all in one Write. It fails the test when the connection does not take them in time.
func (p *Peer) Send(frames ...Frame) {
	p.t.Helper()
	if err := p.TrySend(frames...); err != nil {
		p.t.Fatalf("send %s: %v", describe(frames), err)
	}
}

// TrySend is Send for a connection that the other end may close meanwhile.
func (p *Peer) TrySend(frames ...Frame) error {
	var b []byte
	for _, f := range frames {
		before := len(b)
		b = f.appendTo(b, p.enc)
		if d, ok := f.(Data); ok {
			p.credit.spend(d.Stream, int64(len(b)-before-9))
		}
	}
	_ = p.Conn.SetWriteDeadline(time.Now().Add(patience))
	_, err := p.Conn.Write(b)
	return err
}

// Next reads the next frame, whatever it is. SETTINGS and PING are answered unless Manual is set.
func (p *Peer) Next() (Frame, error) {
	_ = p.Conn.SetReadDeadline(time.Now().Add(patience))
	if err := p.preface(); err != nil {
		return nil, err
	}
	f, err := p.r.next()
	if err != nil {
		return nil, err
	}
	switch f := f.(type) {
	case Settings:
		if !f.Ack {
			p.theirs = append(p.theirs, f.List...)
			if !p.Manual {
				return f, p.TrySend(Settings{Ack: true})
			}
		}
	case WindowUpdate:
		p.credit.grant(f.Stream, int64(f.Increment))
	case Ping:
		if !f.Ack && !p.Manual {
			return f, p.TrySend(Ping{Data: f.Data, Ack: true})
		}
	}
	return f, nil
}

// NextRaw reads the next frame as it is: nothing is decoded, and nothing answered. A header block that was read so is lost for the table that later
// blocks may need.
func (p *Peer) NextRaw() (Raw, error) {
	_ = p.Conn.SetReadDeadline(time.Now().Add(patience))
	if err := p.preface(); err != nil {
		return Raw{}, err
	}
	return p.r.raw()
}

// preface reads a client's first bytes, once.
func (p *Peer) preface() error {
	if !p.first {
		return nil
	}
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(p.r.br, preface); err != nil {
		return err
	}
	if string(preface) != http2.ClientPreface {
		return fmt.Errorf("the preface is %q", preface)
	}
	p.first = false
	return nil
}

// want reads until a frame that match takes. SETTINGS, PING, WINDOW_UPDATE and a GOAWAY without an error that it does not take are passed
// over, everything else ends the test.
func want[F Frame](p *Peer, what string, match func(F) bool) F {
	p.t.Helper()
	for {
		f, err := p.Next()
		if err != nil {
			p.t.Fatalf("want %s: %v", what, err)
		}
		if got, ok := f.(F); ok && match(got) {
			return got
		}
		switch g := f.(type) {
		case Settings, Ping, WindowUpdate:
		case GoAway:
			if g.Code != http2.ErrCodeNo {
				p.t.Fatalf("want %s, got %s", what, describe([]Frame{f}))
			}
		default:
			p.t.Fatalf("want %s, got %s", what, describe([]Frame{f}))
		}
	}
}

// WantConnect reads a CONNECT to authority and returns its stream.
func (p *Peer) WantConnect(authority string) uint32 {
	p.t.Helper()
	h := want(p, "CONNECT "+authority, func(Headers) bool { return true })
	if Value(h.Fields, ":method") != "CONNECT" || Value(h.Fields, ":authority") != authority {
		p.t.Fatalf("want CONNECT %s, got %v", authority, h.Fields)
	}
	return h.Stream
}

// WantAnswer reads the answer to the CONNECT on stream and returns its fields.
func (p *Peer) WantAnswer(stream uint32, status int) []hpack.HeaderField {
	p.t.Helper()
	h := want(p, fmt.Sprintf("an answer on stream %d", stream), func(h Headers) bool { return h.Stream == stream })
	if got := Value(h.Fields, ":status"); got != fmt.Sprint(status) {
		p.t.Fatalf("stream %d: the answer is %s, want %d", stream, got, status)
	}
	return h.Fields
}

// WantData reads DATA on stream until it has as many bytes as body, which must be equal. The frames' ends play no part.
func (p *Peer) WantData(stream uint32, body []byte) {
	p.t.Helper()
	var got []byte
	for len(got) < len(body) {
		got = append(got, want(p, fmt.Sprintf("DATA on stream %d", stream), func(d Data) bool { return d.Stream == stream }).Bytes...)
	}
	if !bytes.Equal(got, body) {
		p.t.Fatalf("stream %d: %d bytes came, and they are not the %d wanted", stream, len(got), len(body))
	}
}

// WantEnd reads DATA on stream until END_STREAM, and returns the bytes.
func (p *Peer) WantEnd(stream uint32) []byte {
	p.t.Helper()
	var got []byte
	for {
		d := want(p, fmt.Sprintf("END_STREAM on stream %d", stream), func(d Data) bool { return d.Stream == stream })
		got = append(got, d.Bytes...)
		if d.End {
			return got
		}
	}
}

// WantReset reads until RST_STREAM on stream, over its DATA and HEADERS, and checks the code.
func (p *Peer) WantReset(stream uint32, code http2.ErrCode) {
	p.t.Helper()
	for {
		f, err := p.Next()
		if err != nil {
			p.t.Fatalf("want RST_STREAM on stream %d: %v", stream, err)
		}
		switch f := f.(type) {
		case Reset:
			if f.Stream != stream || f.Code != code {
				p.t.Fatalf("want RST_STREAM %v on stream %d, got %s", code, stream, describe([]Frame{f}))
			}
			return
		case GoAway:
			p.t.Fatalf("want RST_STREAM %v on stream %d, got %s", code, stream, describe([]Frame{f}))
		}
	}
}

// WantGoAway reads until GOAWAY, over everything else, and checks the code.
func (p *Peer) WantGoAway(code http2.ErrCode) GoAway {
	p.t.Helper()
	for {
		f, err := p.Next()
		if err != nil {
			p.t.Fatalf("want GOAWAY %v: %v", code, err)
		}
		if g, ok := f.(GoAway); ok {
			if g.Code != code {
				p.t.Fatalf("want GOAWAY %v, got %s", code, describe([]Frame{g}))
			}
			return g
		}
	}
}

// WantPing reads a PING that is no ACK; it is answered unless Manual is set.
func (p *Peer) WantPing() Ping {
	p.t.Helper()
	return want(p, "PING", func(f Ping) bool { return !f.Ack })
}

// WantSettings reads SETTINGS that are no ACK; they are acknowledged unless Manual is set.
func (p *Peer) WantSettings() []http2.Setting {
	p.t.Helper()
	return want(p, "SETTINGS", func(f Settings) bool { return !f.Ack }).List
}

// WantWindow reads WINDOW_UPDATE on stream (0: the connection's) and returns the increment.
func (p *Peer) WantWindow(stream uint32) uint32 {
	p.t.Helper()
	return want(p, fmt.Sprintf("WINDOW_UPDATE on stream %d", stream), func(f WindowUpdate) bool { return f.Stream == stream }).Increment
}

// Sync sends a PING and reads until its ACK: what was sent before has been seen. It returns the frames that came meanwhile,
// without SETTINGS, PING and WINDOW_UPDATE.
func (p *Peer) Sync() []Frame {
	p.t.Helper()
	mark := [8]byte{'s', 'y', 'n', 'c', byte(time.Now().UnixNano()), byte(time.Now().UnixNano() >> 8)}
	p.Send(Ping{Data: mark})
	var got []Frame
	for {
		f, err := p.Next()
		if err != nil {
			p.t.Fatalf("want the ACK of a PING: %v (after %s)", err, describe(got))
		}
		switch f := f.(type) {
		case Ping:
			if f.Ack && f.Data == mark {
				return got
			}
		case Settings, WindowUpdate:
		default:
			got = append(got, f)
		}
	}
}

// WantQuiet is Sync that wants nothing to come.
func (p *Peer) WantQuiet() {
	p.t.Helper()
	if got := p.Sync(); len(got) > 0 {
		p.t.Fatalf("want nothing, got %s", describe(got))
	}
}

// WantClosed reads until the other end has closed the connection.
func (p *Peer) WantClosed() {
	p.t.Helper()
	for {
		_, err := p.Next()
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			p.t.Fatal("want the end of the connection; it still stands")
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
			return
		default:
			p.t.Fatalf("want the end of the connection: %v", err)
		}
	}
}

// Drain reads and answers until the connection ends. Let it run in a goroutine of its own, when nobody uses the Peer's
// other methods than Send.
func (p *Peer) Drain() {
	for {
		f, err := p.Next()
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		_ = f
	}
}

// Setting is what the other end has set so far.
func (p *Peer) Setting(id http2.SettingID) (uint32, bool) {
	for _, s := range slices.Backward(p.theirs) {
		if s.ID == id {
			return s.Val, true
		}
	}
	return 0, false
}

// Value is the first field of that name, "" when there is none.
func Value(fields []hpack.HeaderField, name string) string {
	for _, f := range fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

func describe(frames []Frame) string {
	var b bytes.Buffer
	for i, f := range frames {
		if i > 0 {
			b.WriteString(", ")
		}
		if d, ok := f.(Data); ok {
			fmt.Fprintf(&b, "DATA{stream %d, %d bytes, end %t}", d.Stream, len(d.Bytes), d.End)
			continue
		}
		fmt.Fprintf(&b, "%T%+v", f, f)
	}
	return b.String()
}
