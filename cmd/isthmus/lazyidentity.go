package main

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/identity"
)

// lazyIdentity is an identity that the controller does not wait for: while its authority is away it still observes and reports. It runs in the manager, on
// every replica.
type lazyIdentity struct {
	get   func(ctx context.Context) (*identity.Source, error)
	log   *slog.Logger
	pause time.Duration // between attempts
	here  chan struct{} // closed when there is a source
	tried chan struct{} // closed when the first attempt has ended

	mu     sync.Mutex // guards the fields below
	source *identity.Source
	err    error // why there is none
}

// errNoIdentity is before the first attempt has ended.
var errNoIdentity = errors.New("there is no certificate yet")

func newLazyIdentity(m *meshFlags, log *slog.Logger) *lazyIdentity {
	return &lazyIdentity{get: m.source, log: log, pause: 2 * time.Second, here: make(chan struct{}), tried: make(chan struct{}), err: errNoIdentity}
}

// Start gets the identity, again and again until it is there, and closes it when ctx ends.
func (l *lazyIdentity) Start(ctx context.Context) error {
	for first := true; ; first = false {
		attempt, cancel := context.WithTimeout(ctx, 15*time.Second)
		s, err := l.get(attempt)
		cancel()
		l.mu.Lock()
		l.source, l.err = s, err
		l.mu.Unlock()
		if first {
			close(l.tried)
		}
		if err == nil {
			close(l.here)
			l.log.Info("have an identity of the mesh", "expires", s.Stats().Expires)
			<-ctx.Done()
			return s.Close()
		}
		if ctx.Err() == nil {
			d := detail(err)
			l.log.Error(d.Message, "where", d.Where, "cause", d.Cause, "next", d.Next)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(l.pause):
		}
	}
}

// NeedLeaderElection says that it runs on every replica.
func (l *lazyIdentity) NeedLeaderElection() bool { return false }

// ready says why there is no valid identity.
func (l *lazyIdentity) ready() error {
	_, err := l.GetX509SVID()
	return err
}

// able is ready, and waits for the first attempt to end, but not for longer than most: a controller that has just begun is not to say that it cannot
// ask waypoints, and a moment later that it can.
func (l *lazyIdentity) able() error {
	const most = 5 * time.Second
	select {
	case <-l.tried:
	case <-time.After(most):
	}
	return l.ready()
}

func (l *lazyIdentity) current() (*identity.Source, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.source, l.err
}

// GetX509SVID gives the SVID, or why there is none. It does not block.
func (l *lazyIdentity) GetX509SVID() (*x509svid.SVID, error) {
	s, err := l.current()
	if err != nil {
		return nil, err
	}
	return s.GetX509SVID()
}

// GetX509BundleForTrustDomain gives whom to trust. It does not block.
func (l *lazyIdentity) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	s, err := l.current()
	if err != nil {
		return nil, err
	}
	return s.GetX509BundleForTrustDomain(td)
}

// Changed tells of the first certificate, and of each one after.
func (l *lazyIdentity) Changed() <-chan struct{} {
	s, err := l.current()
	if err != nil {
		return l.here
	}
	return s.Changed()
}

// CheckPeer believes nobody while there is no identity.
func (l *lazyIdentity) CheckPeer(chain []*x509.Certificate) error {
	s, err := l.current()
	if err != nil {
		return err
	}
	return s.CheckPeer(chain)
}

// Rechecks tells when CheckPeer may have another answer.
func (l *lazyIdentity) Rechecks() <-chan struct{} {
	s, err := l.current()
	if err != nil {
		return l.here
	}
	return s.Rechecks()
}

// SameID reports whether got is want by another name.
func (l *lazyIdentity) SameID(want, got spiffeid.ID) bool {
	s, err := l.current()
	return err == nil && s.SameID(want, got)
}

var (
	_ hbone.Identity                 = (*lazyIdentity)(nil)
	_ hbone.Rotator                  = (*lazyIdentity)(nil)
	_ hbone.Reviewer                 = (*lazyIdentity)(nil)
	_ hbone.Aliaser                  = (*lazyIdentity)(nil)
	_ manager.LeaderElectionRunnable = (*lazyIdentity)(nil)
)
