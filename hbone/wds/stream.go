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
	for i := 0; ctx.Err() == nil; i++ {
		address := c.cfg.Addresses[i%len(c.cfg.Addresses)]
		start := time.Now()
		err := c.stream(ctx, address)
		c.offline()
		if ctx.Err() != nil {
			return
		}
		err = fmt.Errorf("wds: istiod at %s: %w", address, c.cfg.explain(err))
		c.mu.Lock()
		c.lastErr = err
		c.stats.Lost++
		c.stats.LastError = err
		c.mu.Unlock()
		if time.Since(start) > maxBackoff {
			backoff = minBackoff
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
	cc, err := c.cfg.dial(address)
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
	if every := c.cfg.unusedFor() / epochs; every > 0 && !c.cfg.Wildcard {
		t := time.NewTicker(every)
		defer t.Stop()
		sweep = t.C
	}
	var refresh <-chan time.Time
	if every := c.cfg.refresh(); every > 0 && !c.cfg.Wildcard {
		t := time.NewTicker(max(min(every, time.Second), time.Millisecond))
		defer t.Stop()
		refresh = t.C
	}
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
		}
		for _, req := range send {
			if err := st.Send(req); err != nil {
				return sendError(err, received, failed)
			}
		}
	}
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

// maxHello bounds the versions that a hello tells of: istiod takes messages of 4 MiB.
const maxHello = 3 << 20

// hello is what a new stream begins with: all we want and all we hold. Where that is too much to tell, istiod sends all anew.
func (c *Client) hello() []*discovery.DeltaDiscoveryRequest {
	h := &c.held
	size := 0
	for name, version := range h.versions {
		size += len(name) + len(version) + 8
	}
	versions := h.versions
	if h.fresh = size > maxHello || h.restored; h.fresh {
		versions = nil
	}
	if h.restored {
		h.freshPol = true
	}
	h.newPols = true
	clear(h.dropped)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending, c.again = nil, nil
	clear(c.bad)
	for _, a := range c.names {
		a.anew = false
	}
	names := []string{"*"}
	if !c.cfg.Wildcard {
		names = slices.Sorted(maps.Keys(c.names))
	}
	list := []*discovery.DeltaDiscoveryRequest{{
		Node: c.cfg.Node.proto(), TypeUrl: addressType, ResourceNamesSubscribe: names, InitialResourceVersions: maps.Clone(versions),
	}}
	if c.cfg.Policies {
		list = append(list, &discovery.DeltaDiscoveryRequest{
			Node: c.cfg.Node.proto(), TypeUrl: authorizationType, InitialResourceVersions: maps.Clone(h.polVers),
		})
	}
	return list
}

// maxAsked bounds the names of one request.
const maxAsked = 10_000

// more asks for names that came since. A name that istiod has answered for already is answered again only after it was unsubscribed, in a
// request of its own: istiod subtracts what a request unsubscribes from what it subscribes. And a request that subscribes to nothing makes
// istiod remove everything; hence unspecified.
func (c *Client) more() []*discovery.DeltaDiscoveryRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []*discovery.DeltaDiscoveryRequest
	add := func(subscribe, unsubscribe []string) {
		list = append(list, &discovery.DeltaDiscoveryRequest{
			Node: c.cfg.Node.proto(), TypeUrl: addressType, ResourceNamesSubscribe: subscribe, ResourceNamesUnsubscribe: unsubscribe,
		})
	}
	for names := range slices.Chunk(c.again, maxAsked) {
		add([]string{unspecified}, names)
	}
	for names := range slices.Chunk(c.pending, maxAsked) {
		add(names, nil)
	}
	c.pending, c.again = nil, nil
	return list
}
