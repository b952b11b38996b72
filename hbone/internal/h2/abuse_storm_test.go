package h2_test

import (
	"testing"
	"testing/synctest"
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
		_ = s.Await(t.Context())
		w.p.WantReset(id, http2.ErrCodeCancel)
	}
	w.wantAlive(t)
	wantHealthy(t, w.c)
}

// A hostile server: interim answers that never come to an end (section 8.1).
func TestAbuseInterimAnswers(t *testing.T) {
	p, c := asClient(t, h2.Config{})
	opened := open(t, c)
	p.WantConnect(target)
	go p.Drain()
	m := watch()
	rounds := 0
	for ; rounds < roundLimit && c.Streams() > 0; rounds++ {
		sent := hbonetest.Go(func() (bool, error) {
			return true, p.TrySend(hbonetest.Headers{Stream: 1, Fields: fields(":status", "103", "link", "x")})
		})
		if _, err := sent.Wait(); err != nil {
			break
		}
	}
	if _, err := opened.Wait(); err == nil {
		t.Error("open has a tunnel")
	}
	grown, cpu := m.end()
	t.Logf("%d interim answers, %d KiB of heap, %v of processor", rounds, grown>>10, cpu.Round(time.Millisecond))
	if rounds == roundLimit {
		t.Error("there is no end to interim answers")
	}
	if grown > memoryLimit {
		t.Errorf("the heap grew by %d KiB", grown>>10)
	}
}

// MadeYouReset (CVE-2025-8671) against a server that answers at once: neither the answers nor the DATA behind END_STREAM pay for what is provoked.
func TestAbuseProvokedResetsOfTunnels(t *testing.T) {
	body := make([]byte, 16<<10)
	rounds := map[string]func(id uint32) []hbonetest.Frame{
		"DATA after END_STREAM": func(id uint32) []hbonetest.Frame {
			return []hbonetest.Frame{hbonetest.Headers{Stream: id, Fields: hbonetest.Connect(target), End: true}, hbonetest.Data{Stream: id, Bytes: body}}
		},
		"the window overflows": func(id uint32) []hbonetest.Frame {
			return []hbonetest.Frame{hbonetest.Open(id, target), hbonetest.WindowUpdate{Stream: id, Increment: 1<<31 - 1}}
		},
		"trailers without an end": func(id uint32) []hbonetest.Frame {
			return []hbonetest.Frame{hbonetest.Open(id, target), hbonetest.Headers{Stream: id, Fields: fields("a", "b")}}
		},
	}
	for name, round := range rounds {
		t.Run(name, func(t *testing.T) {
			p, c, streams := asServer(t, h2.Config{})
			stop := make(chan struct{})
			defer close(stop)
			go func() {
				for {
					select {
					case s := <-streams:
						_ = s.Respond()
					case <-stop:
						return
					}
				}
			}()
			go p.Drain()
			n := 0
			for ; n < roundLimit && c.Err() == nil; n++ {
				sent := hbonetest.Go(func() (bool, error) { return true, p.TrySend(round(uint32(2*n + 1))...) })
				if _, err := sent.Wait(); err != nil {
					break
				}
			}
			if n == roundLimit {
				t.Error("there is no end to it")
			}
			wantEnded(t, c)
			t.Logf("cut off after %d rounds: %v", n, c.Err())
		})
	}
}

// A tunnel that says nothing for days, on a connection whose ends ask after each other every ten seconds, stands.
func TestHealthyIdleDays(t *testing.T) {
	for role, begin := range roles {
		t.Run(role, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := begin(t, h2.Config{PingInterval: 15 * time.Second})
				ping := time.NewTicker(10 * time.Second)
				defer ping.Stop()
				for range 5 * 24 * 360 {
					<-ping.C
					w.p.Send(hbonetest.Ping{}, hbonetest.Settings{})
					w.p.Sync()
				}
				w.wantAlive(t)
				wantHealthy(t, w.c)
			})
		})
	}
}

// Thousands of CONNECTs whose callers wait for a target that does not answer, and give up after two seconds, are no rapid reset.
func TestHealthyDialsThatAreGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, c, streams := asServer(t, h2.Config{})
		id := uint32(1)
		for range 50 {
			var opens, resets []hbonetest.Frame
			for range 100 {
				opens = append(opens, hbonetest.Open(id, target))
				resets = append(resets, hbonetest.Reset{Stream: id, Code: http2.ErrCodeCancel})
				id += 2
			}
			p.Send(opens...)
			p.Sync()
			time.Sleep(2 * time.Second) // the callers' patience, on the bubble's clock
			p.Send(resets...)
			p.Sync()
			for range 100 {
				next(t, streams)
			}
		}
		wantHealthy(t, c)
	})
}
