package identity_test

import (
	"context"
	"crypto"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
)

func TestNewWaitsForTheFirstCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newScript()
		f.then(fails(errAway))
		go func() {
			time.Sleep(10 * time.Second)
			f.then(nil)
		}()
		begin := time.Now()
		s := start(t, f, identity.Config{})
		if took := time.Since(begin); took < 10*time.Second || took > 20*time.Second {
			t.Errorf("New took %v", took)
		}
		svid, err := s.GetX509SVID()
		if err != nil || svid.ID != me {
			t.Errorf("got %v, %v", svid, err)
		}
		if _, err := s.GetX509BundleForTrustDomain(td); err != nil {
			t.Error(err)
		}
		if st := s.Stats(); st.Generation != 1 || st.LastError != nil || st.Failures == 0 || !st.Expires.Equal(svid.Certificates[0].NotAfter) {
			t.Errorf("stats %+v", st)
		}
	})
}

// The error of an ended context has the authority's last refusal, also when the context ends in the middle of a call.
func TestNewEndsWithItsContext(t *testing.T) {
	for name, last := range map[string]func(context.Context) (*identity.Material, error){"between calls": fails(errAway), "in a call": hangs} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newScript()
				f.then(fails(errAway))
				go func() {
					time.Sleep(9 * time.Second)
					f.then(last)
				}()
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				_, err := identity.New(ctx, f, identity.Config{})
				if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errAway) {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}

func TestNewGivesUpAtOnce(t *testing.T) {
	nonsense := errors.New("nonsense")
	for name, c := range map[string]struct {
		cfg identity.Config
		err error
	}{
		"an error that cannot be mended": {identity.Config{}, &identity.PermanentError{Err: nonsense}},
		"fail fast":                      {identity.Config{FailFast: true}, nonsense},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newScript()
				f.then(fails(c.err))
				begin := time.Now()
				if _, err := identity.New(t.Context(), f, c.cfg); !errors.Is(err, nonsense) {
					t.Errorf("got %v", err)
				}
				if took := time.Since(begin); took != 0 || len(f.called()) != 1 {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

func TestNewBoundsACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newScript()
		f.then(hangs)
		_, err := identity.New(t.Context(), f, identity.Config{FetchTimeout: 7 * time.Second, FailFast: true})
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "did not answer within 7s") {
			t.Errorf("got %v", err)
		}
	})
}

// Renewal comes at 50 to 80 percent of what is left, not always at the same point, however far the authority backdates.
func TestRenewalTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newScript()
		backdated := func(context.Context) (*identity.Material, error) {
			return material(f.ca, identitytest.Lifetime(100*time.Second)), nil
		}
		f.then(backdated)
		s := start(t, f, identity.Config{})
		last := f.called()[0]
		low, high := 100*time.Second, time.Duration(0)
		for range 200 {
			<-s.Changed()
			now := f.called()
			if len(now) != 1 {
				t.Fatalf("%d calls for one renewal", len(now))
			}
			d := now[0].Sub(last)
			last = now[0]
			low, high = min(low, d), max(high, d)
		}
		// A certificate's times are whole seconds, hence a second less.
		if low < 49*time.Second || low > 55*time.Second || high < 75*time.Second || high > 80*time.Second {
			t.Errorf("renewed after %v to %v, want 50 s to 80 s", low, high)
		}
	})
}

func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newScript()
		f.then(gives(material(f.ca, identitytest.Lifetime(1000*time.Second))))
		s := start(t, f, identity.Config{MinBackoff: 2 * time.Second, MaxBackoff: 16 * time.Second})
		f.then(fails(errAway))
		time.Sleep(1000 * time.Second)
		calls := f.called()[1:]
		if len(calls) < 10 {
			t.Fatalf("%d calls", len(calls))
		}
		same := true
		for i := 1; i < len(calls); i++ {
			want := min(2*time.Second<<min(i-1, 10), 16*time.Second)
			got := calls[i].Sub(calls[i-1])
			if got > want || got < want*3/4 {
				t.Errorf("pause %d is %v, want %v and up to a quarter less", i, got, want)
			}
			same = same && got == want
		}
		if same {
			t.Error("pauses do not vary")
		}
		if st := s.Stats(); int(st.Failures) != len(calls) || !errors.Is(st.LastError, errAway) || st.Generation != 1 {
			t.Errorf("stats %+v", st)
		}
	})
}

// While the authority is away the old certificate is served to its end and not longer, and then the error says why.
func TestOldCertificateUntilItExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newScript()
		s := start(t, f, identity.Config{})
		f.then(fails(errAway))
		first, err := s.GetX509SVID()
		if err != nil {
			t.Fatal(err)
		}
		end := first.Certificates[0].NotAfter
		time.Sleep(time.Until(end))
		if svid, err := s.GetX509SVID(); err != nil || svid != first {
			t.Errorf("at its end: %v, %v", svid, err)
		}
		time.Sleep(time.Second)
		_, err = s.GetX509SVID()
		if !errors.Is(err, errAway) || !strings.Contains(err.Error(), me.String()+" expired at "+end.UTC().Format(time.RFC3339)) {
			t.Errorf("after its end: %v", err)
		}
		changed := s.Changed()
		f.then(nil)
		<-changed
		if svid, err := s.GetX509SVID(); err != nil || svid == first {
			t.Errorf("when the authority is back: %v, %v", svid, err)
		}
	})
}

// What is wrong with an answer is a failure like any other.
func TestBadAnswers(t *testing.T) {
	ca, other := identitytest.NewCA(td), identitytest.NewCA(td)
	odd := func(change func(*identity.Material)) *identity.Material {
		m := material(ca)
		change(m)
		return m
	}
	for name, c := range map[string]struct {
		m    *identity.Material
		want string
	}{
		"nothing":        {nil, "no certificate"},
		"no certificate": {odd(func(m *identity.Material) { m.SVID.Certificates = nil }), "no certificate"},
		"no key":         {odd(func(m *identity.Material) { m.SVID.PrivateKey = nil }), "with a key"},
		"no roots":       {odd(func(m *identity.Material) { m.Bundles = nil }), "nobody to trust"},
		"other roots":    {odd(func(m *identity.Material) { m.Bundles = material(other).Bundles }), "does not lead to the roots"},
		"another id":     {odd(func(m *identity.Material) { m.SVID.ID = td.ID() }), "is for " + me.String()},
		"expired":        {material(ca, identitytest.Expired), "expired at"},
		"not yet valid":  {material(ca, identitytest.NotYetValid), "the clocks of this machine and of the authority disagree"},
		"two identities": {material(ca, identitytest.TwoURIs), "more than one URI SAN"},
		"no identity":    {material(ca, identitytest.NoURI), "no URI SAN"},
		"ended chain": {odd(func(m *identity.Material) {
			m.SVID.Certificates = append(m.SVID.Certificates, ca.IssueFor(me, m.SVID.PrivateKey.Public(), identitytest.Expired)...)
		}), "expired at"},
		"a foreign scheme": {material(ca, identitytest.NotSPIFFE), "scheme"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newScript()
			f.then(gives(c.m))
			if _, err := identity.New(t.Context(), f, identity.Config{FailFast: true}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// The authority's clock may be two minutes ahead of ours. Beyond that, and where a certificate has ended, the error says by how much.
func TestSmallSkewIsTolerated(t *testing.T) {
	for name, tt := range map[string]struct {
		option  identitytest.Option
		refused string
	}{
		"a minute":                {identitytest.ValidIn(time.Minute), ""},
		"two minutes":             {identitytest.ValidIn(2 * time.Minute), ""},
		"two minutes and more":    {identitytest.ValidIn(2*time.Minute + time.Second), "valid only in 2m1s: the clocks of this machine and of the authority disagree"},
		"a certificate has ended": {identitytest.Lifetime(-3 * time.Minute), "(3m0s ago): its issuer is not renewing it, or this machine's clock is ahead"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newScript()
				f.then(gives(material(f.ca, tt.option)))
				s, err := identity.New(t.Context(), f, identity.Config{FailFast: true})
				if err == nil {
					defer s.Close()
				}
				if (err == nil) != (tt.refused == "") || err != nil && !strings.Contains(err.Error(), tt.refused) {
					t.Fatalf("got %v, want %q", err, tt.refused)
				}
				if err == nil {
					if _, err := s.GetX509SVID(); err != nil {
						t.Error(err)
					}
				}
			})
		})
	}
}

// Everybody who waits for a change hears of it; an answer that brings nothing new is no change.
func TestChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &notifying{script: newScript(), notify: make(chan struct{}, 1)}
		first := material(f.ca)
		f.then(gives(first))
		s := start(t, f, identity.Config{})
		var wg sync.WaitGroup
		changed := s.Changed()
		for range 5 {
			wg.Go(func() { <-changed })
		}
		f.called()
		f.notify <- struct{}{}
		synctest.Wait()
		select {
		case <-changed:
			t.Error("the same answer is told as a change")
		default:
		}
		if n := len(f.called()); n != 1 || s.Stats().Generation != 1 {
			t.Errorf("%d calls, %+v", n, s.Stats())
		}

		second := material(f.ca)
		second.Bundles.Add(identitytest.NewCA(td).Bundle()) // a bundle in place of the old one
		f.then(gives(second))
		f.notify <- struct{}{}
		synctest.Wait()
		if got := s.Stats().LastError; got == nil {
			t.Error("a certificate without its root was taken")
		}
		more := &identity.Material{SVID: first.SVID, Bundles: f.ca.Source(me, identitytest.NewCA(other)).Bundles()}
		f.then(gives(more)) // the same certificate, one more bundle
		f.notify <- struct{}{}
		wg.Wait()
		if s.Changed() == changed {
			t.Error("no new channel")
		}
		if _, err := s.GetX509BundleForTrustDomain(other); err != nil {
			t.Error(err)
		}
		close(f.notify) // it will say no more; renewal goes on
		synctest.Wait()
		f.called()
		f.then(nil)
		time.Sleep(time.Hour)
		if n := len(f.called()); n == 0 || n > 5 {
			t.Errorf("%d calls in an hour", n)
		}
	})
}

func TestClose(t *testing.T) {
	for name, answer := range map[string]func(context.Context) (*identity.Material, error){"idle": nil, "in a call": hangs} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newScript()
				f.slow = true
				s := start(t, f, identity.Config{})
				f.then(answer)
				if answer != nil {
					time.Sleep(50 * time.Minute) // in the middle of a renewal
				}
				f.called()
				begin := time.Now()
				var wg sync.WaitGroup
				for range 3 {
					wg.Go(func() {
						s.Close()
						f.mu.Lock()
						defer f.mu.Unlock()
						if f.closed != 1 || f.inCall != 0 {
							t.Errorf("Close returned with the authority closed %d times and %d calls running", f.closed, f.inCall)
						}
					})
				}
				wg.Wait()
				if d := time.Since(begin); d > 3*time.Second {
					t.Errorf("took %v", d)
				}
				time.Sleep(2 * time.Hour)
				if n := len(f.called()); n != 0 {
					t.Errorf("%d calls after Close", n)
				}
				_, err := s.GetX509SVID()
				_, err2 := s.GetX509BundleForTrustDomain(td)
				if !errors.Is(err, net.ErrClosed) || !errors.Is(err2, net.ErrClosed) {
					t.Errorf("got %v, %v", err, err2)
				}
			})
		})
	}
}

// Readers see certificate and key of one generation, whatever goes on.
func TestConcurrentReaders(t *testing.T) {
	f := &notifying{script: newScript(), notify: make(chan struct{}, 1)}
	s := start(t, f, identity.Config{MinBackoff: time.Nanosecond})
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				svid, err := s.GetX509SVID()
				if err != nil {
					t.Error(err)
					return
				}
				if !svid.PrivateKey.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(svid.Certificates[0].PublicKey) {
					t.Error("key and certificate of different generations")
					return
				}
				_, _ = s.GetX509BundleForTrustDomain(td)
				s.Stats()
				s.Changed()
			}
		})
	}
	for range 50 {
		changed := s.Changed()
		f.notify <- struct{}{}
		<-changed
	}
	close(done)
	wg.Wait()
	if g := s.Stats().Generation; g != 51 {
		t.Errorf("%d generations", g)
	}
}
