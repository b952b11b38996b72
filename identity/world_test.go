package identity_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
)

var (
	td = spiffeid.RequireTrustDomainFromString("cluster.local")
	me = spiffeid.RequireFromString("spiffe://cluster.local/ns/edge/sa/gateway")

	errAway = errors.New("nobody there")
)

// TestMain fails when the package leaves goroutines.
func TestMain(m *testing.M) {
	code := m.Run()
	buf := make([]byte, 1<<20)
	if stacks := buf[:runtime.Stack(buf, true)]; bytes.Contains(stacks, []byte("identity.(*")) {
		os.Stderr.Write(stacks)
		code = 1
	}
	os.Exit(code)
}

// script is an authority that does what the test says. The zero answer is a certificate of an hour by ca.
type script struct {
	ca *identitytest.CA

	slow bool // Close takes a second

	mu     sync.Mutex
	answer func(context.Context) (*identity.Material, error)
	calls  []time.Time
	inCall int
	closed int
}

func newScript() *script { return &script{ca: identitytest.NewCA(td)} }

func (s *script) Fetch(ctx context.Context) (*identity.Material, error) {
	s.mu.Lock()
	s.calls = append(s.calls, time.Now())
	answer := s.answer
	s.inCall++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.inCall--
	}()
	if answer == nil {
		return material(s.ca), nil
	}
	return answer(ctx)
}

func (s *script) Close() error {
	if s.slow {
		time.Sleep(time.Second)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed++
	return nil
}

// then sets the answer from now on.
func (s *script) then(answer func(context.Context) (*identity.Material, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// called are the times of calls since the last time it was asked.
func (s *script) called() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := s.calls
	s.calls = nil
	return calls
}

func material(ca *identitytest.CA, opts ...identitytest.Option) *identity.Material {
	return &identity.Material{SVID: ca.SVID(me, opts...), Bundles: x509bundle.NewSet(ca.Bundle())}
}

func gives(m *identity.Material) func(context.Context) (*identity.Material, error) {
	return func(context.Context) (*identity.Material, error) { return m, nil }
}

func fails(err error) func(context.Context) (*identity.Material, error) {
	return func(context.Context) (*identity.Material, error) { return nil, err }
}

// hangs answers two seconds after nobody wants it any more.
func hangs(ctx context.Context) (*identity.Material, error) {
	<-ctx.Done()
	time.Sleep(2 * time.Second)
	return nil, ctx.Err()
}

// start makes a Source that ends with the test.
func start(t *testing.T, f identity.Fetcher, cfg identity.Config) *identity.Source {
	t.Helper()
	s, err := identity.New(t.Context(), f, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

var other = spiffeid.RequireTrustDomainFromString("other.example")

// notifying is a script that says when there is something new.
type notifying struct {
	*script
	notify chan struct{}
}

func (n *notifying) Notify() <-chan struct{} { return n.notify }

// complaints are what a Trace was told.
type complaints struct {
	mu   sync.Mutex // guards the field below
	list []error
}

func (c *complaints) add(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, err)
}

// take gives what came since it was asked last.
func (c *complaints) take() []error {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.list
	c.list = nil
	return list
}
