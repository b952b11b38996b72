package h2_test

import (
	"errors"
	"testing"

	"github.com/isthmus-mesh/isthmus/hbone/hbonetest"
	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
	"golang.org/x/net/http2"
)

func maxStreams(n uint32) http2.Setting {
	return http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: n}
}

// openN opens n tunnels at the client under test.
func openN(t *testing.T, p *hbonetest.Peer, c *h2.Conn, n int) []*h2.Stream {
	t.Helper()
	var list []*h2.Stream
	for range n {
		opened := open(t, c)
		id := p.WantConnect(target)
		p.Send(hbonetest.Answer(id, 200))
		s, err := opened.Wait()
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, s)
	}
	return list
}

func wantFull(t *testing.T, p *hbonetest.Peer, c *h2.Conn) {
	t.Helper()
	if _, err := c.Open(t.Context(), hbonetest.Connect(target)); !errors.Is(err, h2.ErrFull) {
		t.Errorf("open gave %v, want ErrFull", err)
	}
	if n := c.Available(); n != 0 {
		t.Errorf("%d streams are available", n)
	}
	p.WantQuiet()
}

// end ends a stream in both directions.
func end(t *testing.T, p *hbonetest.Peer, s *h2.Stream, id uint32) {
	t.Helper()
	p.Send(hbonetest.Data{Stream: id, End: true})
	wantRead(t, s, "")
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	p.WantEnd(id)
	<-s.Done()
}

// A client opens as many streams as SETTINGS allow, and not one more (section 5.1.2).
func TestConformance5_1_2ClientObeysTheLimit(t *testing.T) {
	p, c := asClient(t, h2.Config{}, maxStreams(3))
	<-c.Ready()
	list := openN(t, p, c, 3)
	wantFull(t, p, c)
	end(t, p, list[1], 3)
	openN(t, p, c, 1)
	wantFull(t, p, c)
	list[0].Reset(http2.ErrCodeCancel) // a reset frees its place, too
	p.WantReset(1, http2.ErrCodeCancel)
	openN(t, p, c, 1)
	wantFull(t, p, c)
}

// A half-closed stream still counts, in either direction.
func TestConformance5_1_2HalfClosedStreamsCount(t *testing.T) {
	p, c := asClient(t, h2.Config{}, maxStreams(2))
	<-c.Ready()
	list := openN(t, p, c, 2)
	p.Send(hbonetest.Data{Stream: 1, End: true})
	wantRead(t, list[0], "")
	if err := list[1].CloseWrite(); err != nil {
		t.Fatal(err)
	}
	p.WantEnd(3)
	wantFull(t, p, c)
}

// The limit may sink below what is open: nothing ends, and nothing opens until there is room again (section 5.1.2).
func TestConformance5_1_2TheLimitIsLoweredLater(t *testing.T) {
	p, c := asClient(t, h2.Config{}, maxStreams(5))
	<-c.Ready()
	list := openN(t, p, c, 4)
	p.Send(hbonetest.Settings{List: []http2.Setting{maxStreams(2)}})
	p.Sync()
	wantFull(t, p, c)
	end(t, p, list[0], 1)
	end(t, p, list[1], 3)
	wantFull(t, p, c)
	world{p, c, list[3]}.wantAliveOn(t, 7)
	end(t, p, list[2], 5)
	openN(t, p, c, 1)
	wantFull(t, p, c)
	p.Send(hbonetest.Settings{List: []http2.Setting{maxStreams(3)}})
	p.Sync()
	openN(t, p, c, 1)
	wantFull(t, p, c)
}

// A limit of 0 lets nothing open, for now (section 6.5.2).
func TestConformance6_5_2NoStreamsAtAll(t *testing.T) {
	p, c := asClient(t, h2.Config{}, maxStreams(0))
	<-c.Ready()
	wantFull(t, p, c)
	p.Send(hbonetest.Settings{List: []http2.Setting{maxStreams(1)}})
	p.Sync()
	openN(t, p, c, 1)
}

// Before SETTINGS are known a client assumes 100: Envoy closes the connection at the 101st.
func TestConformance6_5_2BeforeSettings(t *testing.T) {
	a, b := hbonetest.Pipe()
	c := h2.NewClient(a, h2.Config{})
	defer c.Close()
	p := hbonetest.BareServer(t, b)
	p.Manual = true // an ACK must not come before SETTINGS
	for range 100 {
		open(t, c)
	}
	for range 100 {
		p.WantConnect(target)
	}
	if _, err := c.Open(t.Context(), hbonetest.Connect(target)); !errors.Is(err, h2.ErrFull) {
		t.Errorf("stream 101 gave %v, want ErrFull", err)
	}
	p.Send(hbonetest.Settings{}) // no limit at all
	<-c.Ready()
	open(t, c)
	p.WantConnect(target)
}

// A server refuses what is beyond its own limit with REFUSED_STREAM; the others go on (section 5.1.2).
func TestConformance5_1_2ServerRefusesBeyondItsLimit(t *testing.T) {
	p, c, streams := asServer(t, h2.Config{MaxStreams: 2})
	for _, id := range []uint32{1, 3} {
		p.Send(hbonetest.Open(id, target))
		s := next(t, streams)
		if err := s.Respond(); err != nil {
			t.Fatal(err)
		}
		p.WantAnswer(id, 200)
		t.Cleanup(func() { s.Close() })
		if id == 3 {
			p.Send(hbonetest.Open(5, target))
			p.WantReset(5, http2.ErrCodeRefusedStream)
			world{p, c, s}.wantAliveOn(t, 3)
			p.Send(hbonetest.Reset{Stream: 1, Code: http2.ErrCodeCancel})
		}
	}
	p.Sync()
	p.Send(hbonetest.Open(7, target))
	if err := next(t, streams).Respond(); err != nil {
		t.Fatal(err)
	}
	p.WantAnswer(7, 200)
	if n := c.Streams(); n != 2 {
		t.Errorf("%d streams are open, want 2", n)
	}
}
