package istioca

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/identity"
)

// Config says which authority, and who asks. It is copied.
type Config struct {
	// Addresses are host:port of the authority's TLS port (istiod's 15012); they are tried in turn. At least one.
	Addresses []string
	// ServerName is the name in the authority's certificate. Empty means istiod.istio-system.svc.
	ServerName string
	// RootsFile is a PEM file of the roots that the authority's certificate leads to; it is read again for every call. One of RootsFile and Roots
	// is required.
	RootsFile string
	// Roots gives the same PEM by function.
	Roots func() ([]byte, error)
	// TokenFile holds the service account's token for audience istio-ca; it is read again for every call. One of TokenFile and Token is required.
	TokenFile string
	// Token gives the token by function.
	Token func(ctx context.Context) (string, error)
	// ClusterID is istiod's name of our cluster. Empty means Kubernetes.
	ClusterID string
	// ID is who we are: it must be the token's service account, unless Impersonate is set. Required.
	ID spiffeid.ID
	// Impersonate asks for ID with the token of another account, as node agents do: istiod allows it to accounts in CA_TRUSTED_NODE_ACCOUNTS, with a
	// token bound to a pod, for service accounts of pods on that pod's node.
	Impersonate bool
	// TTL is the lifetime asked for, in whole seconds. Zero means 24 h; the authority may give less. Negative is an error.
	TTL time.Duration
	// RootsInterval is how often the roots are compared with those in use; when they have changed a new certificate is asked for. Zero means
	// 1 min; negative means only when the certificate is renewed.
	RootsInterval time.Duration
	// Trust widens and narrows whom the Source believes, beside the roots.
	Trust identity.Trust
	// Trace is told how the Source fares. It may be nil.
	Trace *identity.Trace
	// DialContext makes TCP connections. Nil means a net.Dialer.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
	// Logger takes failures and renewals. Nil is silent.
	Logger *slog.Logger
}

func (c *Config) serverName() string           { return cmp.Or(c.ServerName, "istiod.istio-system.svc") }
func (c *Config) clusterID() string            { return cmp.Or(c.ClusterID, "Kubernetes") }
func (c *Config) ttl() time.Duration           { return cmp.Or(c.TTL, 24*time.Hour) }
func (c *Config) rootsInterval() time.Duration { return cmp.Or(c.RootsInterval, time.Minute) }

// check finds what can never work.
func (c *Config) check() error {
	switch {
	case len(c.Addresses) == 0:
		return errors.New("istioca: no address: set Config.Addresses")
	case c.ID.IsZero():
		return errors.New("istioca: no identity: set Config.ID")
	case c.RootsFile == "" && c.Roots == nil:
		return errors.New("istioca: no roots to know the authority by: set Config.RootsFile")
	case c.TokenFile == "" && c.Token == nil:
		return errors.New("istioca: no token: set Config.TokenFile")
	case c.TTL < 0 || c.TTL > 0 && c.TTL < time.Second:
		return fmt.Errorf("istioca: a certificate cannot live %v: set Config.TTL to a second or more", c.TTL)
	}
	for _, a := range c.Addresses {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return fmt.Errorf("istioca: address %q: %w: it must be host:port, as istiod.istio-system.svc:15012", a, err)
		}
	}
	return nil
}

// New returns a Source with its first certificate. It blocks until then, trying again while the authority is away, or until ctx ends. A token that
// is refused ends it at once, unless nothing is wrong with it as far as can be seen; a TokenFile or RootsFile that does not exist ends it after
// three seconds. Later, what is missing is waited for, and told to Config.Logger.
func New(ctx context.Context, cfg Config) (*identity.Source, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	cfg.Addresses = slices.Clone(cfg.Addresses)
	return identity.New(ctx, &client{cfg: cfg, begun: time.Now()}, identity.Config{Trust: cfg.Trust, Trace: cfg.Trace, Logger: cfg.Logger})
}
