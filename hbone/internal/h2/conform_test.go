package h2_test

import (
	"errors"
	"io"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/hbonetest"
	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// The conformance tests speak single frames to a Conn from outside; every name begins with the section of RFC 9113 that it is about.

const target = "10.0.0.7:8080"

// patience is how long a test waits for what must come.
const patience = 10 * time.Second

// asServer is a Conn in the server's role and a scripted client. Accepted streams come out of the channel, not answered yet.
func asServer(t testing.TB, cfg h2.Config, list ...http2.Setting) (*hbonetest.Peer, *h2.Conn, <-chan *h2.Stream) {
	t.Helper()
	a, b := hbonetest.Pipe()
	streams := make(chan *h2.Stream, 1000)
	c := h2.NewServer(b, cfg, func(s *h2.Stream) {
		select {
		case streams <- s:
		case <-s.Done(): // more than a test looks at
		}
	})
	t.Cleanup(func() { a.Close(); c.Close() })
	return hbonetest.Client(t, a, list...), c, streams
}

// asClient is a Conn in the client's role and a scripted server.
func asClient(t testing.TB, cfg h2.Config, list ...http2.Setting) (*hbonetest.Peer, *h2.Conn) {
	t.Helper()
	a, b := hbonetest.Pipe()
	c := h2.NewClient(a, cfg)
	t.Cleanup(func() { b.Close(); c.Close() })
	return hbonetest.Server(t, b, list...), c
}

// open makes the client open a stream.
func open(t testing.TB, c *h2.Conn) *hbonetest.Call[*h2.Stream] {
	return hbonetest.Go(func() (*h2.Stream, error) { return c.Open(t.Context(), hbonetest.Connect(target)) })
}

// world is a Conn in one role with one tunnel, which is stream 1.
type world struct {
	p *hbonetest.Peer
	c *h2.Conn
	s *h2.Stream
}

// roles are both roles of a Conn.
var roles = map[string]func(t testing.TB, cfg h2.Config, list ...http2.Setting) world{
	"server": func(t testing.TB, cfg h2.Config, list ...http2.Setting) world {
		p, c, streams := asServer(t, cfg, list...)
		p.Send(hbonetest.Open(1, target))
		s := next(t, streams)
		if err := s.Respond(); err != nil {
			t.Fatal(err)
		}
		p.WantAnswer(1, 200)
		return world{p, c, s}
	},
	"client": func(t testing.TB, cfg h2.Config, list ...http2.Setting) world {
		p, c := asClient(t, cfg, list...)
		opened := open(t, c)
		id := p.WantConnect(target)
		if id != 1 {
			t.Fatalf("the first stream is %d (RFC 9113, section 5.1.1)", id)
		}
		p.Send(hbonetest.Answer(1, 200))
		s, err := opened.Wait()
		if err != nil {
			t.Fatal(err)
		}
		return world{p, c, s}
	},
}

// inBothRoles runs a test for a server and for a client.
func inBothRoles(t *testing.T, cfg h2.Config, test func(t *testing.T, w world), list ...http2.Setting) {
	t.Helper()
	for role, begin := range roles {
		t.Run(role, func(t *testing.T) { test(t, begin(t, cfg, list...)) })
	}
}

// next is the next stream that the server accepts.
func next(t testing.TB, streams <-chan *h2.Stream) *h2.Stream {
	t.Helper()
	select {
	case s := <-streams:
		return s
	case <-time.After(patience):
		t.Fatal("no stream was accepted")
		return nil
	}
}

// wantEnded waits for the end of the connection.
func wantEnded(t testing.TB, c *h2.Conn) {
	t.Helper()
	select {
	case <-c.Done():
	case <-time.After(patience):
		t.Fatal("the connection still stands")
	}
}

// wantLost checks that a stream did not end cleanly.
func wantLost(t testing.TB, s *h2.Stream) {
	t.Helper()
	_ = s.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, plain{s}); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read gave %v, want ECONNRESET", err)
	}
}

// wantRead reads all of a stream, which must end cleanly.
func wantRead(t testing.TB, s *h2.Stream, want string) {
	t.Helper()
	_ = s.SetReadDeadline(time.Now().Add(patience))
	if got, err := io.ReadAll(s); err != nil || string(got) != want {
		t.Errorf("read %d bytes, %v, want %d and the end", len(got), err, len(want))
	}
}

// wantAlive checks that connection and tunnel still work in both directions.
func (w world) wantAlive(t testing.TB) {
	t.Helper()
	w.p.Send(hbonetest.Data{Stream: 1, Bytes: []byte("still")})
	got := make([]byte, 5)
	_ = w.s.SetDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(w.s, got); err != nil || string(got) != "still" {
		t.Fatalf("the tunnel read %q, %v", got, err)
	}
	if _, err := w.s.Write([]byte("alive")); err != nil {
		t.Fatalf("the tunnel does not write: %v", err)
	}
	w.p.WantData(1, []byte("alive"))
}

// plain hides everything but Read.
type plain struct{ io.Reader }

type http2Field = hpack.HeaderField
