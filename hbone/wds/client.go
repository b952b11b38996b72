package wds

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/hbone/authz"
	"github.com/isthmus-mesh/isthmus/hbone/route"
)

// Client asks istiod and remembers. All methods may be called from several goroutines; the user closes it.
type Client struct {
	cfg    Config
	cancel context.CancelFunc
	done   <-chan struct{} // closed by Close
	wg     sync.WaitGroup
	wake   chan struct{} // capacity 1: the stream has names to ask for
	ready  chan struct{} // closed with istiod's first answer

	mu       sync.Mutex // guards the fields below
	table    *route.Table
	names    map[string]*asked // what we subscribe to
	pending  []string          // names not yet sent on the stream
	again    []string          // names to unsubscribe first
	versions map[string]string // of the Address resources held
	policies map[string]*authz.Policy
	polVers  map[string]string
	allPols  bool                 // the first answer for policies came
	newPols  bool                 // the stream is new: its first answer for policies is all that there is
	badAddrs map[string]error     // Address resources that could not be read and that are not held
	badPols  map[string]badPolicy // policies likewise
	version  uint64
	changed  chan struct{}
	online   bool // istiod has answered on the stream there is
	lastErr  error
	closed   bool
}

// asked is a name that istiod was asked for.
type asked struct {
	absent time.Time // when istiod said that there is nothing, or a Service without pods; zero: it did not
	anew   bool      // asked for again since
}

// badPolicy is a policy that could not be read.
type badPolicy struct {
	err   error
	scope authz.Scope // as far as it could be read
}

// errClosed ends the waits.
var errClosed = fmt.Errorf("wds: the client is closed: %w", net.ErrClosed)

// New returns a Client that connects in the background. It does not block; a configuration that makes no sense is an error.
func New(cfg Config) (*Client, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := newClient(ctx, cancel, cfg)
	c.wg.Go(func() { c.run(ctx) })
	return c, nil
}

// newClient is a Client that does not connect.
func newClient(ctx context.Context, cancel context.CancelFunc, cfg Config) *Client {
	cfg.Addresses = slices.Clone(cfg.Addresses)
	c := &Client{
		cfg: cfg, cancel: cancel, done: ctx.Done(),
		wake:     make(chan struct{}, 1),
		ready:    make(chan struct{}),
		table:    route.NewTable(),
		names:    map[string]*asked{},
		versions: map[string]string{},
		policies: map[string]*authz.Policy{},
		polVers:  map[string]string{},
		changed:  make(chan struct{}),
		badAddrs: map[string]error{},
		badPols:  map[string]badPolicy{},
	}
	c.names[c.own()] = &asked{} // where we are decides which endpoints are near
	return c
}

// Close ends the connection and every wait. It is idempotent.
func (c *Client) Close() error {
	c.cancel()
	c.wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed = true
		c.broadcast()
	}
	return nil
}

// Ready blocks until istiod has answered for the first time, or until ctx ends; the error then says why it has not.
func (c *Client) Ready(ctx context.Context) error {
	if err := c.ask(c.own()); err != nil {
		return err
	}
	select {
	case <-c.ready:
		return nil
	case <-c.done:
		return errClosed
	case <-ctx.Done():
		return c.away(ctx)
	}
}

func (c *Client) own() string {
	return route.NetAddr{Network: c.cfg.Node.Network, IP: c.cfg.Node.IP}.Key()
}

// away is why we do not know: ctx ended, and istiod's last error.
func (c *Client) away(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lastErr != nil {
		return fmt.Errorf("istiod did not answer: %w: %w", context.Cause(ctx), c.lastErr)
	}
	for _, name := range slices.Sorted(maps.Keys(c.badAddrs)) { // the first will do
		return fmt.Errorf("istiod did not answer so that it could be read: %w: %s: %w", context.Cause(ctx), name, c.badAddrs[name])
	}
	return fmt.Errorf("istiod did not answer: %w", context.Cause(ctx))
}

// Changed returns a channel that is closed when anything known has changed.
func (c *Client) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// broadcast tells of a change; mu is held.
func (c *Client) broadcast() {
	c.version++
	close(c.changed)
	c.changed = make(chan struct{})
}

// Resolve finds the way to address ("host:port", where host is an IP or a Service's full name) as ztunnel would for a captured pod. It
// blocks until istiod has answered for every name that the way needs; what is known already needs no answer. Errors that are *route.Error are
// final.
func (c *Client) Resolve(ctx context.Context, network, address string) (hbone.Route, error) {
	for {
		c.mu.Lock()
		if c.closed {
			c.mu.Unlock()
			return hbone.Route{}, errClosed
		}
		changed := c.changed
		r, err := c.table.Resolve(c.cfg.source(), address, c.isAbsent)
		c.mu.Unlock()
		missing, ok := errors.AsType[*route.MissingError](err)
		if !ok {
			return r, err
		}
		if err := c.ask(missing.Names...); err != nil {
			return hbone.Route{}, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return hbone.Route{}, c.away(ctx)
		}
	}
}

// isAbsent says of a name that istiod has nothing by it: for a short while after it said so, and for as long as it is away. mu is held.
func (c *Client) isAbsent(name string) bool {
	a := c.names[name]
	return a != nil && !a.absent.IsZero() && (!c.online || !c.expired(a))
}

// expired reports whether an absence was remembered for long enough; mu is held.
func (c *Client) expired(a *asked) bool {
	return !a.absent.IsZero() && time.Since(a.absent) >= c.cfg.absentFor()
}

// offline notes that the stream has ended; mu is not held.
func (c *Client) offline() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.online { // who waits for an absent name to be asked for anew takes the old answer
		c.online = false
		c.broadcast()
	}
}

// ask subscribes to names that are not known.
func (c *Client) ask(names ...string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range names {
		switch a := c.names[name]; {
		case a == nil && len(c.names) > c.cfg.maxNames() && !c.evict(): // one is our own
			return fmt.Errorf("wds: %d names are asked for already, which is the limit (Config.MaxNames)", c.cfg.maxNames())
		case a == nil && c.table.Has(name):
			// A Service without pods that came by another name. istiod does not answer for what it has sent already, so that
			// the time for asking anew begins here.
			c.names[name] = &asked{absent: time.Now()}
			c.broadcast()
		case a == nil:
			c.names[name] = &asked{}
			c.pending = append(c.pending, name)
		case c.expired(a) && !a.anew:
			a.anew = true
			c.again = append(c.again, name)
			c.pending = append(c.pending, name)
		}
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return nil
}

// evict forgets the names that led nowhere and that were not asked for again; it reports whether there were any. mu is held.
func (c *Client) evict() bool {
	n := len(c.names)
	for name, a := range c.names {
		// What is held stays subscribed to, also a Service without pods: it would be served as it was for ever.
		if name != c.own() && c.expired(a) && !c.table.Has(name) {
			delete(c.names, name)
			c.again = append(c.again, name)
		}
	}
	return len(c.names) < n
}

// Workload is the workload at ip, asked for where it is not known. It blocks like Resolve; the error says when there is none.
func (c *Client) Workload(ctx context.Context, ip netip.Addr) (*route.Workload, error) {
	a := route.NetAddr{Network: c.cfg.Node.Network, IP: ip}
	for {
		c.mu.Lock()
		w, changed, absent, closed := c.table.Workload(a), c.changed, c.isAbsent(a.Key()), c.closed
		c.mu.Unlock()
		switch {
		case closed:
			return nil, errClosed
		case w != nil:
			return w, nil
		case absent:
			return nil, fmt.Errorf("wds: istiod knows no workload at %s", ip)
		}
		if err := c.ask(a.Key()); err != nil {
			return nil, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, c.away(ctx)
		}
	}
}

// now is the version of all that is known.
func (c *Client) now() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.version
}

// snapshot is the policies held, and whether all have come.
func (c *Client) snapshot() ([]*authz.Policy, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Values(c.policies)), c.allPols
}

// unreadable is the first policy that could not be read, that is not held and that may apply to workloads of namespace; "" when there is none.
// Those of workloads are missed by who lists them.
func (c *Client) unreadable(namespace string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(c.badPols)) {
		b := c.badPols[name]
		ns, _, _ := strings.Cut(name, "/")
		if b.scope != authz.ScopeWorkload && (b.scope != authz.ScopeNamespace || ns == namespace) {
			return fmt.Sprintf("%s (it cannot be read: %v)", name, b.err)
		}
	}
	return ""
}

var _ hbone.Resolver = (*Client)(nil)
