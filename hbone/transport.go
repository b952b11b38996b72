package hbone

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// Transport sends HTTP requests through a Dialer: HTTP/1.1 or h2c inside the tunnel for http, and whatever TLS negotiates there for https. The
// Resolver is asked for each request's host and port whenever a new tunnel is needed. Tunnels are kept for later requests, and a
// request is repeated only where that is safe: when it was not sent, or is idempotent and its body can be had again. So it is too where a waypoint
// has accepted its tunnel and ends it in place of an answer (RST_STREAM CONNECT_ERROR), as one does that does not know the Service yet: in the bounds of
// Dialer.RetryWithin. Where the Resolver tells of
// changes (a method Changed, as wds.Client has), a tunnel is not used again after its way has changed: a request goes through a waypoint
// that came, or fails, but never past it. One Transport has one Dialer, so identities do not mix. Set its fields before the first use.
type Transport struct {
	// Dialer is required.
	Dialer *Dialer
	// H2C says which http requests go by HTTP/2 with prior knowledge. Nil means none: HTTP/1.1.
	H2C func(*http.Request) bool
	// H2CMaxAge is how long a tunnel takes new h2c requests. One that lived for ever would end the balancing among endpoints. Zero means 1 min,
	// negative sets no limit.
	H2CMaxAge time.Duration
	// H2CMaxStreams is how many h2c requests a tunnel has at once; beyond that there is a further tunnel. Zero means 100.
	H2CMaxStreams int
	// Configure, where set, adjusts the http.Transports beneath, one for h2c and one for the rest and a further one when ways change, before their
	// first use; it must leave DialContext and Protocols alone.
	Configure func(*http.Transport)

	once sync.Once
	h2c  h2cPool
	ways follower

	mu   sync.Mutex // guards base; never held across I/O
	base *http.Transport
}

func (t *Transport) h2cMaxAge() time.Duration { return cmp.Or(t.H2CMaxAge, time.Minute) }
func (t *Transport) h2cMaxStreams() int       { return max(1, cmp.Or(t.H2CMaxStreams, 100)) }

// addressKey is the context's key of WithAddress.
type addressKey struct{}

// WithAddress makes a Transport send a request's tunnel to address ("host:port" as the Resolver understands it) instead of the host and port of
// its URL; what the request says stays. It is for http, not for https, whose certificates are checked by the URL.
func WithAddress(ctx context.Context, address string) context.Context {
	return context.WithValue(ctx, addressKey{}, address)
}

// RoundTrip sends one request; see http.RoundTripper.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	t.init()
	if r.URL == nil {
		return nil, t.refuse(r, errors.New("hbone: the request has no URL"))
	}
	if address, ok := r.Context().Value(addressKey{}).(string); ok {
		if r.URL.Scheme != "http" {
			return nil, t.refuse(r, errors.New("hbone: WithAddress is for http only"))
		}
		if _, _, err := net.SplitHostPort(address); err != nil {
			return nil, t.refuse(r, err)
		}
		clone := r.WithContext(r.Context())
		clone.Host = cmp.Or(r.Host, r.URL.Host)
		url := *r.URL
		url.Host = address
		clone.URL = &url
		r = clone
	}
	res, err := t.send(r)
	if err != nil {
		return t.repeat(r, err)
	}
	return res, nil
}

// send sends a request once, as far as it is up to us.
func (t *Transport) send(r *http.Request) (*http.Response, error) {
	t.follow(r)
	if r.URL.Scheme == "http" && t.H2C != nil && t.H2C(r) {
		return t.h2c.roundTrip(r)
	}
	t.mu.Lock()
	base := t.base
	t.mu.Unlock()
	return base.RoundTrip(r)
}

// refuse is an error before anything was sent; a RoundTripper closes the body.
func (t *Transport) refuse(r *http.Request, err error) error {
	if r.Body != nil {
		r.Body.Close()
	}
	return err
}

// CloseIdleConnections closes the tunnels that no request uses.
func (t *Transport) CloseIdleConnections() {
	t.init()
	t.mu.Lock()
	base := t.base
	t.mu.Unlock()
	base.CloseIdleConnections()
	t.h2c.closeIdle()
}

func (t *Transport) init() {
	t.once.Do(func() {
		t.base, t.h2c.base = t.newBase(), t.transport()
		t.h2c.base.Protocols = new(http.Protocols)
		t.h2c.base.Protocols.SetUnencryptedHTTP2(true)
		t.h2c.maxAge, t.h2c.maxStreams = t.h2cMaxAge(), t.h2cMaxStreams()
		t.h2c.hosts = map[string]*h2cHost{}
	})
}

// newBase is for all but h2c.
func (t *Transport) newBase() *http.Transport {
	base := t.transport()
	base.ForceAttemptHTTP2 = true // over TLS
	return base
}

func (t *Transport) transport() *http.Transport {
	base := &http.Transport{
		DialContext:           t.Dialer.DialContext,
		MaxIdleConnsPerHost:   64,
		IdleConnTimeout:       90 * time.Second,
		ExpectContinueTimeout: time.Second,
	}
	if t.Configure != nil {
		t.Configure(base)
	}
	return base
}

var _ http.RoundTripper = (*Transport)(nil)
