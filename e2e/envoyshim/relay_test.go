package envoyshim

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
)

// fakeAgent answers every request with the same listener, and the version that the request has. The version "end" ends
// the stream and "fail" fails it.
type fakeAgent struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	resource *anypb.Any
	gone     chan struct{} // a value for every stream that has ended
}

func (a *fakeAgent) StreamAggregatedResources(s discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	defer func() { a.gone <- struct{}{} }()
	for {
		q, err := s.Recv()
		if err != nil {
			return err
		}
		switch q.GetVersionInfo() {
		case "end":
			return nil
		case "fail":
			return status.Error(codes.ResourceExhausted, "too much")
		}
		if err := s.Send(&discovery.DiscoveryResponse{VersionInfo: q.GetVersionInfo(), Resources: []*anypb.Any{a.resource}}); err != nil {
			return err
		}
	}
}

func (a *fakeAgent) DeltaAggregatedResources(s discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	defer func() { a.gone <- struct{}{} }()
	q, err := s.Recv()
	if err != nil {
		return err
	}
	return s.Send(&discovery.DeltaDiscoveryResponse{
		Nonce: q.GetResponseNonce(), RemovedResources: []string{"old"},
		Resources: []*discovery.Resource{{Name: "new", Resource: a.resource}, {Name: "empty"}},
	})
}

// startRelay returns a client of the relay, as Envoy is one, and the agent behind it.
func startRelay(t *testing.T, resource *anypb.Any) (discovery.AggregatedDiscoveryServiceClient, *fakeAgent) {
	t.Helper()
	dir := t.TempDir()
	agent := &fakeAgent{resource: resource, gone: make(chan struct{}, 8)}
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "unix", filepath.Join(dir, "agent"))
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage))
	discovery.RegisterAggregatedDiscoveryServiceServer(server, agent)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	f := &filter{drop: func(string) {}}
	if err := serveRelay(t.Context(), filepath.Join(dir, "shim"), filepath.Join(dir, "agent"), f); err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("unix:"+filepath.Join(dir, "shim"), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return discovery.NewAggregatedDiscoveryServiceClient(conn), agent
}

// streamContext bounds a stream of a test.
func streamContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 45*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestRelayRewritesAnswers(t *testing.T) {
	envoy, _ := startRelay(t, pack(t, listener(t, httpFilter(t, "meta", peerMetadata), httpFilter(t, "rbac", rbac))))
	want := string(pack(t, listener(t, httpFilter(t, "rbac", rbac))).GetValue())

	stream, err := envoy.StreamAggregatedResources(streamContext(t))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		version := fmt.Sprint(i)
		if err := stream.Send(&discovery.DiscoveryRequest{VersionInfo: version}); err != nil {
			t.Fatal(err)
		}
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if m.GetVersionInfo() != version || len(m.GetResources()) != 1 || string(m.GetResources()[0].GetValue()) != want {
			t.Errorf("answer %d: %v", i, m)
		}
	}

	delta, err := envoy.DeltaAggregatedResources(streamContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := delta.Send(&discovery.DeltaDiscoveryRequest{ResponseNonce: "n"}); err != nil {
		t.Fatal(err)
	}
	m, err := delta.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if m.GetNonce() != "n" || len(m.GetRemovedResources()) != 1 || len(m.GetResources()) != 2 || string(m.GetResources()[0].GetResource().GetValue()) != want {
		t.Errorf("delta answer: %v", m)
	}
}

func TestRelayEndsWithTheAgent(t *testing.T) {
	for version, want := range map[string]string{"end": "EOF", "fail": "rpc error: code = ResourceExhausted desc = too much"} {
		t.Run(version, func(t *testing.T) {
			envoy, _ := startRelay(t, nil)
			stream, err := envoy.StreamAggregatedResources(streamContext(t))
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.Send(&discovery.DiscoveryRequest{VersionInfo: version}); err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); err == nil || err.Error() != want {
				t.Errorf("got %v, want %s", err, want)
			}
		})
	}
}

func TestRelayEndsWithEnvoy(t *testing.T) {
	envoy, agent := startRelay(t, pack(t, listener(t)))
	ctx, cancel := context.WithCancel(streamContext(t))
	stream, err := envoy.StreamAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&discovery.DiscoveryRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case <-agent.gone:
	case <-time.After(30 * time.Second):
		t.Error("the agent's stream goes on")
	}
}

func TestRelayCarriesLargeAnswers(t *testing.T) {
	envoy, _ := startRelay(t, &anypb.Any{TypeUrl: unheardOf, Value: make([]byte, 20<<20)})
	stream, err := envoy.StreamAggregatedResources(streamContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&discovery.DiscoveryRequest{}); err != nil {
		t.Fatal(err)
	}
	m, err := stream.Recv()
	if err != nil || len(m.GetResources()) != 1 || len(m.GetResources()[0].GetValue()) != 20<<20 {
		t.Errorf("answer of %d resources, %v", len(m.GetResources()), err)
	}
}
