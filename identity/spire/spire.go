package spire

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/internal/push"
)

const (
	// longestPause is the most between two attempts to reach an agent that is away.
	longestPause = 5 * time.Second
	// maxNamed is how many identities an error lists.
	maxNamed = 8
)

// Config says which agent, and which of the identities that it has for us. It is copied.
type Config struct {
	// Socket is unix:///path, a path, or tcp://ip:port. Empty means what SPIFFE_ENDPOINT_SOCKET says.
	Socket string
	// ID chooses the identity. Zero means any.
	ID spiffeid.ID
	// Hint chooses the identity by its entry's hint. Empty means any. Of several that fit, the agent's first is taken.
	Hint string
	// Trust widens and narrows whom the Source believes, beside the bundles that the agent brings.
	Trust identity.Trust
	// Trace is told how the Source fares. It may be nil.
	Trace *identity.Trace
	// Logger takes failures and renewals. Nil is silent.
	Logger *slog.Logger
}

// address is Socket as go-spiffe wants it.
func (c *Config) address() (string, error) {
	address := c.Socket
	if address == "" {
		if address, _ = workloadapi.GetDefaultAddress(); address == "" {
			return "", errors.New("spire: no socket: set Config.Socket or SPIFFE_ENDPOINT_SOCKET")
		}
	}
	if strings.HasPrefix(address, "/") {
		address = "unix://" + address
	}
	err := workloadapi.ValidateAddress(address)
	if path, ok := strings.CutPrefix(address, "unix://"); ok && !strings.HasPrefix(path, "/") {
		err = errors.New("the path is not absolute")
	}
	if err != nil {
		return "", fmt.Errorf("spire: socket %q: %w: it must be a path, unix:///path or tcp://ip:port", address, err)
	}
	return address, nil
}

// New returns a Source with its first certificate. It blocks until then, trying again while the agent is away or does not know us, or until ctx ends;
// the error then has the agent's last answer.
func New(ctx context.Context, cfg Config) (*identity.Source, error) {
	address, err := cfg.address()
	if err != nil {
		return nil, err
	}
	api, err := workloadapi.New(ctx, workloadapi.WithAddr(address), workloadapi.WithBackoffStrategy(pauses{}),
		workloadapi.WithDialOptions(grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: longestPause},
			MinConnectTimeout: longestPause,
		})))
	if err != nil {
		return nil, fmt.Errorf("spire: %s: %w", address, err)
	}
	watch, cancel := context.WithCancel(context.Background())
	c := &client{Latest: push.New(), cfg: cfg, address: address, api: api, cancel: cancel, ctx: watch}
	c.wg.Go(c.watch)
	s, err := identity.New(ctx, c, identity.Config{Trust: cfg.Trust, Trace: cfg.Trace, Logger: cfg.Logger})
	if err != nil {
		c.Close()
		return nil, err
	}
	return s, nil
}

// client is the identity.Fetcher.
type client struct {
	*push.Latest
	cfg     Config
	address string
	api     *workloadapi.Client
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

// watch listens until Close. That go-spiffe gives up is no reason for us to: an agent that stops may end a call in many ways.
func (c *client) watch() {
	for c.ctx.Err() == nil {
		_ = c.api.WatchX509Context(c.ctx, c) // OnX509ContextWatchError had it
		select {
		case <-c.ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// Close ends the watch.
func (c *client) Close() error {
	c.cancel()
	c.wg.Wait()
	return c.api.Close()
}

// OnX509ContextUpdate takes what the agent says. It is called by go-spiffe.
func (c *client) OnX509ContextUpdate(x *workloadapi.X509Context) {
	svid, err := c.choose(x.SVIDs)
	if err != nil {
		c.Fail(err)
		return
	}
	c.Set(&identity.Material{SVID: svid, Bundles: x.Bundles})
}

// OnX509ContextWatchError takes why the agent says nothing. It is called by go-spiffe.
func (c *client) OnX509ContextWatchError(err error) {
	if c.ctx.Err() == nil {
		c.Fail(c.explain(err))
	}
}

// choose takes one of the identities.
func (c *client) choose(svids []*x509svid.SVID) (*x509svid.SVID, error) {
	var names []string
	for _, s := range svids {
		if (c.cfg.ID.IsZero() || s.ID == c.cfg.ID) && (c.cfg.Hint == "" || s.Hint == c.cfg.Hint) {
			return s, nil
		}
		name := s.ID.String()
		if s.Hint != "" {
			name += fmt.Sprintf(" (hint %q)", s.Hint)
		}
		names = append(names, name)
	}
	var want []string
	if !c.cfg.ID.IsZero() {
		want = append(want, c.cfg.ID.String())
	}
	if c.cfg.Hint != "" {
		want = append(want, fmt.Sprintf("hint %q", c.cfg.Hint))
	}
	if more := len(names) - maxNamed; more > 0 {
		names = append(names[:maxNamed], fmt.Sprintf("%d more", more))
	}
	return nil, fmt.Errorf("spire: the agent at %s does not have %s for this process, but %s: see Config.ID and Hint, and the registration entry's selectors",
		c.address, strings.Join(want, " with "), strings.Join(names, ", "))
}

// explain says what an answer means.
func (c *client) explain(err error) error {
	switch status.Code(err) {
	case codes.PermissionDenied:
		return fmt.Errorf("spire: the agent at %s has no identity for this process: %w: is there a registration entry with selectors that fit it, and has the agent heard of it?",
			c.address, err)
	case codes.Unavailable:
		return fmt.Errorf("spire: the agent at %s is not reachable: %w: is it running, and is its socket mounted here?", c.address, err)
	}
	return fmt.Errorf("spire: the agent at %s: %w", c.address, err)
}

// pauses are those between attempts.
type pauses struct{}

// NewBackoff is called by go-spiffe.
func (pauses) NewBackoff() workloadapi.Backoff { return &pause{} }

// pause grows from a quarter of a second.
type pause struct{ last time.Duration }

// Next is the pause to make now.
func (p *pause) Next() time.Duration {
	p.last = min(max(2*p.last, 250*time.Millisecond), longestPause)
	return p.last
}

// Reset begins anew.
func (p *pause) Reset() { p.last = 0 }

var (
	_ identity.Fetcher               = (*client)(nil)
	_ identity.Notifier              = (*client)(nil)
	_ workloadapi.X509ContextWatcher = (*client)(nil)
)
