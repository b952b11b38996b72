package load

import (
	"context"
	"errors"
	"net"
	"runtime"
	"slices"
	"testing"
	"time"
)

func TestQuantilesAreNear(t *testing.T) {
	var h Histogram
	var all []time.Duration
	for i := range 10000 {
		d := time.Duration(i*i) * 10
		all = append(all, d)
		h.Add(d)
	}
	c := Counts{}
	h.AddTo(c)
	slices.Sort(all)
	for _, q := range []float64{0.001, 0.5, 0.99, 1} {
		want := all[max(int(q*float64(len(all)))-1, 0)]
		if got := c.Quantile(q); (got - want).Abs() > want/128+1 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if got := (Counts{}).Quantile(0.5); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

func TestHistogramTakesAnyDuration(t *testing.T) {
	for d, want := range map[time.Duration]time.Duration{-1: 0, 0: 0, 1: 1, 63: 63} {
		var h Histogram
		c := Counts{}
		h.Add(d)
		h.AddTo(c)
		if got := c.Quantile(1); got != want {
			t.Errorf("%d becomes %d", d, got)
		}
	}
	var h Histogram
	h.Add(1 << 62)
	c := Counts{}
	h.AddTo(c)
	if c.Quantile(1) < 5*time.Minute {
		t.Errorf("a very long duration becomes %v", c.Quantile(1))
	}
}

func TestSince(t *testing.T) {
	got := Counts{1: 5, 2: 3, 9: 1}.Since(Counts{1: 2, 2: 3})
	if len(got) != 2 || got[1] != 3 || got[9] != 1 {
		t.Errorf("got %v", got)
	}
}

// opener connects to an App in this process.
type opener struct {
	app  *App
	fail error
}

func (o opener) Open(context.Context) (net.Conn, error) {
	if o.fail != nil {
		return nil, o.fail
	}
	a, b := net.Pipe()
	go o.app.Handle(b)
	return a, nil
}

func TestClientCountsWhatComes(t *testing.T) {
	for _, s := range []Spec{
		{Kind: Up, Tunnels: 2}, {Kind: Up, Tunnels: 1, Flow: 1 << 20}, {Kind: Down, Tunnels: 2, Every: time.Millisecond}, {Kind: Echo, Tunnels: 3}, {Kind: Open, Tunnels: 2},
		{Kind: Beside, Bulk: Up}, {Kind: Beside, Bulk: Down},
	} {
		app := &App{}
		c := NewClient(opener{app: app})
		if err := c.Start(s); err != nil {
			t.Fatal(err)
		}
		busy := func() bool {
			near, far := c.Sample(), app.Sample()
			messages := s.Kind == Echo || s.Kind == Open || s.Kind == Beside
			bytes := s.Kind == Up || s.Kind == Down || s.Kind == Beside
			return (!messages || near.Ops > 100) && (!bytes || near.In+far.In > 5<<20)
		}
		if !eventually(busy) {
			t.Errorf("%+v: %+v, %+v", s, c.Sample(), app.Sample())
		}
		if err := c.Stop(); err != nil {
			t.Errorf("%+v: %v", s, err)
		}
		if got := c.Sample(); got.Active != 0 || got.Errors != 0 {
			t.Errorf("%+v: %d tunnels and %d errors are left", s, got.Active, got.Errors)
		}
	}
}

// eventually waits for cond beside goroutines that never rest.
func eventually(cond func() bool) bool {
	for end := time.Now().Add(20 * time.Second); !cond(); runtime.Gosched() {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

func TestStopTellsWhatWentWrong(t *testing.T) {
	broken := errors.New("broken")
	c := NewClient(opener{fail: broken})
	if err := c.Start(Spec{Kind: Up, Tunnels: 1}); !errors.Is(err, broken) {
		t.Errorf("Start: %v", err)
	}
	if err := c.Start(Spec{Kind: Open, Tunnels: 1}); err != nil {
		t.Error(err)
	}
	if !eventually(func() bool { return c.Sample().Errors > 0 }) {
		t.Error("no error is counted")
	}
	if err := c.Stop(); !errors.Is(err, broken) {
		t.Errorf("Stop: %v", err)
	}
}
