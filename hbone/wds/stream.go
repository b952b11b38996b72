package wds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

const (
	addressType       = "type.googleapis.com/istio.workload.Address"
	authorizationType = "type.googleapis.com/istio.security.Authorization"
	unspecified       = "/0.0.0.0" // a name that nothing has

	minBackoff = 100 * time.Millisecond
	maxBackoff = 15 * time.Second
)

// run keeps one stream to one of the addresses until ctx ends.
func (c *Client) run(ctx context.Context) {
	backoff := minBackoff
	var lackingSince time.Time
	for i := 0; ctx.Err() == nil; i++ {
		address := c.cfg.Addresses[i%len(c.cfg.Addresses)]
		start := time.Now()
		err := c.stream(ctx, address)
		c.offline()
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errWiden) {
			c.widen()
			i-- // the same address
			continue
		}
		large := isLarge(err)
		_, lacking := errors.AsType[*fileError](err)
		switch {
		case !lacking:
			lackingSince = time.Time{}
		case lackingSince.IsZero():
			lackingSince = start
		}
		err = fmt.Errorf("wds: istiod at %s: %w", address, c.cfg.explain(err))
		c.failed(err, lacking && time.Since(lackingSince) >= mountGrace)
		searching := large && c.tooLarge(time.Now())
		if large && c.narrowed.Load() {
			c.cfg.logger().Warn("wds: all there is is too large; what is dialled is asked for instead, for a while")
		}
		switch {
		case time.Since(start) > maxBackoff: // istiod is well
			backoff = minBackoff
		case searching:
			backoff = min(backoff, largeBackoff)
		case lacking:
			backoff = min(backoff, longestLook)
		}
		c.cfg.logger().Warn("wds: the connection to istiod ended", "error", err, "again", backoff)
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(float64(backoff) * (0.75 + 0.5*rand.Float64()))):
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// stream speaks delta ADS on one connection until it ends.
func (c *Client) stream(ctx context.Context, address string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	messages := newCodec(c.cfg.maxResources())
	cc, err := c.cfg.dial(address, messages)
	if err != nil {
		return err
	}
	defer cc.Close()
	ctx, err = c.cfg.authenticated(ctx)
	if err != nil {
		return err
	}
	st, err := discovery.NewAggregatedDiscoveryServiceClient(cc).DeltaAggregatedResources(ctx)
	if err != nil {
		return err
	}
	received := make(chan *discovery.DeltaDiscoveryResponse)
	failed := make(chan error, 1)
	go func() {
		for {
			res, err := st.Recv()
			if err != nil {
				if messages.tooMany.Load() {
					err = &tooManyError{err}
				}
				failed <- err
				return
			}
			select {
			case received <- res:
			case <-ctx.Done():
				failed <- context.Cause(ctx) // sendError may wait for it
				return
			}
		}
	}()
	for _, req := range c.hello() {
		if err := st.Send(req); err != nil {
			return sendError(err, received, failed)
		}
	}
	var sweep <-chan time.Time
	if every := c.cfg.unusedFor() / epochs; every > 0 && !c.wildcard() {
		t := time.NewTicker(every)
		defer t.Stop()
		sweep = t.C
	}
	var refresh <-chan time.Time
	if every := c.cfg.refresh(); every > 0 && !c.wildcard() {
		t := time.NewTicker(max(min(every, time.Second), time.Millisecond))
		defer t.Stop()
		refresh = t.C
	}
	retry := time.NewTicker(c.cfg.largeFor() / 4)
	defer retry.Stop()
	for {
		var send []*discovery.DeltaDiscoveryRequest
		select {
		case err := <-failed:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		case res := <-received:
			send = append(send, c.take(res))
			c.saver.changed()
		case <-c.wake:
			send = c.more()
		case <-refresh:
			if c.refresh(time.Now()) {
				send = c.more()
			}
		case <-sweep:
			c.expire()
			send = c.more()
		case <-retry.C:
			if c.mayWiden(time.Now()) {
				return errWiden
			}
			c.retryHeld(time.Now())
			send = c.more() // also where a group's answer has not come for long
		}
		for _, req := range send {
			if err := st.Send(req); err != nil {
				return sendError(err, received, failed)
			}
		}
	}
}

// errWiden ends a stream so that the next one asks for all there is again.
var errWiden = errors.New("all there is is asked for again")

// mayWiden reports whether it is time for that.
func (c *Client) mayWiden(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.narrowed.Load() && c.allLarge.left(c.cfg.largeFor(), now) == 0
}

// sendError prefers what the receiver was told: Send only says EOF. Responses on the way there are dropped: the next stream brings them again.
func sendError(err error, received <-chan *discovery.DeltaDiscoveryResponse, failed <-chan error) error {
	for errors.Is(err, io.EOF) {
		select {
		case <-received:
		case err = <-failed:
			return err
		}
	}
	return err
}

// hello is what a new stream begins with: all we want and all we hold. Where that is too much to tell, istiod sends all anew.
func (c *Client) hello() []*discovery.DeltaDiscoveryRequest {
	h := &c.held
	h.newPols, h.whole, h.expected = true, false, nil
	clear(h.dropped)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unstuck()
	c.pending, c.again, c.polsFlight, c.greeted = nil, nil, time.Time{}, time.Now()
	clear(c.bad)
	if g := c.apart.asking; g != nil { // there was no answer
		c.apart.asking = nil
		c.apart.first(*g)
	}
	names, versions, some := []string{"*"}, h.versions, false
	if !c.wildcard() {
		if names, some = c.wanting(); some || c.narrowed.Load() { // to tell of what else is held would subscribe to it
			some, versions = true, h.known(names)
		}
		if len(names) == 0 {
			names = []string{unspecified} // none would be all
		}
	}
	h.freshOf = nil
	if h.fresh = tooMuchToTell(versions) || h.restored; h.fresh {
		if some {
			h.freshOf = map[string]bool{}
			for name := range versions {
				h.freshOf[name] = true
			}
		}
		versions = nil
	}
	list := []*discovery.DeltaDiscoveryRequest{{
		Node: c.cfg.Node.proto(), TypeUrl: addressType, ResourceNamesSubscribe: names, InitialResourceVersions: maps.Clone(versions),
	}}
	told := h.polVers
	if h.freshPol = tooMuchToTell(told) || h.restoredPols; h.freshPol {
		told = nil
	}
	if c.togetherPolicies() {
		list = append(list, c.policiesRequest(maps.Clone(told)))
	}
	c.stir() // there may be groups to ask for
	return list
}

// wanting is the names that a hello asks for, and whether there are others that it must not ask for. mu is held.
func (c *Client) wanting() (names []string, withheld bool) {
	now := time.Now()
	for name, a := range c.names {
		a.anew, a.flight, a.hello = false, time.Time{}, false
		if !c.together(name, a) {
			withheld = true
			continue
		}
		if a.told.IsZero() && a.absent.IsZero() && !c.held.table.Has(name) { // what is held may be as it was, and is not told of
			a.flight = now
		}
		names = append(names, name)
	}
	slices.Sort(names)
	names, more := c.split(names)
	for _, name := range names {
		c.names[name].hello = true
	}
	return names, withheld || more
}

// more asks for names that came since. A name that istiod has answered for already is answered again only after it was unsubscribed, in a
// request of its own: istiod subtracts what a request unsubscribes from what it subscribes. And a request that subscribes to nothing makes
// istiod remove everything; hence unspecified.
func (c *Client) more() []*discovery.DeltaDiscoveryRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.waits(now) {
		return nil // whose answer it is that comes is to be seen
	}
	var list []*discovery.DeltaDiscoveryRequest
	add := func(subscribe, unsubscribe []string) {
		list = append(list, &discovery.DeltaDiscoveryRequest{
			Node: c.cfg.Node.proto(), TypeUrl: addressType, ResourceNamesSubscribe: subscribe, ResourceNamesUnsubscribe: unsubscribe,
		})
	}
	for _, names := range parts(c.again, maxTold) {
		add([]string{unspecified}, names)
	}
	ask := slices.DeleteFunc(c.pending, func(name string) bool { return c.names[name] == nil || !c.together(name, c.names[name]) })
	if len(ask) == 0 {
		if g := c.next(now); g != nil {
			if ask = g.names; len(ask) > 0 {
				add([]string{unspecified}, ask) // they may be subscribed to by another name that leads there
			}
			if g.policies {
				c.held.freshPol = true
				list = append(list, c.policiesRequest(nil))
			}
		}
	}
	for _, name := range ask {
		c.names[name].flight = now
	}
	for _, names := range parts(ask, maxTold) {
		add(names, nil)
	}
	c.pending, c.again = nil, nil
	return list
}
