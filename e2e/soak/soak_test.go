package soak

import (
	"fmt"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/story/storytest"
)

// TestSoak lets events happen under load until the time is over.
func TestSoak(t *testing.T) {
	ctx := t.Context()
	w := storytest.New(t)
	if err := prepare(ctx, w); err != nil {
		t.Fatal(err)
	}
	e := &events{w: w, long: *duration >= 5*time.Minute}
	chosen, err := e.choose(*only)
	if err != nil {
		t.Fatal(err)
	}
	ledger := newLedger(e.atRest)
	if e.load, err = newLoad(ctx, w, ledger); err != nil {
		t.Fatal(err)
	}
	if err := e.normal(ctx); err != nil {
		t.Fatal(err)
	}
	rest := &phase{event: "rest", name: "rest"}
	pause := time.Second
	if e.long {
		pause = 20 * time.Second
	}
	sizes := newGrowth(w)
	e.load.start()
	rounds, took := 0, map[string]time.Duration{}
	happen := func() error {
		for ; rounds == 0 || time.Since(sizes.began) < *duration; rounds++ {
			for _, event := range chosen {
				for end := time.Now().Add(pause); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
					if err := sizes.look(ctx); err != nil {
						return err
					}
				}
				if e.long && event.restarts && time.Since(sizes.began) > *duration/2 {
					continue // a trend takes long lives
				}
				began := time.Now()
				err := event.run(ctx)
				ledger.enter(rest)
				if err != nil {
					return fmt.Errorf("round %d, %s: %w", rounds+1, event.name, err)
				}
				took[event.name] += time.Since(began)
				n, _ := ledger.failures()
				t.Logf("%v: round %d, %s took %v; %d requests until now, %d unexplained", time.Since(sizes.began).Round(time.Second), rounds+1, event.name, time.Since(began).Round(100*time.Millisecond), e.load.sent.Load(), n)
				if n > 1000 {
					return fmt.Errorf("round %d, %s: more than 1000 answers that nothing explains", rounds+1, event.name)
				}
				if rounds > 0 && time.Since(sizes.began) > *duration {
					return nil
				}
			}
		}
		return nil
	}
	if err := happen(); err != nil {
		t.Error(err)
	}
	time.Sleep(time.Second)
	if err := sizes.look(ctx); err != nil {
		t.Error(err)
	}
	e.load.stop()
	t.Logf("%v, %d whole rounds; together %v\n%s", time.Since(sizes.began).Round(time.Second), rounds, took, ledger.table())
	if n, first := ledger.failures(); n > 0 {
		t.Errorf("%d answers that no event explains, the first of them:", n)
		for _, f := range first {
			t.Error(f)
		}
	}
	sizes.judge(t)
}
