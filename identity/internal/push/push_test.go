package push_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/internal/push"
)

func TestLatest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := push.New()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if m, err := l.Fetch(ctx); m != nil || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("before anything came: %v, %v", m, err)
		}
		first, away := &identity.Material{}, errors.New("away")
		go func() {
			time.Sleep(time.Minute)
			l.Set(first)
		}()
		if m, err := l.Fetch(t.Context()); m != first || err != nil {
			t.Errorf("what came: %v, %v", m, err)
		}
		l.Fail(away)
		l.Fail(away)
		if m, err := l.Fetch(t.Context()); m != nil || !errors.Is(err, away) {
			t.Errorf("after a failure: %v, %v", m, err)
		}
		<-l.Notify() // of three at once
		select {
		case <-l.Notify():
			t.Error("told twice of what was there")
		default:
		}
		l.Set(first)
		<-l.Notify()
	})
}
