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

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/isthmus-mesh/isthmus/hbone/route"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
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
	for {
		var send []*discovery.DeltaDiscoveryRequest
		select {
		case err := <-failed:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		case res := <-received:
			send = append(send, c.take(res))
		case <-c.wake:
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

// hello is what a new stream begins with: all we want and all we hold.
func (c *Client) hello() []*discovery.DeltaDiscoveryRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending, c.again, c.newPols = nil, nil, true
	clear(c.badAddrs)
	for _, a := range c.names {
		a.anew = false
	}
	node := &core.Node{Id: c.cfg.Node.nodeID(), Metadata: c.cfg.Node.metadata()}
	var list []*discovery.DeltaDiscoveryRequest
	if len(c.names) > 0 {
		list = append(list, &discovery.DeltaDiscoveryRequest{
			Node: node, TypeUrl: addressType,
			ResourceNamesSubscribe:  slices.Sorted(maps.Keys(c.names)),
			InitialResourceVersions: maps.Clone(c.versions),
		})
	}
	if c.cfg.Policies {
		list = append(list, &discovery.DeltaDiscoveryRequest{Node: node, TypeUrl: authorizationType, InitialResourceVersions: maps.Clone(c.polVers)})
	}
	return list
}

// more asks for names that came since. A name that istiod has answered for already is answered again only after it was unsubscribed, in a
// request of its own: istiod subtracts what a request unsubscribes from what it subscribes. And a request that subscribes to nothing makes
// istiod remove everything; hence unspecified.
func (c *Client) more() []*discovery.DeltaDiscoveryRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []*discovery.DeltaDiscoveryRequest
	add := func(subscribe, unsubscribe []string) {
		list = append(list, &discovery.DeltaDiscoveryRequest{
			Node:                   &core.Node{Id: c.cfg.Node.nodeID(), Metadata: c.cfg.Node.metadata()},
			TypeUrl:                addressType,
			ResourceNamesSubscribe: subscribe, ResourceNamesUnsubscribe: unsubscribe,
		})
	}
	if len(c.again) > 0 {
		add([]string{unspecified}, c.again)
	}
	if len(c.pending) > 0 {
		add(c.pending, nil)
	}
	c.pending, c.again = nil, nil
	return list
}

// take applies a response and returns its ACK, or its NACK: what could not be read keeps its old value.
func (c *Client) take(res *discovery.DeltaDiscoveryResponse) *discovery.DeltaDiscoveryRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	var bad error
	switch res.GetTypeUrl() {
	case addressType:
		c.online = true
		bad = c.takeAddresses(res)
	case authorizationType:
		bad = c.takePolicies(res)
	}
	select {
	case <-c.ready:
	default:
		close(c.ready)
	}
	c.lastErr = nil
	c.broadcast()
	ack := &discovery.DeltaDiscoveryRequest{TypeUrl: res.GetTypeUrl(), ResponseNonce: res.GetNonce()}
	if bad != nil {
		c.cfg.logger().Warn("wds: a resource cannot be read; its old value stays", "error", bad)
		ack.ErrorDetail = &status.Status{Code: int32(codes.InvalidArgument), Message: bad.Error()}
	}
	return ack
}

func (c *Client) takeAddresses(res *discovery.DeltaDiscoveryResponse) error {
	var bad error
	var touched []string
	for _, r := range res.GetResources() {
		w, s, err := decodeAddress(r.GetResource().GetValue())
		if err == nil {
			err = sameName(r.GetName(), w, s)
		}
		if err != nil {
			bad = errors.Join(bad, fmt.Errorf("%s: %w", r.GetName(), err))
			if _, held := c.versions[r.GetName()]; !held { // a version may be empty
				c.badAddrs[r.GetName()] = err
			}
			continue
		}
		// Also the addresses that it had: it may be elsewhere now.
		touched = append(append(append(touched, r.GetName()), r.GetAliases()...), c.table.Names(r.GetName())...)
		if w != nil {
			touched = slices.AppendSeq(touched, maps.Keys(w.Services)) // they may have had none
			c.table.SetWorkload(w)
		} else {
			c.table.SetService(s)
		}
		c.versions[r.GetName()] = r.GetVersion()
		delete(c.badAddrs, r.GetName())
	}
	for _, name := range res.GetRemovedResources() {
		touched = append(append(touched, name), c.table.Names(name)...)
		c.table.Remove(name)
		delete(c.versions, name)
		delete(c.badAddrs, name)
	}
	now := time.Now()
	for _, name := range touched {
		a := c.names[name]
		if a == nil {
			continue
		}
		a.anew, a.absent = false, time.Time{}
		if !c.table.Has(name) || c.table.Empty(name) {
			a.absent = now
		}
	}
	return bad
}

// sameName refuses what has another name inside: it could not be removed by the name that istiod knows it by.
func sameName(name string, w *route.Workload, s *route.Service) error {
	var inside string
	if w != nil {
		inside = w.UID
	} else {
		inside = s.Key()
	}
	if inside != name {
		return fmt.Errorf("it is called %q inside", inside)
	}
	return nil
}

func (c *Client) takePolicies(res *discovery.DeltaDiscoveryResponse) error {
	var bad error
	if c.newPols {
		clear(c.badPols)
	}
	for _, r := range res.GetResources() {
		p, err := decodeAuthorization(r.GetResource().GetValue())
		if err != nil {
			bad = errors.Join(bad, fmt.Errorf("%s: %w", r.GetName(), err))
			if c.policies[r.GetName()] == nil {
				c.badPols[r.GetName()] = badPolicy{err, p.Scope}
			}
			continue
		}
		c.policies[r.GetName()] = p
		c.polVers[r.GetName()] = r.GetVersion()
		delete(c.badPols, r.GetName())
	}
	for _, name := range res.GetRemovedResources() {
		delete(c.policies, name)
		delete(c.polVers, name)
		delete(c.badPols, name)
	}
	c.allPols, c.newPols = true, false
	return bad
}
