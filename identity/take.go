package identity

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// take makes m what the Source shows, and believes along with it what the files say now. isNew is false when it has it already. Files that are not good
// are an error for the first m only; later what they held before stays.
func (s *Source) take(m *Material) (isNew bool, err error) {
	s.taking.Lock()
	held, _ := s.now()
	if m.equal(held) {
		s.taking.Unlock()
		return false, nil
	}
	told, err := s.reread(m, held == nil)
	s.taking.Unlock()
	if err != nil {
		return false, err
	}
	s.tell(told)
	return true, nil
}

// now is what is shown and believed.
func (s *Source) now() (*Material, *belief) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.material, s.belief
}

// watchTrust looks at the files until ctx ends.
func (s *Source) watchTrust(ctx context.Context) {
	tick := time.NewTicker(s.cfg.Trust.interval())
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.taking.Lock()
		held, _ := s.now()
		told, _ := s.reread(held, false) // only a first reading fails
		s.taking.Unlock()
		s.tell(told)
	}
}

// trustNews is what a reading of the files brought that somebody should be told of.
type trustNews struct {
	changed bool
	failed  error // nil: nothing that was not told before
	stats   TrustStats
}

// reread reads the files and puts m and what follows from it in force; taking is held. strict makes an error of what is wrong with the files.
func (s *Source) reread(m *Material, strict bool) (news trustNews, err error) {
	now := time.Now()
	b, stale, err := s.files.read(m, now)
	if strict && err != nil {
		return news, &PermanentError{Err: err}
	}
	if strict && stale != nil && s.cfg.Trust.ExpiredCRL == ExpiredCRLRefuse {
		return news, &PermanentError{Err: stale}
	}
	wrong := errors.Join(err, stale, s.ownRevoked(m, b, now))
	s.mu.Lock()
	defer s.mu.Unlock()
	otherMaterial, otherRoots := !m.equal(s.material), !b.trusts(s.belief)
	otherLists := s.belief != nil && s.belief.lists != b.lists
	news.changed = !strict && (otherRoots && !otherMaterial || otherLists)
	s.material, s.belief = m, b
	if otherMaterial || otherRoots {
		s.stats.Generation++
		s.stats.Expires = m.expires()
		close(s.changed)
		s.changed = make(chan struct{})
	}
	if otherMaterial {
		s.stats.LastRenewal, s.stats.LastError = now, nil // whoever sees the one sees the other
	}
	if otherRoots || otherLists {
		close(s.recheck)
		s.recheck = make(chan struct{})
	}
	t := &s.stats.Trust
	t.Domains, t.Lists, t.Revoked, t.NextUpdate = len(b.bundles), len(b.lists.all()), b.lists.size(), b.lists.nextUpdate()
	if wrong != nil && (t.LastError == nil || t.LastError.Error() != wrong.Error()) {
		t.Failures++
		news.failed = wrong
	}
	t.LastError = wrong
	news.stats = *t
	return news, nil
}

// ownRevoked is an error when our own certificate is on a list: peers will refuse us.
func (s *Source) ownRevoked(m *Material, b *belief, now time.Time) error {
	if err := b.lists.check(m.SVID.Certificates, now, ExpiredCRLKeep); err != nil {
		return fmt.Errorf("identity: our own identity: %w: peers that know it will refuse us", err)
	}
	return nil
}

// tell passes news on; no lock is held.
func (s *Source) tell(n trustNews) {
	if n.failed != nil {
		s.cfg.logger().Warn("identity: whom to trust", "error", n.failed)
		s.cfg.Trace.trustFailed(n.failed)
	}
	if n.changed {
		s.cfg.Trace.trust(n.stats)
	}
}
