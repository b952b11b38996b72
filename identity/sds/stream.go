package sds

import (
	"context"
	"fmt"
	"strings"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpc "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	method = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets"
	// longestPause is the most between two attempts to reach an agent that is away.
	longestPause = 5 * time.Second
	// maxTold is how many bytes of an error the agent is told.
	maxTold = 512
)

// follow asks for one secret until ctx ends. take is given each that comes.
func (c *client) follow(ctx context.Context, name string, take func([]byte) error) {
	pause := time.Duration(0)
	for {
		pause = min(max(2*pause, 250*time.Millisecond), longestPause)
		err := c.stream(ctx, name, func(b []byte) error {
			pause = 0
			return take(b)
		})
		if ctx.Err() != nil {
			return
		}
		c.missing(name, c.explain(name, err))
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// stream asks for one secret on one stream, until that ends. It always ends with an error.
func (c *client) stream(ctx context.Context, name string, take func([]byte) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	st, err := c.cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	req := &discovery.DiscoveryRequest{
		Node: &core.Node{
			Id: c.cfg.node(), UserAgentName: "isthmus",
			// To SPIRE this says that we understand the SPIFFE validator, as Envoy does from here on.
			UserAgentVersionType: &core.Node_UserAgentBuildVersion{UserAgentBuildVersion: &core.BuildVersion{
				Version: &typev3.SemanticVersion{MajorNumber: 1, MinorNumber: 18},
			}},
		},
		ResourceNames: []string{name}, TypeUrl: secretType,
	}
	version := ""
	for {
		_ = st.SendMsg(req) // a stream that has ended says why to who receives
		var res discovery.DiscoveryResponse
		if err := st.RecvMsg(&res); err != nil {
			return err
		}
		req = &discovery.DiscoveryRequest{Node: req.Node, ResourceNames: req.ResourceNames, TypeUrl: secretType, ResponseNonce: res.GetNonce()}
		if err := only(&res, take); err != nil {
			c.missing(name, c.explain(name, err))
			text := err.Error()
			text = strings.ToValidUTF8(text[:min(len(text), maxTold)], "")
			req.ErrorDetail = &rpc.Status{Code: int32(codes.InvalidArgument), Message: text}
		} else {
			version = res.GetVersionInfo()
		}
		req.VersionInfo = version
	}
}

// only gives take the secret of an answer that has one.
func only(res *discovery.DiscoveryResponse, take func([]byte) error) error {
	if n := len(res.GetResources()); n != 1 {
		return fmt.Errorf("the answer has %d secrets", n)
	}
	r := res.GetResources()[0]
	if r.GetTypeUrl() != secretType {
		return fmt.Errorf("the answer is a %q", r.GetTypeUrl())
	}
	return take(r.GetValue())
}

// explain says what an end, or a secret that is not taken, means.
func (c *client) explain(name string, err error) error {
	if _, ok := status.FromError(err); !ok {
		return fmt.Errorf("sds: secret %s from the agent at %s: %w", name, c.cfg.path(), err)
	}
	switch status.Code(err) {
	case codes.Unavailable:
		return fmt.Errorf("sds: the agent at %s is not reachable: %w: is it running, and is its socket mounted here?", c.cfg.path(), err)
	case codes.PermissionDenied, codes.InvalidArgument:
		return fmt.Errorf("sds: the agent at %s has no secret %s for this process: %w: see Config.Name and Roots, and whether the agent knows us", c.cfg.path(), name, err)
	case codes.Unimplemented:
		return fmt.Errorf("sds: who listens at %s serves no secrets: %w", c.cfg.path(), err)
	}
	return fmt.Errorf("sds: secret %s from the agent at %s: %w", name, c.cfg.path(), err)
}
