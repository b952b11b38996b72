package identity_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
)

// Trace tells of each new certificate and each failure, when the next attempt is, and holds no lock.
func TestTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newScript()
		f.then(fails(errAway))
		var s *identity.Source
		var renewed, failed []identity.TraceRenewal
		trace := &identity.Trace{
			Renewed:       func(r identity.TraceRenewal) { renewed = append(renewed, r) },
			RenewalFailed: func(r identity.TraceRenewal) { failed = append(failed, r) },
		}
		go func() {
			time.Sleep(1500 * time.Millisecond)
			f.then(gives(material(f.ca, identitytest.Lifetime(time.Hour))))
		}()
		s = start(t, f, identity.Config{Trace: trace})
		if len(failed) < 2 || len(renewed) != 1 {
			t.Fatalf("%d failures, %d certificates", len(failed), len(renewed))
		}
		if r := failed[0]; !errors.Is(r.Err, errAway) || !r.ID.IsZero() || r.Generation != 0 || r.Next < 750*time.Millisecond || r.Next > time.Second {
			t.Errorf("told of a failure: %+v", r)
		}
		st := s.Stats()
		if r := renewed[0]; r.Err != nil || r.ID != me || r.Generation != 1 || !r.Expires.Equal(st.Expires) || r.Next < 29*time.Minute || r.Next > 48*time.Minute {
			t.Errorf("told of a certificate: %+v", r)
		}
		if left := time.Until(st.NextRenewal); left != renewed[0].Next {
			t.Errorf("the next renewal is in %v, told %v", left, renewed[0].Next)
		}
		trace.RenewalFailed = func(r identity.TraceRenewal) {
			s.Stats() // would wait for ever under a lock
			failed = append(failed, r)
		}
		synctest.Wait()
		failed = nil
		f.then(fails(errAway))
		time.Sleep(time.Until(st.NextRenewal) + time.Millisecond)
		synctest.Wait()
		if len(failed) != 1 || failed[0].ID != me || failed[0].Generation != 1 {
			t.Errorf("told of failures: %+v", failed)
		}
		f.then(gives(material(f.ca)))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if len(renewed) != 2 || renewed[1].Generation != 2 {
			t.Errorf("told of certificates: %+v", renewed)
		}
	})
}

// The same again is no news.
func TestTheSameCertificateIsNoNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &notifying{newScript(), make(chan struct{}, 1)}
		f.then(gives(material(f.ca)))
		n := 0
		s := start(t, f, identity.Config{Trace: &identity.Trace{Renewed: func(identity.TraceRenewal) { n++ }}})
		f.notify <- struct{}{}
		synctest.Wait()
		if calls := len(f.called()); n != 1 || calls != 2 || s.Stats().Generation != 1 {
			t.Errorf("told %d times after %d calls", n, calls)
		}
	})
}
