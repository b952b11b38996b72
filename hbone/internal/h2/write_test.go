package h2

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

func TestSaturationIsMostOfTheLastWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b busyness
		if b.high(false) {
			t.Error("saturated before anything was sent")
		}
		work := func(busy, idle time.Duration, n int) {
			for range n {
				b.begin()
				time.Sleep(busy)
				b.end()
				time.Sleep(idle)
			}
		}
		work(time.Millisecond, 9*time.Millisecond, 30)
		if b.high(false) {
			t.Error("saturated at a tenth of the time")
		}
		work(9*time.Millisecond, time.Millisecond, 30)
		if !b.high(false) {
			t.Error("not saturated at nine tenths of the time")
		}
		time.Sleep(time.Second)
		if b.high(false) {
			t.Error("saturated long after the last byte")
		}
		b.begin()
		time.Sleep(2 * busyFor)
		if !b.high(true) {
			t.Error("not saturated in the middle of a long write")
		}
	})
}

func TestYieldingStopsWhereItDoesNotPay(t *testing.T) {
	const limit = time.Millisecond
	tests := map[string]struct {
		took     time.Duration
		gathered int
		least    int // yields of a thousand
		most     int
	}{
		"others join":          {took: limit / 10, gathered: 100, least: 1000, most: 1000},
		"very many join":       {took: 10 * limit, gathered: 10_000, least: 1000, most: 1000},
		"nobody joins":         {took: limit / 10, least: 100, most: 520},
		"processors are taken": {took: 10 * limit, gathered: 1000, least: 10, most: 50},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var y yielding
			n := 0
			for range 1000 {
				if y.wanted() {
					n++
					y.done(tt.took, limit, tt.gathered)
				}
			}
			if n < tt.least || n > tt.most {
				t.Errorf("%d yields of 1000, want %d to %d", n, tt.least, tt.most)
			}
		})
	}
}

// Neighbours that send little keep a window small on a short path; a stream that is alone gets more.
func TestWindowOfAStreamThatIsAlone(t *testing.T) {
	for name, neighbour := range map[string]bool{"alone": false, "with a neighbour": true} {
		t.Run(name, func(t *testing.T) {
			c := &Conn{streams: map[uint32]*Stream{}, born: time.Now().Add(-time.Second)}
			c.rtt = rtt{least: 50 * time.Microsecond, now: 20 * time.Millisecond, last: time.Now()}
			s := &Stream{}
			c.begin(s, 1)
			// 4 MiB came within the latest 20 ms: far more than a window in the shortest round trip, which is nothing.
			for range 8 {
				s.consumed = s.window / 4
				s.measuredFrom = uint32((time.Since(c.born) - 20*time.Millisecond).Microseconds())
				s.measured = 4 << 20
				if neighbour {
					c.turned = true
				}
				s.tune()
			}
			if want := map[bool]uint32{false: aloneWindow, true: 512 << 10}[neighbour]; s.window != want {
				t.Errorf("the window is %d, want %d", s.window, want)
			}
		})
	}
}

// Where a round trip is short, a stream that has neighbours needs little, and its queue is what they wait behind.
func TestWindowShrinksForNeighbours(t *testing.T) {
	for name, tt := range map[string]struct {
		cfg         Config
		least, most uint32
	}{
		"default":       {least: 256 << 10, most: 300 << 10},
		"a small start": {cfg: Config{StreamWindow: 64 << 10}, least: 64 << 10, most: 64 << 10},
		"a fixed one":   {cfg: Config{MaxStreamWindow: 1}, least: 512 << 10, most: 512 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			c := &Conn{cfg: tt.cfg, streams: map[uint32]*Stream{}, born: time.Now().Add(-time.Second)}
			c.rtt = rtt{least: 20 * time.Microsecond, now: time.Millisecond, last: time.Now()}
			s := &Stream{}
			c.begin(s, 1)
			for range 20 {
				s.consumed = s.window / 4
				s.measuredFrom = uint32((time.Since(c.born) - 2*time.Millisecond).Microseconds())
				s.measured = 1 << 20
				c.turned = true
				s.tune()
			}
			if s.window < tt.least || s.window > tt.most {
				t.Errorf("the window is %d, want %d to %d", s.window, tt.least, tt.most)
			}
			if want := int64(s.window) - int64(c.cfg.streamWindow()); c.growth != want {
				t.Errorf("windows have grown by %d, counted are %d", want, c.growth)
			}
		})
	}
}

// The first round trip may have met a busy processor: more follow soon, and then few.
func TestRoundTripsAreMeasuredSoonAtFirst(t *testing.T) {
	c := &Conn{}
	c.cw = http2.NewFramer(io.Discard, nil)
	now, early, all := time.Now(), 0, 0
	for i := range 10_000 {
		now = now.Add(time.Millisecond)
		if c.measure(now); c.rtt.sent.IsZero() {
			continue
		}
		all++
		if i < 200 {
			early++
		}
		took := 100 * time.Microsecond
		if all == 1 {
			took = 5 * time.Millisecond
		}
		c.rtt.measured(now.Add(took))
	}
	if early < rttEarly || all > 30 {
		t.Errorf("%d PINGs in a fifth of a second, %d in ten seconds", early, all)
	}
	if c.rtt.least != 100*time.Microsecond {
		t.Errorf("the shortest round trip is %v", c.rtt.least)
	}
}
