package hbone

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/internal/h2"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// PlaintextPolicy says what a Dialer does with a route that has no HBONE hop.
type PlaintextPolicy int

// The policies. The zero value refuses.
const (
	PlaintextRefuse PlaintextPolicy = iota
	PlaintextAllow
)

// maxAttempts is how often a CONNECT that no peer acted on is tried.
const maxAttempts = 5

// maxEndpoints is how many endpoints a dial tries when connections to them cannot be made.
const maxEndpoints = 3

// Dialer opens tunnels. Set its fields before the first use; it must not be copied afterwards. All methods may be called from several
// goroutines.
type Dialer struct {
	// Identity is who we are and whom we trust. Required.
	Identity Identity
	// Resolver finds the way to an address. Required.
	Resolver Resolver
	// Plaintext says what to do with an address that the Resolver finds outside HBONE. Zero refuses.
	Plaintext PlaintextPolicy
	// NetDial makes TCP connections. Nil means a net.Dialer.
	NetDial func(ctx context.Context, network, address string) (net.Conn, error)
	// Baggage is sent with every CONNECT as a claim about ourselves ("k8s.namespace.name=edge,service.name=gateway"). Empty sends none.
	Baggage string
	// HandshakeTimeout bounds TCP connect and TLS handshake. Zero means 10 s; negative leaves it to the context.
	HandshakeTimeout time.Duration
	// Pool shares connections with other Dialers; it outlives the Dialer. Nil means one of the Dialer's own, which Close closes.
	Pool *Pool
	// Optimistic gives a tunnel to its user before the peer has answered, which saves a round trip: what is written is sent behind the CONNECT.
	// A refusal is then the *DialError of the first Read or Write. What was written until the answer, up to 16 KiB, is sent again on another
	// connection when the peer did not act on the CONNECT; beyond that such an end is an error.
	Optimistic bool
	// RetryWithin is how long after its begin a dial of DialContext may be tried again that was refused for the moment: its CONNECT was answered 503 or 404, as
	// by a waypoint that callers are sent to before it knows the Service, or its peer was not there, or went away before it answered. No byte has been delivered
	// then. It is tried at once where the Resolver has another way by now, and else after 20 to 40 ms, which doubles each time, or as soon as the Resolver tells of
	// another way; five times in all. A way that refuses all of them is not waited for again in the next 30 s. All dials together may be tried again as
	// often as one in five that opened, and 10 times a second, 100 at once. With Optimistic it is what was written until the answer that is sent again, and counts
	// from when the refusal is seen. Zero means 1 s; negative tries nothing again.
	RetryWithin time.Duration
	// Drain is how long a tunnel may go on after its way has changed, where the Resolver tells of changes; then it is reset. Zero leaves it
	// to its users; negative resets it at once.
	Drain time.Duration
	// Trace is told what happens. It may be nil.
	Trace *Trace

	own  Pool
	once sync.Once
	self any // what owner returns

	mu        sync.Mutex         // guards the fields below
	open      Conn               // root of the list of open tunnels, see join
	outdated  map[*Conn]struct{} // of them those whose way has changed
	following bool               // follow runs
	retries   RetryStats
	spent     float64 // of what may be tried again, at spentAt
	spentAt   time.Time
	refusing  map[string]time.Time // ways that were waited for in vain, and until when they are not again
	nudge     chan struct{}        // capacity 1: ways must be looked at; made with the first follow
}

func (d *Dialer) pool() *Pool {
	if d.Pool != nil {
		return d.Pool
	}
	return &d.own
}

func (d *Dialer) handshakeTimeout() time.Duration { return cmp.Or(d.HandshakeTimeout, 10*time.Second) }

func (d *Dialer) netDial(ctx context.Context, network, address string) (net.Conn, error) {
	if d.NetDial != nil {
		return d.NetDial(ctx, network, address)
	}
	var nd net.Dialer
	return nd.DialContext(ctx, network, address)
}

// DialContext connects to address ("host:port" as the Resolver understands it) on a network "tcp", "tcp4" or "tcp6". It blocks until the
// last hop has answered and obeys ctx until it returns. A tunnel is a *Conn; plaintext, where allowed, is what
// NetDial gives. When the first hop cannot be reached and the Resolver has another Endpoint, that is tried too; what is refused for the moment is tried again
// as RetryWithin says. Errors are *DialError; SafeToRetry tells whether a peer may have acted on the request.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
	default:
		return nil, &DialError{Target: address, Err: net.UnknownNetworkError(network)}
	}
	if d.Identity == nil || d.Resolver == nil {
		return nil, &DialError{Target: address, Err: errors.New("the Dialer has no Identity or no Resolver")}
	}
	begun := time.Now()
	changes, _ := d.Resolver.(changing)
	var before <-chan struct{}
	if changes != nil {
		before = changes.Changed()
	}
	route, err := d.Resolver.Resolve(ctx, network, address)
	if err != nil {
		return nil, &DialError{Target: address, Err: fmt.Errorf("resolve: %w", err)}
	}
	if len(route.Hops) == 0 {
		return d.dialDirect(ctx, network, address, route)
	}
	route.Target = cmp.Or(route.Target, address)
	c, err := d.dialRoute(ctx, route)
	if err != nil {
		c, err = d.dialAgain(ctx, network, address, begun, route, err)
	}
	if err != nil {
		return nil, err
	}
	if c.early != nil {
		c.early.network, c.early.ctx = network, ctx
	}
	d.followWays(changes, before)
	return c, nil
}

func (d *Dialer) dialDirect(ctx context.Context, network, address string, route Route) (net.Conn, error) {
	if !route.Direct.IsValid() {
		return nil, &DialError{Target: address, Err: errors.New("the resolver gave a route without hops")}
	}
	if d.Plaintext != PlaintextAllow {
		return nil, &DialError{Hop: route.Direct, Target: address,
			Err: errors.New("only plaintext leads there, and this dialer refuses it (set PlaintextAllow to permit it)")}
	}
	nc, err := d.netDial(ctx, network, route.Direct.String())
	if err != nil {
		return nil, &DialError{Hop: route.Direct, Target: address, Err: err}
	}
	return nc, nil
}

// DialRoute opens a tunnel along a route that has at least one hop. The first hop's connection is shared with other tunnels, those of
// the hops inside it are not. The caller must not change what route points to as long as the tunnel is open. With a Target the way is followed as that of a
// tunnel of DialContext is, where the Dialer has a Resolver that tells of changes: it is looked at at once, as it may have changed since the caller asked.
func (d *Dialer) DialRoute(ctx context.Context, route Route) (*Conn, error) {
	c, err := d.dialRoute(ctx, route)
	if err != nil {
		return nil, err
	}
	if changes, ok := d.Resolver.(changing); ok && route.Target != "" {
		now := make(chan struct{})
		close(now)
		d.followWays(changes, now)
	}
	return c, nil
}

func (d *Dialer) dialRoute(ctx context.Context, route Route) (*Conn, error) {
	if len(route.Hops) == 0 {
		return nil, &DialError{Target: route.Direct.String(), Err: errors.New("the route has no hop")}
	}
	for i := range route.Hops {
		if hop := &route.Hops[i]; len(hop.Peers) == 0 {
			return nil, hop.fail(spiffeid.ID{}, false, errors.New("the route names no identity that the hop must show"))
		}
	}
	conn, err := d.tunnel(ctx, &route)
	if err != nil {
		return nil, err
	}
	conn.join(d)
	return conn, nil
}

// tunnel opens one along all hops of a route, and again when our identity was replaced while it went inside.
func (d *Dialer) tunnel(ctx context.Context, route *Route) (*Conn, error) {
	for attempt := 1; ; attempt++ {
		conn, err := d.dialPooled(ctx, route)
		if err != nil {
			if route.Endpoint != nil && unreachable(err) {
				route.Endpoint.Failed(time.Now())
			}
			return nil, err
		}
		if len(route.Hops) == 1 {
			return conn, nil
		}
		if conn, err = d.dialNested(ctx, conn, route); err == nil || !errors.Is(err, errOvertaken) || attempt == maxAttempts {
			return conn, err
		}
	}
}

// dialNested opens the tunnels inside the outer one.
func (d *Dialer) dialNested(ctx context.Context, conn *Conn, route *Route) (*Conn, error) {
	for i := 1; i < len(route.Hops); i++ {
		shown, err := d.showing()
		if err != nil {
			conn.Reset()
			return nil, route.Hops[i].fail(spiffeid.ID{}, false, err)
		}
		inner, err := d.dialInside(ctx, conn, shown, route, i)
		if err != nil {
			conn.Reset()
			if outer, ok := errors.AsType[*DialError](errors.Unwrap(err)); ok {
				return nil, outer // the tunnel around it never stood, which an optimistic one tells late
			}
			return nil, err
		}
		conn = inner
	}
	return conn, nil
}

// dialPooled opens the tunnel of the first hop, and again elsewhere while no peer has acted on it.
func (d *Dialer) dialPooled(ctx context.Context, route *Route) (*Conn, error) {
	hop := &route.Hops[0]
	var avoid *pooled
	for attempt := 1; ; attempt++ {
		if ctx.Err() != nil {
			return nil, hop.fail(spiffeid.ID{}, false, context.Cause(ctx))
		}
		start := d.Trace.now()
		pc, reused, err := d.pool().get(ctx, d, hop, avoid)
		if errors.Is(err, errOvertaken) && attempt < maxAttempts {
			continue
		}
		if err != nil {
			return nil, hop.fail(spiffeid.ID{}, false, err)
		}
		d.Trace.gotConn(pc.link, start, reused)
		w := pc.way(d, route)
		start = d.Trace.now()
		conn := &Conn{way: w}
		err = pc.h2.StartIn(&conn.own, w.fields)
		started := err == nil
		switch {
		case !started:
			pc.drop()
		case d.Optimistic:
			conn.early = newOptimistic(&conn.own, w)
			return conn, nil
		default:
			err = conn.own.Await(ctx)
		}
		if err == nil {
			d.Trace.answered(pc.link, hop.Authority, nil, http.StatusOK, start, nil)
			return conn, nil
		}
		refused := pc.refused(err)
		failed := hop.fail(pc.link.peer, !refused && !errors.Is(err, h2.ErrUnprocessed), err)
		d.Trace.answered(pc.link, hop.Authority, nil, failed.Status, start, err)
		if failed.Sent || attempt == maxAttempts || refused && !pc.e.key.gen.over() {
			return nil, failed
		}
		if started {
			avoid = pc
		}
	}
}

// dialInside makes the next hop's connection inside a tunnel; it lives as long as its one tunnel.
func (d *Dialer) dialInside(ctx context.Context, outer *Conn, shown *generation, route *Route, i int) (*Conn, error) {
	hop := &route.Hops[i]
	nc, li, err := d.handshake(ctx, outer, hop, shown.svid)
	if err != nil {
		if d.replaced(shown) {
			err = overtaken(err)
		}
		return nil, hop.fail(li.peer, false, err)
	}
	c := h2.NewClient(nc, h2.Config{StreamWindow: clientWindow})
	w := newWay(d, route, i, li)
	w.inside, w.shown = c, shown
	start := d.Trace.now()
	conn := &Conn{way: w}
	s := &conn.own
	err = c.StartIn(s, w.fields)
	switch {
	case err != nil:
	case d.Optimistic:
		conn.early = newOptimistic(s, w)
	default:
		err = s.Await(ctx)
		status := http.StatusOK
		if err != nil {
			status = hop.fail(li.peer, true, err).Status
		}
		d.Trace.answered(li, hop.Authority, nil, status, start, err)
	}
	if err != nil {
		refused := refusedUs(c, err)
		if w.overtaken(err) {
			err = overtaken(err)
		}
		c.Close()
		return nil, hop.fail(li.peer, !refused && !errors.Is(err, h2.ErrUnprocessed), err)
	}
	go func() {
		li.reviewUntil(s.Done(), c)
		_ = c.Shutdown(context.Background()) // no stream is left: it ends at once
	}()
	return conn, nil
}

// connect makes a TCP connection to hop and the handshake on it.
func (d *Dialer) connect(ctx context.Context, hop *Hop, svid *x509svid.SVID) (net.Conn, *link, error) {
	if t := d.handshakeTimeout(); t > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t)
		defer cancel()
	}
	start := d.Trace.now()
	nc, err := d.netDial(ctx, "tcp", hop.Addr.String())
	var secured net.Conn
	li := &link{}
	if err == nil {
		if secured, li, err = d.handshake(ctx, nc, hop, svid); err != nil {
			nc.Close()
		}
	}
	d.Trace.handshakeDone(hop.Addr, li, start, err)
	if err != nil {
		err = &connectError{err}
	}
	return secured, li, err
}

// connectError is why there is no connection to a first hop.
type connectError struct{ err error }

func (e *connectError) Error() string { return e.err.Error() }
func (e *connectError) Unwrap() error { return e.err }

// unreachable reports whether err is of a first hop that no connection could be made to, not in time either.
func unreachable(err error) bool {
	if _, ok := errors.AsType[*connectError](err); ok {
		return !errors.Is(err, context.Canceled)
	}
	e, ok := errors.AsType[*DialError](err)
	return ok && !e.Sent && e.Peer.IsZero() && errors.Is(e.Err, context.DeadlineExceeded)
}

// handshake secures nc and says who is there. It leaves nc open when it fails.
func (d *Dialer) handshake(ctx context.Context, nc net.Conn, hop *Hop, svid *x509svid.SVID) (net.Conn, *link, error) {
	rv := newReview(d.Identity)
	tc := tls.Client(h2.NewGather(nc), clientTLS(d.Identity, svid, hop.Peers))
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, &link{}, fmt.Errorf("TLS handshake: %w", err)
	}
	cs := tc.ConnectionState()
	if cs.NegotiatedProtocol != "h2" {
		return nil, &link{}, fmt.Errorf("TLS handshake: the peer chose protocol %q instead of h2", cs.NegotiatedProtocol)
	}
	rv.chain = cs.PeerCertificates
	peer, err := spiffeid.FromURI(cs.PeerCertificates[0].URIs[0]) // VerifyConnection saw it
	return tc, &link{local: nc.LocalAddr(), remote: nc.RemoteAddr(), self: svid.ID, peer: peer, review: rv}, err
}

// fail makes the DialError of a hop.
func (h *Hop) fail(peer spiffeid.ID, sent bool, err error) *DialError {
	e := &DialError{Hop: h.Addr, Kind: h.Kind, Name: h.Name, Target: h.Authority, Peer: peer, Sent: sent, Err: err}
	if st, ok := errors.AsType[*h2.StatusError](err); ok {
		e.Status = st.Status
	}
	return e
}

// Close closes the connections of the Dialer's own pool, and with them every tunnel on them; later dials fail. A Pool that was given is
// left as it is. It is idempotent.
func (d *Dialer) Close() error { return d.own.Close() }

// CloseIdle closes the connections of the Dialer's pool that carry no tunnel.
func (d *Dialer) CloseIdle() { d.pool().CloseIdle() }
