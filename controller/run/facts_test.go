package run

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestWhoDoesNotAnswerIsAskedLess: at first for each plan, as it may be starting; later once in a while, so that nobody waits for it.
func TestWhoDoesNotAnswerIsAskedLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f facts
		times, answer := 0, errors.New("nobody is there")
		ask := func(span time.Duration) int {
			t.Helper()
			times = 0
			for end := time.Now().Add(span); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
				got := f.known(fact{waypoint: "w"}, nil, func() error { times++; return answer })
				if got.Answers || got.Why != "nobody is there" {
					t.Fatalf("got %+v", got)
				}
			}
			return times
		}
		if n := ask(patience); n != 50 {
			t.Errorf("in the beginning it is asked %d times in %v", n, patience)
		}
		if n := ask(time.Minute); n < 12 || n > 13 {
			t.Errorf("later on it is asked %d times a minute", n)
		}
		answer = nil
		asked := time.Now()
		for !f.known(fact{waypoint: "w"}, nil, func() error { return answer }).Answers {
			time.Sleep(200 * time.Millisecond)
		}
		if took := time.Since(asked); took > while {
			t.Errorf("its answer is heard after %v", took)
		}
		time.Sleep(believed)
		answer = errors.New("nobody is there")
		if n := ask(patience); n != 50 {
			t.Errorf("when it falls silent again it is asked %d times in %v", n, patience)
		}
	})
}
