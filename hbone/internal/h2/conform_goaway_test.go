package h2_test

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/hbonetest"
	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
	"golang.org/x/net/http2"
)

// GOAWAY leaves what it covers to its end; what it does not cover was not processed and may be tried elsewhere (section 6.8).
func TestConformance6_8GoAwayAtAClient(t *testing.T) {
	p, c := asClient(t, h2.Config{})
	var calls []*hbonetest.Call[*h2.Stream]
	for range 3 {
		calls = append(calls, open(t, c))
		p.WantConnect(target)
	}
	p.Send(hbonetest.Answer(1, 200))
	s, err := calls[0].Wait()
	if err != nil {
		t.Fatal(err)
	}
	p.Send(hbonetest.GoAway{Last: 3, Code: http2.ErrCodeNo, Debug: "rollout"})
	if _, err := calls[2].Wait(); !errors.Is(err, h2.ErrUnprocessed) {
		t.Errorf("stream 5 is above the last: %v, want ErrUnprocessed", err)
	}
	p.Send(hbonetest.Answer(3, 200)) // covered, though not answered yet
	if _, err := calls[1].Wait(); err != nil {
		t.Errorf("stream 3 is covered: %v", err)
	}
	select {
	case <-c.GoingAway():
	case <-time.After(patience):
		t.Fatal("the connection does not go away")
	}
	if n := c.Available(); n != 0 {
		t.Errorf("%d streams are available", n)
	}
	if _, err := c.Open(t.Context(), hbonetest.Connect(target)); !errors.Is(err, h2.ErrUnprocessed) {
		t.Errorf("open gave %v, want ErrUnprocessed", err)
	}
	w := world{p, c, s}
	w.wantAlive(t)
	p.Send(hbonetest.GoAway{Last: 1, Code: http2.ErrCodeNo}) // a lower one later is allowed
	w.wantAlive(t)
	if err := c.Err(); err != nil {
		t.Errorf("the connection ended: %v", err)
	}
}

// The two steps of a server that drains: nothing is lost between them, and what comes after the second was not processed.
func TestConformance6_8TwoStepGoAwayAtAClient(t *testing.T) {
	p, c := asClient(t, h2.Config{})
	first := open(t, c)
	p.WantConnect(target)
	second := open(t, c)
	p.WantConnect(target)
	p.Send(hbonetest.GoAway{Last: 1<<31 - 1}, hbonetest.Ping{Data: [8]byte{1}})
	p.Send(hbonetest.Answer(1, 200), hbonetest.GoAway{Last: 1})
	if _, err := first.Wait(); err != nil {
		t.Errorf("stream 1: %v", err)
	}
	if _, err := second.Wait(); !errors.Is(err, h2.ErrUnprocessed) {
		t.Errorf("stream 3: %v, want ErrUnprocessed", err)
	}
}

// GOAWAY with an error and the end of the connection: what was open is lost, what was not covered is not.
func TestConformance6_8GoAwayWithAnErrorAndTheEnd(t *testing.T) {
	p, c := asClient(t, h2.Config{})
	first := open(t, c)
	p.WantConnect(target)
	p.Send(hbonetest.Answer(1, 200))
	s, err := first.Wait()
	if err != nil {
		t.Fatal(err)
	}
	second := open(t, c)
	p.WantConnect(target)
	third := open(t, c)
	p.WantConnect(target)
	p.Send(hbonetest.GoAway{Last: 3, Code: http2.ErrCodeEnhanceYourCalm})
	p.Conn.Close()
	wantLost(t, s)
	if _, err := second.Wait(); err == nil || errors.Is(err, h2.ErrUnprocessed) {
		t.Errorf("stream 3 may have been processed: %v", err)
	}
	if _, err := third.Wait(); !errors.Is(err, h2.ErrUnprocessed) {
		t.Errorf("stream 5 was not processed: %v", err)
	}
	wantEnded(t, c)
}

// REFUSED_STREAM says that nothing was processed (section 8.7), every other code does not.
func TestConformance8_7RefusedStream(t *testing.T) {
	for _, code := range []http2.ErrCode{http2.ErrCodeRefusedStream, http2.ErrCodeCancel, http2.ErrCodeNo, http2.ErrCodeInternal} {
		p, c := asClient(t, h2.Config{})
		opened := open(t, c)
		p.WantConnect(target)
		p.Send(hbonetest.Reset{Stream: 1, Code: code})
		if _, err := opened.Wait(); err == nil || errors.Is(err, h2.ErrUnprocessed) != (code == http2.ErrCodeRefusedStream) {
			t.Errorf("%v: open gave %v", code, err)
		}
		if err := c.Err(); err != nil {
			t.Errorf("%v: the connection ended: %v", code, err)
		}
	}
}

// A connection that ends before an answer leaves open whether the peer acted.
func TestConformance8_7LostBeforeTheAnswer(t *testing.T) {
	p, c := asClient(t, h2.Config{})
	opened := open(t, c)
	p.WantConnect(target)
	p.Conn.Close()
	if _, err := opened.Wait(); err == nil || errors.Is(err, h2.ErrUnprocessed) || errors.Is(err, io.EOF) {
		t.Errorf("open gave %v", err)
	}
	wantEnded(t, c)
	if _, err := c.Open(t.Context(), hbonetest.Connect(target)); !errors.Is(err, h2.ErrUnprocessed) {
		t.Errorf("nothing was sent: %v", err)
	}
}

// A server drains in two steps, and takes what was on its way between them.
func TestConformance6_8AServerDrains(t *testing.T) {
	p, c, streams := asServer(t, h2.Config{})
	p.Manual = true
	p.Send(hbonetest.Open(1, target))
	s := next(t, streams)
	if err := s.Respond(); err != nil {
		t.Fatal(err)
	}
	p.WantAnswer(1, 200)
	drained := hbonetest.Go(func() (bool, error) { return true, c.Shutdown(t.Context()) })
	if g := p.WantGoAway(http2.ErrCodeNo); g.Last != 1<<31-1 {
		t.Fatalf("the first GOAWAY says %d", g.Last)
	}
	ping := p.WantPing()
	p.Send(hbonetest.Ping{Data: ping.Data, Ack: true}) // before what was queued, as ztunnel answers
	p.Send(hbonetest.Open(3, target))
	late := next(t, streams)
	if err := late.Respond(); err != nil {
		t.Fatal(err)
	}
	if got := p.WantPing(); got != ping {
		t.Fatalf("got %+v, want another PING of the drain", got)
	}
	p.WantAnswer(3, 200)
	p.Send(hbonetest.Ping{Data: ping.Data, Ack: true})
	if got := p.WantPing(); got != ping {
		t.Fatalf("got %+v, want one more PING of the drain: a CONNECT came in the last round", got)
	}
	p.Send(hbonetest.Ping{Data: ping.Data, Ack: true})
	if g := p.WantGoAway(http2.ErrCodeNo); g.Last != 3 {
		t.Fatalf("the second GOAWAY says %d, want 3", g.Last)
	}
	// Above the last: not processed, and silence about it; but its header block counts for the table.
	p.Send(hbonetest.Headers{Stream: 5, Fields: connectWith("baggage", "in the table")})
	for _, f := range p.Sync() {
		if r, ok := f.(hbonetest.Reset); !ok || r.Code != http2.ErrCodeRefusedStream {
			t.Errorf("got %+v", f)
		}
	}
	if len(streams) > 0 {
		t.Error("stream 5 was accepted")
	}
	for id, s := range map[uint32]*h2.Stream{1: s, 3: late} {
		world{p, c, s}.wantAliveOn(t, id)
		end(t, p, s, id)
	}
	p.WantClosed()
	p.Conn.Close()
	if _, err := drained.Wait(); err != nil {
		t.Errorf("shutdown gave %v", err)
	}
	wantEnded(t, c)
}

// A peer that never ceases to open does not put the last GOAWAY off for ever.
func TestConformance6_8AServerDrainsWhoeverOpens(t *testing.T) {
	p, c, streams := asServer(t, h2.Config{})
	p.Manual = true
	drained := hbonetest.Go(func() (bool, error) { return true, c.Shutdown(t.Context()) })
	p.WantGoAway(http2.ErrCodeNo)
	for id := uint32(1); id < 11; id += 2 {
		ping := p.WantPing()
		p.Send(hbonetest.Open(id, target))
		if err := next(t, streams).Respond(); err != nil {
			t.Fatal(err)
		}
		p.WantAnswer(id, 200)
		p.Send(hbonetest.Ping{Data: ping.Data, Ack: true})
	}
	if g := p.WantGoAway(http2.ErrCodeNo); g.Last != 9 {
		t.Errorf("the last GOAWAY says %d, want 9", g.Last)
	}
	c.Close()
	p.Conn.Close()
	_, _ = drained.Wait() // it is closed: that is no drain's end
}

// Nor does one that opens on and on and never answers, or answers each PING late: he is told the last stream after 10 s, and what he opened goes on.
func TestConformance6_8AServerDrainsWhoeverAnswers(t *testing.T) {
	for name, late := range map[string]time.Duration{"never": time.Hour, "late": 4 * time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, c, streams := asServer(t, h2.Config{})
				p.Manual = true
				start := time.Now()
				drained := hbonetest.Go(func() (bool, error) { return true, c.Shutdown(t.Context()) })
				p.WantGoAway(http2.ErrCodeNo)
				ping := p.WantPing()
				asked := time.Now()
				open := map[uint32]*h2.Stream{}
				last := uint32(0)
				time.Sleep(time.Second / 2)             // not in the instant that the 10 s end in
				for id := uint32(1); id < 40; id += 2 { // one every second, 20 in all
					time.Sleep(time.Second)
					p.Send(hbonetest.Open(id, target))
					if time.Since(asked) >= late {
						p.Send(hbonetest.Ping{Data: ping.Data, Ack: true})
						asked = time.Now()
					}
					synctest.Wait()
					if len(streams) == 0 {
						break
					}
					last, open[id] = id, next(t, streams)
					if err := open[id].Respond(); err != nil {
						t.Fatal(err)
					}
				}
				took := time.Since(start)
				if took < 10*time.Second || took > 12*time.Second {
					t.Fatalf("no stream was taken any more after %v, want 10 s", took)
				}
				if g := p.WantGoAway(http2.ErrCodeNo); g.Last != last {
					t.Errorf("the last GOAWAY says %d, want %d", g.Last, last)
				}
				for id, s := range open {
					end(t, p, s, id)
				}
				p.WantClosed()
				p.Conn.Close()
				if _, err := drained.Wait(); err != nil {
					t.Errorf("shutdown gave %v", err)
				}
				wantEnded(t, c)
			})
		})
	}
}

func (w world) wantAliveOn(t testing.TB, id uint32) {
	t.Helper()
	w.p.Send(hbonetest.Data{Stream: id, Bytes: []byte("still")})
	got := make([]byte, 5)
	if _, err := io.ReadFull(w.s, got); err != nil || string(got) != "still" {
		t.Fatalf("stream %d read %q, %v", id, got, err)
	}
	if _, err := w.s.Write([]byte("alive")); err != nil {
		t.Fatalf("stream %d does not write: %v", id, err)
	}
	w.p.WantData(id, []byte("alive"))
}

// A peer that never answers the drain's PING does not keep Shutdown beyond its context.
func TestConformance6_8ADrainEndsWithItsContext(t *testing.T) {
	inBothRoles(t, h2.Config{}, func(t *testing.T, w world) {
		w.p.Manual = true
		ctx, cancel := context.WithCancelCause(t.Context())
		drained := hbonetest.Go(func() (bool, error) { return true, w.c.Shutdown(ctx) })
		w.p.WantGoAway(http2.ErrCodeNo)
		enough := errors.New("enough")
		cancel(enough)
		if _, err := drained.Wait(); !errors.Is(err, enough) {
			t.Errorf("shutdown gave %v, want its context's cause", err)
		}
		wantLost(t, w.s)
		w.p.WantClosed()
		w.p.Conn.Close()
	})
}

// A client that drains opens nothing more; its streams go on, then the connection ends.
func TestConformance6_8AClientDrains(t *testing.T) {
	w := roles["client"](t, h2.Config{})
	drained := hbonetest.Go(func() (bool, error) { return true, w.c.Shutdown(t.Context()) })
	if g := w.p.WantGoAway(http2.ErrCodeNo); g.Last != 0 {
		t.Errorf("the last stream of a server that we processed is %d", g.Last)
	}
	if _, err := w.c.Open(t.Context(), hbonetest.Connect(target)); !errors.Is(err, h2.ErrUnprocessed) {
		t.Errorf("open gave %v, want ErrUnprocessed", err)
	}
	w.wantAlive(t)
	w.p.Send(hbonetest.Data{Stream: 1, End: true})
	wantRead(t, w.s, "")
	if err := w.s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	w.p.WantClosed()
	w.p.Conn.Close()
	if _, err := drained.Wait(); err != nil {
		t.Errorf("shutdown gave %v", err)
	}
}

// GOAWAY from a client ends nothing at the server: it still serves what is open.
func TestConformance6_8GoAwayAtAServer(t *testing.T) {
	w := roles["server"](t, h2.Config{})
	w.p.Send(hbonetest.GoAway{Last: 0, Code: http2.ErrCodeNo})
	w.wantAlive(t)
}

// Close is GOAWAY or at least the end, and loses every stream.
func TestConformance5_4CloseEndsAll(t *testing.T) {
	inBothRoles(t, h2.Config{}, func(t *testing.T, w world) {
		blocked := hbonetest.Go(func() (int, error) { return w.s.Read(make([]byte, 1)) })
		w.c.Close()
		if _, err := blocked.Wait(); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("read gave %v", err)
		}
		if _, err := w.s.Write([]byte("x")); err == nil {
			t.Error("write gave no error")
		}
		w.p.WantClosed()
		w.p.Conn.Close()
		if err := w.c.Close(); err != nil {
			t.Errorf("a second Close gave %v", err)
		}
	})
}

// The end of the TCP connection is never the end of a stream, whichever way it comes.
func TestConformance5_4LossIsNoEnd(t *testing.T) {
	ends := map[string]func(p *hbonetest.Peer){
		"FIN":             func(p *hbonetest.Peer) { p.Conn.Close() },
		"half a FIN":      func(p *hbonetest.Peer) { _ = p.Conn.(*hbonetest.Conn).CloseWrite() },
		"RST":             func(p *hbonetest.Peer) { p.Conn.(*hbonetest.Conn).Reset() },
		"within a header": func(p *hbonetest.Peer) { p.Send(hbonetest.Bytes{0, 0, 9, 0}); p.Conn.Close() },
		"within DATA":     func(p *hbonetest.Peer) { p.Send(hbonetest.Bytes{0, 0, 9, 0, 0, 0, 0, 0, 1, 'x'}); p.Conn.Close() },
		"within DATA that would end the stream": func(p *hbonetest.Peer) {
			p.Send(hbonetest.Bytes{0, 0, 9, 0, 1, 0, 0, 0, 1, 'x'})
			p.Conn.Close()
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			inBothRoles(t, h2.Config{}, func(t *testing.T, w world) {
				w.p.Sync()
				end(w.p)
				wantLost(t, w.s)
				wantEnded(t, w.c)
			})
		})
	}
}

// A drain ends when the peer has all that was sent, also when he keeps the connection open.
func TestConformance6_8ADrainDoesNotWaitForThePeersEnd(t *testing.T) {
	inBothRoles(t, h2.Config{}, func(t *testing.T, w world) {
		drained := hbonetest.Go(func() (time.Duration, error) {
			start := time.Now()
			err := w.c.Shutdown(t.Context())
			return time.Since(start), err
		})
		w.p.WantGoAway(http2.ErrCodeNo)
		w.p.Send(hbonetest.Data{Stream: 1, End: true})
		wantRead(t, w.s, "")
		if _, err := w.s.Write([]byte("the last")); err != nil {
			t.Fatal(err)
		}
		if err := w.s.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got := w.p.WantEnd(1); string(got) != "the last" {
			t.Errorf("read %q", got)
		}
		for w.p.WantPing().Data != [8]byte{'b', 'y', 'e'} { // those before are the drain's
		}
		if took, err := drained.Wait(); err != nil || took > 5*time.Second {
			t.Errorf("shutdown gave %v after %v", err, took)
		}
		wantEnded(t, w.c)
	})
}

// The GOAWAY of a connection error arrives although the peer has sent more than was read: TCP would throw it away when we closed at once. Who goes on
// sending is not listened to for long.
func TestConformance5_4_1GoAwayArrives(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 20 {
		far, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		near, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		c := h2.NewServer(near, h2.Config{}, func(*h2.Stream) {})
		p := hbonetest.Client(t, far)
		sent := hbonetest.Go(func() (bool, error) {
			return true, p.TrySend(hbonetest.Data{Bytes: []byte("stream 0")}, hbonetest.Bytes(make([]byte, 4<<20)))
		})
		p.WantGoAway(http2.ErrCodeProtocol)
		if _, err := sent.Wait(); err != nil {
			t.Errorf("the rest was not taken: %v", err)
		}
		far.Close()
		wantEnded(t, c)
	}
	far, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := h2.NewServer(near, h2.Config{}, func(*h2.Stream) {})
	p := hbonetest.Client(t, far)
	go p.Drain()
	start := time.Now()
	for p.TrySend(hbonetest.Data{Bytes: []byte("stream 0")}) == nil {
		if time.Since(start) > patience {
			t.Fatal("it is still listened to")
		}
	}
	wantEnded(t, c)
}

// What a peer has answered it has processed, whatever its GOAWAY says: to try it again could do it twice.
func TestConformance6_8GoAwayBelowAnAnswer(t *testing.T) {
	p, c := asClient(t, h2.Config{})
	opened := open(t, c)
	p.Send(hbonetest.Answer(p.WantConnect(target), 200), hbonetest.Data{Stream: 1, Bytes: []byte("done")})
	s, err := opened.Wait()
	if err != nil {
		t.Fatal(err)
	}
	p.Send(hbonetest.GoAway{Last: 0, Code: http2.ErrCodeInternal})
	got := make([]byte, 4)
	if _, err := io.ReadFull(s, got); err != nil || string(got) != "done" {
		t.Errorf("read %q, %v", got, err)
	}
	_, err = s.Read(got)
	if !errors.Is(err, syscall.ECONNRESET) || errors.Is(err, h2.ErrUnprocessed) {
		t.Errorf("read gave %v, want ECONNRESET and not ErrUnprocessed", err)
	}
}
