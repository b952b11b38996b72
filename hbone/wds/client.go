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
	"sync/atomic"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/hbone/authz"
	"github.com/isthmus-mesh/isthmus/hbone/route"
)

// Client asks istiod and remembers. All methods may be called from several goroutines; the user closes it.
type Client struct {
	cfg    Config
	src    route.Source
	cancel context.CancelFunc
	done   <-chan struct{} // closed by Close
	wg     sync.WaitGroup
	wake   chan struct{} // capacity 1: the stream has names to ask for
	ready  chan struct{} // closed with istiod's first answer

	saver    saver                // of the SnapshotFile
	held     held                 // used by run alone, and before it starts
	now      atomic.Pointer[view] // what is known; replaced under mu
	epoch    atomic.Int64         // counts the looks for what is unused
	narrowed atomic.Bool          // Wildcard asks for what is dialled for a while; changed under mu, between streams
	had      atomic.Bool          // in wildcard: all there was has come once, of istiod or of the SnapshotFile
	ways     cache                // by address
	all      cache                // likewise, of route.Table.Members

	mu      sync.Mutex        // guards the fields below; never held while a response is read
	names   map[string]*asked // what we subscribe to
	pending []string          // names not yet sent on the stream
	again   []string          // names to unsubscribe first
	full    time.Time         // until when no name can make room
	bad     map[string]error  // Address resources that could not be read and that are not held
	stats   Stats             // the counters
	lastErr error

	policiesFrom time.Time // when the SnapshotFile was written whose policies stand for istiod's answer; zero: they do not

	greeted    time.Time // when hello asked for addresses; zero: the first answer is there
	apart      apart     // as an answer was too large
	polsFlight time.Time // when policies were asked for on this stream; zero: they were not, or the answer is there
	polsLarge  tooBig    // that answer
	allLarge   tooBig    // that to Wildcard
}

// view is all that is known at one moment. It does not change.
type view struct {
	table    *route.Table
	policies map[string]*authz.Policy
	allPols  bool                 // the first answer for policies came
	badPols  map[string]badPolicy // policies that could not be read and are not held
	version  uint64
	online   bool // istiod has answered on the stream there is
	complete bool // in wildcard: all that there is has come
	closed   bool
	stuck    error         // why istiod cannot be asked, nil while it can or when that may pass
	changed  chan struct{} // closed when there is a newer one
}

// badPolicy is a policy that could not be read.
type badPolicy struct {
	err   error
	scope authz.Scope // as far as it could be read
}

// errClosed ends the waits.
var errClosed = fmt.Errorf("wds: the client is closed: %w", net.ErrClosed)

// New returns a Client that connects in the background. It does not block, but for reading Config.SnapshotFile; a configuration that makes
// no sense is an error.
func New(cfg Config) (*Client, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := newClient(ctx, cancel, cfg)
	if cfg.SnapshotFile != "" {
		c.restore(time.Now())
		c.wg.Go(func() { c.save(ctx) })
	}
	c.wg.Go(func() { c.run(ctx) })
	return c, nil
}

// newClient is a Client that does not connect.
func newClient(ctx context.Context, cancel context.CancelFunc, cfg Config) *Client {
	cfg.Addresses = slices.Clone(cfg.Addresses)
	c := &Client{
		cfg: cfg, src: cfg.source(), cancel: cancel, done: ctx.Done(),
		wake:  make(chan struct{}, 1),
		ready: make(chan struct{}),
		held:  newHeld(),
		saver: make(saver, 1),
		names: map[string]*asked{},
		apart: apart{names: map[string]bool{}},
		bad:   map[string]error{},
	}
	c.now.Store(&view{table: c.held.table.Snapshot(), changed: make(chan struct{})})
	c.names[c.own()] = &asked{pinned: true} // where we are decides which endpoints are near
	return c
}

// Close ends the connection and every wait. It is idempotent.
func (c *Client) Close() error {
	c.cancel()
	c.wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.now.Load().closed {
		c.publish(func(v *view) { v.closed = true })
	}
	return nil
}

// publish replaces what is known and tells of it; mu is held.
func (c *Client) publish(change func(*view)) {
	old := c.now.Load()
	v := *old
	change(&v)
	v.version++
	v.changed = make(chan struct{})
	c.now.Store(&v)
	close(old.changed)
}

// Ready blocks until istiod has answered for the first time, or until ctx ends; the error then says why it has not. A TokenFile or RootsFile that is not there ends
// it after some seconds.
func (c *Client) Ready(ctx context.Context) error {
	if err := c.ask(c.own()); err != nil {
		return err
	}
	for {
		v := c.now.Load()
		select {
		case <-c.ready:
			return nil
		default:
		}
		if v.stuck != nil {
			return v.stuck
		}
		select {
		case <-c.ready:
			return nil
		case <-v.changed: // it may be stuck
		case <-c.done:
			return errClosed
		case <-ctx.Done():
			return c.away(ctx)
		}
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
	for _, name := range slices.Sorted(maps.Keys(c.bad)) { // the first will do
		return fmt.Errorf("istiod did not answer so that it could be read: %w: %s: %w", context.Cause(ctx), name, c.bad[name])
	}
	return fmt.Errorf("istiod did not answer: %w", context.Cause(ctx))
}

// Changed returns a channel that is closed when anything known has changed.
func (c *Client) Changed() <-chan struct{} { return c.now.Load().changed }

// Resolve finds the way to address ("host:port", where host is an IP, a Service's full name, or namespace/name; a name without namespace is that of the Node's,
// with Wildcard also the one other namespace's that has it) as ztunnel would for a captured pod. It blocks until istiod has answered for every name that the way needs; what is known already needs no answer, waits for
// nothing and allocates nothing. Errors that are *route.Error are final. While a TokenFile or RootsFile is missing for some seconds, what is not known is an
// error at once.
func (c *Client) Resolve(ctx context.Context, network, address string) (hbone.Route, error) {
	v := c.now.Load()
	if w := c.ways.get(address, v, c.epoch.Load()); w != nil && !v.closed {
		return w.PickFor(address, route.Key(ctx))
	}
	return c.find(ctx, address)
}

// source is who dials. While all there is is too large to be told, and was never told before, what is held is what others have dialled.
func (c *Client) source() route.Source {
	src := c.src
	src.OnDemand = src.OnDemand || c.narrowed.Load() && !c.had.Load()
	return src
}

// find is Resolve for an address that is not in the cache as it is spelled.
func (c *Client) find(ctx context.Context, address string) (hbone.Route, error) {
	plain := c.src.Plain(address)
	for {
		v := c.now.Load()
		if v.closed {
			return hbone.Route{}, errClosed
		}
		if w := c.ways.get(plain, v, c.epoch.Load()); w != nil {
			return w.PickFor(address, route.Key(ctx))
		}
		w, err := v.table.Ways(c.source(), address, c.absentIn(v))
		missing, lacking := errors.AsType[*route.MissingError](err)
		if !lacking {
			ask := c.unsettled(v, namesOf(w, err))
			if len(ask) == 0 && err == nil {
				c.ways.put(plain, w, v, c.epoch.Load())
			}
			// Where istiod cannot be asked, what is held is what there is.
			if len(ask) == 0 || !v.online || c.ask(ask...) != nil {
				if err != nil {
					return hbone.Route{}, err
				}
				return w.PickFor(address, route.Key(ctx))
			}
		} else if err := c.ask(missing.Names...); err != nil {
			return hbone.Route{}, err
		}
		if v.stuck != nil {
			return hbone.Route{}, v.stuck
		}
		select {
		case <-v.changed:
		case <-ctx.Done():
			return hbone.Route{}, c.away(ctx)
		}
	}
}

// Admits reports whether r, which Resolve gave, is still a way to r.Target: whether the same waypoint is on it, and whether the endpoint is
// still there under the same identity, healthy or not. Where that is not known it is taken to be. A Dialer asks it when Changed tells of
// something. It does not block.
func (c *Client) Admits(r hbone.Route) bool {
	v := c.now.Load()
	target := c.src.Plain(r.Target)
	w := c.all.get(target, v, c.epoch.Load())
	if w == nil {
		var err error
		w, err = v.table.Members(c.source(), r.Target, c.absentIn(v))
		if missing, ok := errors.AsType[*route.MissingError](err); ok {
			_ = c.ask(missing.Names...) // so that it is known later; when there is no room it stays as it is
			return true
		}
		if err != nil {
			return v.closed
		}
		c.all.put(target, w, v, c.epoch.Load())
		if c.narrowed.Load() {
			c.follow(w.Names())
		}
	}
	return w.Admit(&r)
}

// Workload is the workload at ip, asked for where it is not known. It blocks like Resolve; the error says when there is none.
func (c *Client) Workload(ctx context.Context, ip netip.Addr) (*route.Workload, error) {
	a := route.NetAddr{Network: c.cfg.Node.Network, IP: ip}
	for {
		v := c.now.Load()
		if v.closed {
			return nil, errClosed
		}
		w := v.table.Workload(a)
		var ask []string
		if c.narrowed.Load() { // else what is held is kept up to date, by whatever name it came
			ask = c.unsettled(v, []string{a.Key()})
		}
		if asked := w != nil && len(ask) > 0 && v.online && c.ask(ask...) == nil; w != nil && !asked {
			return w, nil
		}
		if w == nil && c.absentIn(v)(a.Key()) {
			return nil, fmt.Errorf("wds: istiod knows no workload at %s", ip)
		}
		if err := c.ask(a.Key()); err != nil {
			return nil, err
		}
		c.pin(a.Key())
		if v.stuck != nil {
			return nil, v.stuck
		}
		select {
		case <-v.changed:
		case <-ctx.Done():
			return nil, c.away(ctx)
		}
	}
}

// unreadable is the first policy that could not be read, that is not held and that may apply to workloads of namespace; "" when there is none.
// Those of workloads are missed by who lists them.
func (v *view) unreadable(namespace string) string {
	for _, name := range slices.Sorted(maps.Keys(v.badPols)) {
		b := v.badPols[name]
		ns, _, _ := strings.Cut(name, "/")
		if b.scope != authz.ScopeWorkload && (b.scope != authz.ScopeNamespace || ns == namespace) {
			return fmt.Sprintf("%s (it cannot be read: %v)", name, b.err)
		}
	}
	return ""
}

var _ hbone.Resolver = (*Client)(nil)
