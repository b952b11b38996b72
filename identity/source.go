package identity

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// Fetcher gets Material from an authority.
type Fetcher interface {
	// Fetch blocks until the authority has answered or ctx ends.
	Fetch(ctx context.Context) (*Material, error)
}

// Notifier is a Fetcher that knows when there may be something new, apart from what expires.
type Notifier interface {
	// Notify returns a channel that has a value, or is closed, when Fetch is worth calling again. It is asked once.
	Notify() <-chan struct{}
}

// Config sets how a Source renews. The zero value has the defaults.
type Config struct {
	// MinBackoff is the pause after a failed renewal; it doubles up to MaxBackoff, and is by chance up to a quarter shorter. Zero means 1 s.
	MinBackoff time.Duration
	// MaxBackoff is the longest pause. Zero means 1 min.
	MaxBackoff time.Duration
	// FetchTimeout bounds one call of the authority. Zero means 30 s.
	FetchTimeout time.Duration
	// FailFast makes New return the first error instead of trying again.
	FailFast bool
	// Logger takes failures and renewals, never keys or tokens. Nil is silent.
	Logger *slog.Logger
}

func (c *Config) minBackoff() time.Duration   { return cmp.Or(c.MinBackoff, time.Second) }
func (c *Config) maxBackoff() time.Duration   { return cmp.Or(c.MaxBackoff, time.Minute) }
func (c *Config) fetchTimeout() time.Duration { return cmp.Or(c.FetchTimeout, 30*time.Second) }
func (c *Config) logger() *slog.Logger {
	if c.Logger != nil {
		return c.Logger
	}
	return slog.New(slog.DiscardHandler)
}

// Source is an SVID and its bundles, kept fresh by a Fetcher. All methods may be called from several goroutines; the user closes it.
type Source struct {
	fetch  Fetcher
	cfg    Config
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex // guards the fields below
	material *Material
	changed  chan struct{}
	stats    Stats
	closed   bool
	done     chan struct{} // closed when Close has finished
}

// Stats says how a Source fares.
type Stats struct {
	Generation  uint64    // counts renewals, from 1
	Expires     time.Time // of the SVID held
	LastRenewal time.Time
	Failures    uint64 // since the start
	LastError   error  // nil when the last attempt succeeded
}

// New returns a Source that has its first SVID. It blocks until then, trying again while the authority fails, or until ctx ends;
// the error then has the last refusal. When it fails the Fetcher stays the caller's to close.
func New(ctx context.Context, fetch Fetcher, cfg Config) (*Source, error) {
	s := &Source{fetch: fetch, cfg: cfg, changed: make(chan struct{}), done: make(chan struct{})}
	backoff := cfg.minBackoff()
	var refusal error // of the authority; what ctx does to a call is none
	for {
		err := s.renew(ctx)
		if err == nil {
			break
		}
		if permanent, ok := errors.AsType[*PermanentError](err); ok {
			return nil, permanent.Err
		}
		if refusal == nil || ctx.Err() == nil {
			refusal = err
		}
		if cfg.FailFast {
			return nil, err
		}
		s.cfg.logger().Warn("identity: no certificate yet", "error", err, "again", backoff)
		timer := time.NewTimer(jitter(backoff))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("identity: no certificate before %w: %w", context.Cause(ctx), refusal)
		case <-timer.C:
		}
		backoff = min(2*backoff, cfg.maxBackoff())
	}
	run, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.wg.Go(func() { s.run(run) })
	return s, nil
}

// PermanentError wraps an error of a Fetcher that trying again cannot mend, such as a configuration that makes no sense.
type PermanentError struct{ Err error }

func (e *PermanentError) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *PermanentError) Unwrap() error { return e.Err }

// run renews until the Source is closed.
func (s *Source) run(ctx context.Context) {
	var notify <-chan struct{}
	if n, ok := s.fetch.(Notifier); ok {
		notify = n.Notify()
	}
	backoff := s.cfg.minBackoff()
	wait := s.untilRenewal()
	for {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case _, ok := <-notify:
			if !ok {
				notify = nil
			}
		case <-timer.C:
		}
		timer.Stop()
		if err := s.renew(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			s.cfg.logger().Warn("identity: renewal failed", "error", err, "again", backoff)
			wait, backoff = jitter(backoff), min(2*backoff, s.cfg.maxBackoff())
			continue
		}
		backoff = s.cfg.minBackoff()
		wait = s.untilRenewal()
	}
}

// untilRenewal is a random 50 to 80 percent of what is left of the SVID's life. Its notBefore plays no part: authorities
// backdate it.
func (s *Source) untilRenewal() time.Duration {
	s.mu.Lock()
	left := time.Until(s.stats.Expires)
	s.mu.Unlock()
	return max(time.Second, time.Duration(float64(left)*(0.5+0.3*rand.Float64())))
}

// jitter is 75 to 100 percent of d.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (1 - rand.Float64()/4))
}

// renew takes the next generation, unless the authority gives again what we have.
func (s *Source) renew(ctx context.Context) error {
	call, cancel := context.WithTimeout(ctx, s.cfg.fetchTimeout())
	defer cancel()
	m, err := s.fetch.Fetch(call)
	switch {
	case err == nil:
		err = m.validate(time.Now())
	case ctx.Err() == nil && call.Err() != nil:
		err = fmt.Errorf("identity: the authority did not answer within %v: %w", s.cfg.fetchTimeout(), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.stats.Failures++
		s.stats.LastError = err
		return err
	}
	s.stats.LastError = nil
	if m.equal(s.material) {
		return nil
	}
	s.material = m
	s.stats.Generation++
	s.stats.Expires = m.expires()
	s.stats.LastRenewal = time.Now()
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

// errClosed is a Source after Close.
var errClosed = fmt.Errorf("identity: the source is closed: %w", net.ErrClosed)

// GetX509SVID returns the SVID, which is valid now. After it has expired without a renewal the error names the last refusal. It
// does not block.
func (s *Source) GetX509SVID() (*x509svid.SVID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	if time.Now().After(s.stats.Expires) {
		err := fmt.Errorf("identity: the certificate of %s expired at %s", s.material.SVID.ID, s.stats.Expires.UTC().Format(time.RFC3339))
		if s.stats.LastError != nil {
			err = fmt.Errorf("%w and could not be renewed: %w", err, s.stats.LastError)
		}
		return nil, err
	}
	return s.material.SVID, nil
}

// GetX509BundleForTrustDomain returns whom to trust for td. It does not block.
func (s *Source) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	return s.material.Bundles.GetX509BundleForTrustDomain(td)
}

// Changed returns a channel that is closed when the next generation is here. Call it again for the one after.
func (s *Source) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// Stats says how the Source fares.
func (s *Source) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// Close ends renewal and waits for it; the Source has no identity afterwards, its errors are net.ErrClosed. It closes the Fetcher where that is an io.Closer.
// It is idempotent, and every call waits.
func (s *Source) Close() error {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	s.mu.Unlock()
	if !first {
		<-s.done
		return nil
	}
	defer close(s.done)
	s.cancel()
	s.wg.Wait()
	if c, ok := s.fetch.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

var (
	_ x509svid.Source   = (*Source)(nil)
	_ x509bundle.Source = (*Source)(nil)
)
