package h2_test

import (
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/hbonetest"
	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
	"golang.org/x/net/http2"
)

// A million tunnels on one connection, each answered and then given up by the client (istio#60074: an abort storm). Nothing of them stays,
// and the connection is not taken for an attack: who waits for answers resets no faster than the server serves.
func TestHealthyAbortStorm(t *testing.T) {
	n := 1_000_000
	if testing.Short() || raceEnabled {
		n = 20_000
	}
	p, c, streams := asServer(t, h2.Config{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range n {
			s := <-streams
			if s.Respond() == nil {
				_, _ = s.Write([]byte("hello"))
			}
		}
	}()
	m := watch()
	const parallel = 50
	for i := 0; i < n; i += parallel {
		var opens, resets []hbonetest.Frame
		for j := range parallel {
			id := uint32(2*(i+j) + 1)
			opens = append(opens, hbonetest.Open(id, target))
			resets = append(resets, hbonetest.Reset{Stream: id, Code: http2.ErrCodeCancel})
		}
		p.Send(opens...)
		for answered := 0; answered < parallel; {
			f, err := p.Next()
			if err != nil {
				t.Fatalf("after %d tunnels: %v; %v", i, err, c.Err())
			}
			switch f := f.(type) {
			case hbonetest.Headers:
				answered++
			case hbonetest.Data:
				p.Send(hbonetest.WindowUpdate{Increment: uint32(len(f.Bytes))})
			case hbonetest.GoAway, hbonetest.Reset:
				t.Fatalf("after %d tunnels: %+v", i, f)
			}
		}
		p.Send(resets...)
	}
	<-ended
	p.Sync()
	grown, cpu := m.end()
	t.Logf("%d tunnels: %d KiB of heap, %v of processor (%v each)", n, grown>>10, cpu.Round(time.Millisecond), (cpu / time.Duration(n)).Round(100*time.Nanosecond))
	wantHealthy(t, c)
	if left := c.Streams(); left != 0 {
		t.Errorf("%d streams are left", left)
	}
	if grown > memoryLimit {
		t.Errorf("the heap grew by %d KiB", grown>>10)
	}
}

// Tunnels that last a moment: the client closes each as soon as it is answered, as h2.Stream.Close does it, and the server's user does so too.
// Some are refused, and reset by the client as every client does.
func TestHealthyShortTunnels(t *testing.T) {
	p, c, streams := asServer(t, h2.Config{})
	n := 50_000
	if testing.Short() || raceEnabled {
		n = 5_000
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for i := range n {
			s := <-streams
			if i%3 == 0 {
				_ = s.Refuse(503)
				continue
			}
			_ = s.Respond()
			s.Close()
		}
	}()
	const parallel = 50
	for i := 0; i < n; i += parallel {
		var opens, ends []hbonetest.Frame
		for j := range parallel {
			id := uint32(2*(i+j) + 1)
			opens = append(opens, hbonetest.Open(id, target))
			ends = append(ends, hbonetest.Data{Stream: id, End: true}, hbonetest.Reset{Stream: id, Code: http2.ErrCodeCancel})
		}
		p.Send(opens...)
		for answered := 0; answered < parallel; {
			f, err := p.Next()
			if err != nil {
				t.Fatalf("after %d tunnels: %v; %v", i, err, c.Err())
			}
			switch f := f.(type) {
			case hbonetest.Headers:
				answered++
			case hbonetest.GoAway:
				t.Fatalf("after %d tunnels: %+v", i, f)
			}
		}
		p.Send(ends...)
	}
	<-ended
	p.Sync()
	wantHealthy(t, c)
	if left := c.Streams(); left != 0 {
		t.Errorf("%d streams are left", left)
	}
}

// A client's thousands of refusals, as ztunnel sends them: HEADERS with END_STREAM, then RST_STREAM; and CONNECTs that it gave up,
// whose answers cross its RST_STREAM.
func TestHealthyRefusals(t *testing.T) {
	w := roles["client"](t, h2.Config{})
	for i := range 5000 {
		s, err := w.c.Start(hbonetest.Connect(target))
		if err != nil {
			t.Fatalf("after %d refusals: %v", i, err)
		}
		id := w.p.WantConnect(target)
		if i%2 == 0 {
			s.Reset(http2.ErrCodeCancel)
			w.p.WantReset(id, http2.ErrCodeCancel)
			w.p.Send(hbonetest.Answer(id, 200), hbonetest.Reset{Stream: id, Code: http2.ErrCodeCancel})
			continue
		}
		w.p.Send(hbonetest.Headers{Stream: id, Fields: fields(":status", "503"), End: true}, hbonetest.Reset{Stream: id, Code: http2.ErrCodeNo})
		<-s.Answered()
		w.p.WantReset(id, http2.ErrCodeCancel)
	}
	w.wantAlive(t)
	wantHealthy(t, w.c)
}
