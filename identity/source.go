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
	// Trust widens and narrows whom the Source believes.
	Trust Trust
	// Trace is told how the Source fares. It may be nil.
	Trace *Trace
	// Logger takes failures and renewals, never keys or tokens. Nil is silent.
	Logger *slog.Logger

	clock func() time.Time // of the wall; nil: the machine's. Tests set it forward
}

// wall is what the clock on the wall says, which may jump.
func (c *Config) wall() time.Time {
	if c.clock != nil {
		return c.clock()
	}
	return time.Now().Round(0)
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

	taking sync.Mutex // taken before mu by who replaces material or belief; guards the field below, and is held while files are read
	files  trustFiles

	mu       sync.Mutex // guards the fields below
	material *Material
	belief   *belief
	changed  chan struct{}
	recheck  chan struct{}
	stats    Stats
	closed   bool
	done     chan struct{} // closed when Close has finished
}

// New returns a Source that has its first SVID. It blocks until then, trying again while the authority fails, or until ctx ends;
// the error then has the last refusal. When it fails the Fetcher stays the caller's to close.
func New(ctx context.Context, fetch Fetcher, cfg Config) (*Source, error) {
	cfg.Trust = cfg.Trust.clone()
	if err := cfg.Trust.check(); err != nil {
		return nil, err
	}
	s := &Source{fetch: fetch, cfg: cfg, files: trustFiles{cfg: cfg.Trust}, changed: make(chan struct{}), recheck: make(chan struct{}), done: make(chan struct{})}
	backoff := cfg.minBackoff()
	var refusal error // of the authority; what ctx does to a call is none
	var first time.Duration
	for {
		pause := jitter(backoff)
		next, err := s.renew(ctx, pause)
		if err == nil {
			first = next
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
		timer := time.NewTimer(pause)
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
	s.wg.Go(func() { s.run(run, first) })
	if cfg.Trust.watched() {
		s.wg.Go(func() { s.watchTrust(run) })
	}
	return s, nil
}

// PermanentError wraps an error of a Fetcher that trying again cannot mend, such as a configuration that makes no sense.
type PermanentError struct{ Err error }

func (e *PermanentError) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *PermanentError) Unwrap() error { return e.Err }

// longestWait is the most between two looks at the clock: timers stand still while a machine sleeps, and know nothing of a clock that is set forward, after which
// a certificate ends sooner.
const longestWait = time.Minute

// run renews until the Source is closed, for the first time after wait.
func (s *Source) run(ctx context.Context, wait time.Duration) {
	var notify <-chan struct{}
	if n, ok := s.fetch.(Notifier); ok {
		notify = n.Notify()
	}
	backoff := s.cfg.minBackoff()
	for {
		due, told := s.cfg.wall().Add(wait), false
		for wait > 0 && !told && s.cfg.wall().Before(due) {
			part := min(wait, longestWait)
			timer := time.NewTimer(part)
			select {
			case <-ctx.Done():
				timer.Stop()
				return
			case _, ok := <-notify:
				if told = true; !ok {
					notify = nil
				}
			case <-timer.C:
			}
			timer.Stop()
			wait -= part
		}
		var err error
		if wait, err = s.renew(ctx, jitter(backoff)); err != nil {
			if ctx.Err() != nil {
				return
			}
			s.cfg.logger().Warn("identity: renewal failed", "error", err, "again", wait)
			backoff = min(2*backoff, s.cfg.maxBackoff())
			continue
		}
		backoff = s.cfg.minBackoff()
	}
}

// untilRenewal is a random 50 to 80 percent of what is left of a life. An SVID's notBefore plays no part: authorities backdate it.
func untilRenewal(expires time.Time) time.Duration {
	return max(time.Second, time.Duration(float64(time.Until(expires))*(0.5+0.3*rand.Float64())))
}

// jitter is 75 to 100 percent of d.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (1 - rand.Float64()/4))
}

// renew takes the next generation, unless the authority gives again what we have. next is when to do so again: pause after a failure.
func (s *Source) renew(ctx context.Context, pause time.Duration) (next time.Duration, err error) {
	call, cancel := context.WithTimeout(ctx, s.cfg.fetchTimeout())
	defer cancel()
	begin := time.Now()
	m, err := s.fetch.Fetch(call)
	took := time.Since(begin)
	switch {
	case err == nil:
		err = m.validate(time.Now())
	case ctx.Err() == nil && call.Err() != nil:
		err = fmt.Errorf("identity: the authority did not answer within %v: %w", s.cfg.fetchTimeout(), err)
	}
	isNew := false
	if err == nil {
		isNew, err = s.take(m)
	}
	r := TraceRenewal{Took: took, Next: pause, Err: err}
	s.mu.Lock()
	if err != nil {
		s.stats.Failures++
	} else {
		r.Next = untilRenewal(s.stats.Expires)
	}
	s.stats.LastError = err
	s.stats.NextRenewal = time.Now().Add(r.Next)
	r.Generation, r.Expires = s.stats.Generation, s.stats.Expires
	if s.material != nil {
		r.ID = s.material.SVID.ID
	}
	s.mu.Unlock()
	if isNew || err != nil && ctx.Err() == nil {
		s.cfg.Trace.renewal(r)
	}
	return r.Next, err
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
	return s.belief.bundle(td)
}

// Changed returns a channel that is closed when the next generation is here. Call it again for the one after.
func (s *Source) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
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
