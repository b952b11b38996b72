package sds

import (
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/internal/push"
)

// maxAnswer is how many bytes an answer may have.
const maxAnswer = 4 << 20

// Config says which agent, and what to ask it for. The zero value is for Istio's agent in the same container. It is copied.
type Config struct {
	// Socket is a path, or unix:///path. Empty means /var/run/secrets/workload-spiffe-uds/socket, where Istio's agent listens.
	Socket string
	// Name of the certificate. Empty means default; to SPIRE it may be a SPIFFE id.
	Name string
	// Roots is the name of those to trust. Empty means ROOTCA, the roots of our own trust domain; SPIRE's ALL has federated ones too.
	Roots string
	// ID is who we are: an agent that brings another identity is refused. Zero takes what it brings.
	ID spiffeid.ID
	// Node is what we call ourselves to the agent. Empty means isthmus.
	Node string
	// Trust widens and narrows whom the Source believes, beside the roots that the agent brings.
	Trust identity.Trust
	// Trace is told how the Source fares. It may be nil.
	Trace *identity.Trace
	// Logger takes failures and renewals. Nil is silent.
	Logger *slog.Logger
}

func (c *Config) name() string  { return cmp.Or(c.Name, "default") }
func (c *Config) roots() string { return cmp.Or(c.Roots, "ROOTCA") }
func (c *Config) node() string  { return cmp.Or(c.Node, "isthmus") }
func (c *Config) path() string {
	return cmp.Or(strings.TrimPrefix(c.Socket, "unix://"), "/var/run/secrets/workload-spiffe-uds/socket")
}

// New returns a Source with its first certificate. It blocks until then, trying again while the agent is away or has nothing for us, or until ctx
// ends; the error then has the agent's last answer.
func New(ctx context.Context, cfg Config) (*identity.Source, error) {
	if cfg.name() == cfg.roots() {
		return nil, fmt.Errorf("sds: certificate and roots have one name, %q: see Config.Name and Roots", cfg.name())
	}
	if !strings.HasPrefix(cfg.path(), "/") {
		return nil, fmt.Errorf("sds: socket %q: it must be an absolute path, or unix:///path", cfg.Socket)
	}
	cc, err := grpc.NewClient("unix://"+cfg.path(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: longestPause},
			MinConnectTimeout: longestPause,
		}))
	if err != nil {
		return nil, fmt.Errorf("sds: %s: %w", cfg.path(), err)
	}
	run, cancel := context.WithCancel(context.Background())
	c := &client{Latest: push.New(), cfg: cfg, cc: cc, cancel: cancel}
	c.wg.Go(func() { c.follow(run, cfg.name(), c.takeCertificate) })
	c.wg.Go(func() { c.follow(run, cfg.roots(), c.takeRoots) })
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
	cfg    Config
	cc     *grpc.ClientConn
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex // guards the fields below, and the order of what is pushed
	svid  *x509svid.SVID
	roots *roots
	wrong map[string]error // by name, what the agent does not bring; empty when it brings all
}

// Close ends the streams.
func (c *client) Close() error {
	c.cancel()
	c.wg.Wait()
	return c.cc.Close()
}

// takeCertificate takes a new certificate, if it is good.
func (c *client) takeCertificate(b []byte) error {
	svid, err := parseCertificate(b, c.cfg.name())
	if err != nil {
		return err
	}
	if pub, ok := svid.Certificates[0].PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(svid.PrivateKey.Public()) {
		return errors.New("certificate and key do not belong together")
	}
	if !c.cfg.ID.IsZero() && svid.ID != c.cfg.ID {
		return fmt.Errorf("it is for %s, not for %s: see Config.ID", svid.ID, c.cfg.ID)
	}
	c.came(c.cfg.name(), func() { c.svid = svid })
	return nil
}

// takeRoots takes other roots, if they are good.
func (c *client) takeRoots(b []byte) error {
	r, err := parseRoots(b, c.cfg.roots())
	if err != nil {
		return err
	}
	c.came(c.cfg.roots(), func() { c.roots = r })
	return nil
}

// came notes that the agent has brought name, and passes on what there is when it is all there.
func (c *client) came(name string, set func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	set()
	delete(c.wrong, name)
	if c.svid != nil && c.roots != nil && len(c.wrong) == 0 {
		c.Set(&identity.Material{SVID: c.svid, Bundles: c.roots.bundles(c.svid.ID.TrustDomain())})
	}
}

// missing notes why the agent does not bring name.
func (c *client) missing(name string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wrong == nil {
		c.wrong = map[string]error{}
	}
	c.wrong[name] = err
	c.Fail(err)
}

var (
	_ identity.Fetcher  = (*client)(nil)
	_ identity.Notifier = (*client)(nil)
)
