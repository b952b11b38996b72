package wds

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// crowd is an istiod that sends a message of so many empty resources, and takes what comes.
type crowd struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	resources, removed int
}

func (s crowd) DeltaAggregatedResources(st discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	if _, err := st.Recv(); err != nil {
		return err
	}
	res := &discovery.DeltaDiscoveryResponse{TypeUrl: addressType, Nonce: "1", Resources: make([]*discovery.Resource, s.resources), RemovedResources: make([]string, s.removed)}
	for i := range res.Resources {
		res.Resources[i] = &discovery.Resource{}
	}
	if err := st.Send(res); err != nil {
		return err
	}
	for {
		if _, err := st.Recv(); err != nil { // until the client ends
			return err
		}
	}
}

// A message may be small and say much: it is not read when it has more resources than anybody needs.
func TestAMessageOfTooManyResources(t *testing.T) {
	for name, tt := range map[string]struct {
		istiod crowd
		taken  bool
	}{
		"resources":          {crowd{resources: maxPerMessage + 1}, false},
		"removals":           {crowd{removed: maxPerMessage + 1}, false},
		"a few that are ill": {crowd{resources: 3, removed: 1000}, true},
	} {
		t.Run(name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			server := grpc.NewServer()
			discovery.RegisterAggregatedDiscoveryServiceServer(server, tt.istiod)
			go func() { _ = server.Serve(ln) }() // ends with Stop
			t.Cleanup(server.Stop)
			c, err := New(Config{
				Addresses: []string{ln.Addr().String()}, Insecure: true,
				Node: Node{IP: netip.MustParseAddr("10.244.9.9"), Pod: "edge-1", Namespace: "edge"},
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			var st Stats
			for end := time.Now().Add(time.Minute); st.TooLarge == 0 && !st.Online; time.Sleep(5 * time.Millisecond) {
				if st = c.Stats(); time.Now().After(end) {
					t.Fatalf("nothing came: %+v", st)
				}
			}
			if st.Online != tt.taken || st.Services+st.Workloads > 0 {
				t.Fatalf("%+v", st)
			}
			if !tt.taken && !strings.Contains(st.LastError.Error(), "a message of more than 1000000 resources") {
				t.Errorf("the error says %v", st.LastError)
			}
		})
	}
}

// What is counted before a message is read is what is in it.
func FuzzCodec(f *testing.F) {
	whole, err := proto.Marshal(&discovery.DeltaDiscoveryResponse{
		TypeUrl: addressType, Nonce: "1", Resources: []*discovery.Resource{{Name: "a"}, {}}, RemovedResources: []string{"b", "", "c"},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add([]byte{0x12, 0, 0x12, 0, 0x32, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		res := &discovery.DeltaDiscoveryResponse{}
		if proto.Unmarshal(in, res) != nil {
			_ = elements(in)
			return
		}
		if n := max(len(res.GetResources()), len(res.GetRemovedResources())); n > elements(in) {
			t.Errorf("%d resources or removals, and %d were counted", n, elements(in))
		}
	})
}
