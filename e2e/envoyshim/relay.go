package envoyshim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// maxMessage is the largest xDS message, in bytes.
const maxMessage = 64 << 20

// relay stands between Envoy and pilot-agent's xDS.
type relay struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	agent  discovery.AggregatedDiscoveryServiceClient
	filter *filter
}

// serveRelay serves on a socket until ctx ends.
func serveRelay(ctx context.Context, listen, agent string, f *filter) error {
	conn, err := grpc.NewClient("unix:"+agent, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
	if err != nil {
		return err
	}
	if err := os.Remove(listen); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", listen)
	if err != nil {
		return fmt.Errorf("listen for Envoy: %w", err)
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage))
	discovery.RegisterAggregatedDiscoveryServiceServer(server, &relay{agent: discovery.NewAggregatedDiscoveryServiceClient(conn), filter: f})
	context.AfterFunc(ctx, func() { server.Stop(); conn.Close() })
	go func() { _ = server.Serve(l) }() // ends with ctx
	return nil
}

func (r *relay) StreamAggregatedResources(envoy discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	agent, err := r.agent.StreamAggregatedResources(envoy.Context())
	if err != nil {
		return err
	}
	return both(envoy.Recv, agent.Send, agent.CloseSend, agent.Recv, envoy.Send, func(m *discovery.DiscoveryResponse) error {
		for _, res := range m.GetResources() {
			if err := r.filter.resource(res); err != nil {
				return err
			}
		}
		return nil
	})
}

func (r *relay) DeltaAggregatedResources(envoy discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	agent, err := r.agent.DeltaAggregatedResources(envoy.Context())
	if err != nil {
		return err
	}
	return both(envoy.Recv, agent.Send, agent.CloseSend, agent.Recv, envoy.Send, func(m *discovery.DeltaDiscoveryResponse) error {
		for _, res := range m.GetResources() {
			if err := r.filter.resource(res.GetResource()); err != nil {
				return err
			}
		}
		return nil
	})
}

// both copies requests one way and changed responses the other, until either side ends. The stream's context ends both.
func both[Q, R any](recvQ func() (Q, error), sendQ func(Q) error, closeQ func() error, recvR func() (R, error), sendR func(R) error, change func(R) error) error {
	go func() {
		for {
			q, err := recvQ()
			if err == nil {
				err = sendQ(q)
			}
			if err != nil {
				_ = closeQ() // the agent's answer to that ends the other direction
				return
			}
		}
	}()
	for {
		m, err := recvR()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := change(m); err != nil {
			return err
		}
		if err := sendR(m); err != nil {
			return err
		}
	}
}
