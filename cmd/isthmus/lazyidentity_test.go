package main

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
)

// issuer is an authority in memory.
type issuer struct {
	ca *identitytest.CA
	id spiffeid.ID
}

func (i issuer) Fetch(context.Context) (*identity.Material, error) {
	return &identity.Material{SVID: i.ca.SVID(i.id), Bundles: x509bundle.NewSet(i.ca.Bundle())}, nil
}

// TestAControllerThatHasJustBegunIsNotUnable: it waits for what its first attempt gives, but not for one that hangs.
func TestAControllerThatHasJustBegunIsNotUnable(t *testing.T) {
	errAway := errors.New("istiod is away")
	for _, c := range []struct {
		takes, waits time.Duration
		want         error
	}{{2 * time.Second, 2 * time.Second, errAway}, {time.Minute, 5 * time.Second, errNoIdentity}} {
		synctest.Test(t, func(t *testing.T) {
			l := newLazyIdentity(&meshFlags{}, slog.New(slog.DiscardHandler))
			l.get = func(ctx context.Context) (*identity.Source, error) {
				select {
				case <-ctx.Done():
				case <-time.After(c.takes):
				}
				return nil, errAway
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- l.Start(ctx) }()
			began := time.Now()
			if err := l.able(); !errors.Is(err, c.want) || time.Since(began) != c.waits {
				t.Errorf("after %v: %v; want after %v: %v", time.Since(began), err, c.waits, c.want)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTheControllersIdentityTellsWhatItsSourceTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := identitytest.NewCA(spiffeid.RequireTrustDomainFromString("cluster.local"))
		id := spiffeid.RequireFromString("spiffe://cluster.local/ns/isthmus-system/sa/isthmus")
		alias := spiffeid.RequireFromString("spiffe://old.example/ns/isthmus-system/sa/isthmus")
		chain := ca.SVID(id).Certificates
		errAway := errors.New("istiod is away")
		tries := 0
		l := newLazyIdentity(&meshFlags{}, slog.New(slog.DiscardHandler))
		l.get = func(ctx context.Context) (*identity.Source, error) {
			if tries++; tries == 1 {
				return nil, errAway
			}
			domains := []spiffeid.TrustDomain{id.TrustDomain(), alias.TrustDomain()}
			return identity.New(ctx, issuer{ca, id}, identity.Config{Trust: identity.Trust{Aliases: [][]spiffeid.TrustDomain{domains}}})
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		first, again := l.Changed(), l.Rechecks()
		go func() { done <- l.Start(ctx) }()

		time.Sleep(l.pause / 2)
		if err := l.CheckPeer(chain); !errors.Is(err, errAway) {
			t.Errorf("without an identity a peer is judged: %v", err)
		}
		if l.SameID(id, alias) {
			t.Error("without an identity there are aliases")
		}
		for _, c := range []<-chan struct{}{first, again} {
			select {
			case <-c:
				t.Fatal("it told of a certificate that is not there")
			default:
			}
		}
		time.Sleep(l.pause)
		for _, c := range []<-chan struct{}{first, again} {
			<-c
		}
		if err := l.CheckPeer(chain); err != nil {
			t.Error(err)
		}
		if !l.SameID(id, alias) {
			t.Error("the source's aliases are not known")
		}
		next := l.Changed()
		time.Sleep(time.Hour) // certificates live for one at most
		<-next
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
