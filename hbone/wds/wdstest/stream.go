package wdstest

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
)

// patience is how long Wait waits.
const patience = 10 * time.Second

func timeout() <-chan time.Time { return time.After(patience) }

type ads struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	i *Istiod
}

// stream is one client. Istiod.mu guards subs, policies and queue.
type stream struct {
	i        *Istiod
	n        int
	node     string
	peer     spiffeid.ID
	kick     chan struct{} // capacity 1: something to send or to end
	end      chan struct{}
	once     sync.Once
	met      bool // it has asked for addresses
	subs     map[string]bool
	all      bool // it has asked for "*"
	policies bool
	queue    []*discovery.DeltaDiscoveryResponse
	nonce    int
}

// DeltaAggregatedResources serves one client.
func (a ads) DeltaAggregatedResources(st discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	i := a.i
	md, _ := metadata.FromIncomingContext(st.Context())
	shown := certificateOf(st.Context())
	i.mu.Lock()
	if shown.IsZero() && !slices.Equal(md.Get("authorization"), []string{"Bearer " + i.token}) {
		i.mu.Unlock()
		return status.Error(codes.Unauthenticated, "authentication failure")
	}
	i.count++
	s := &stream{i: i, n: i.count, peer: shown, kick: make(chan struct{}, 1), end: make(chan struct{}), subs: map[string]bool{}}
	i.streams[s] = true
	i.mu.Unlock()
	defer func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		delete(i.streams, s)
	}()
	failed := make(chan error, 1)
	go func() { // ends with the stream
		for {
			req, err := st.Recv()
			if err != nil {
				failed <- err
				return
			}
			s.take(req)
		}
	}()
	for {
		for res := s.next(); res != nil; res = s.next() {
			if err := st.Send(res); err != nil {
				return err
			}
		}
		select {
		case <-s.kick:
		case err := <-failed:
			return err
		case <-s.end:
			return status.Error(codes.Unavailable, "disconnected by the test")
		}
	}
}

// certificateOf is the SPIFFE id of a client's certificate, which the handshake has verified; zero when it showed none.
func certificateOf(ctx context.Context) (id spiffeid.ID) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return id
	}
	if t, ok := p.AuthInfo.(credentials.TLSInfo); ok && len(t.State.VerifiedChains) > 0 {
		if leaf := t.State.PeerCertificates[0]; len(leaf.URIs) == 1 {
			id, _ = spiffeid.FromURI(leaf.URIs[0]) // a certificate without one counts as none
		}
	}
	return id
}

// next takes a response from the queue, nil when there is none to send.
func (s *stream) next() *discovery.DeltaDiscoveryResponse {
	s.i.mu.Lock()
	defer s.i.mu.Unlock()
	if len(s.queue) == 0 || s.i.silent {
		return nil
	}
	res := s.queue[0]
	s.queue[0] = nil // it may be large
	s.queue = s.queue[1:]
	return res
}

// take records a request and queues its answer.
func (s *stream) take(req *discovery.DeltaDiscoveryRequest) {
	i := s.i
	i.mu.Lock()
	defer i.mu.Unlock()
	if id := req.GetNode().GetId(); id != "" {
		s.node = id
	}
	i.requests = append(i.requests, Request{
		Stream: s.n, Type: req.GetTypeUrl(), NodeID: s.node,
		Subscribe: req.GetResourceNamesSubscribe(), Unsubscribe: req.GetResourceNamesUnsubscribe(),
		Initial: req.GetInitialResourceVersions(), Nonce: req.GetResponseNonce(), Error: req.GetErrorDetail().GetMessage(),
		Peer: s.peer,
	})
	close(i.told)
	i.told = make(chan struct{})
	held := req.GetInitialResourceVersions()
	switch {
	case req.GetResponseNonce() != "":
		return
	case req.GetTypeUrl() == PolicyType:
		s.policies = true
		s.answer(PolicyType, i.of(PolicyType), nil, held)
	default:
		s.subscribe(req)
	}
	i.wake()
}

// subscribe answers as istiod does, with its two traps: what a request unsubscribes is not answered, even if it subscribes to it too; and one
// that subscribes to nothing takes everything away. mu is held.
func (s *stream) subscribe(req *discovery.DeltaDiscoveryRequest) {
	held := req.GetInitialResourceVersions()
	news := !s.met
	s.met = true
	asked := map[string]bool{}
	for _, name := range slices.AppendSeq(slices.Clone(req.GetResourceNamesSubscribe()), maps.Keys(held)) {
		news = news || !s.subs[name]
		s.subs[name], asked[name] = true, true
	}
	for _, name := range req.GetResourceNamesUnsubscribe() {
		news = news || s.subs[name]
		delete(s.subs, name)
		delete(asked, name)
	}
	switch {
	case !news:
	case asked["*"]:
		s.all = true
		s.answer(AddressType, s.i.of(AddressType), nil, held)
	case len(asked) == 0:
		s.push(AddressType, nil, slices.Sorted(maps.Keys(s.subs)))
	default:
		s.answer(AddressType, s.i.behind(asked), slices.Sorted(maps.Keys(asked)), held)
	}
}

// answer queues those of resources that the client lacks, and the names that lead to none; mu is held.
func (s *stream) answer(typ string, resources map[*resource]bool, asked []string, held map[string]string) {
	var send []*resource
	found := map[string]bool{}
	for r := range resources {
		found[r.name] = true
		for _, name := range r.aliases {
			found[name] = true
		}
		s.subs[r.name] = true
		if held[r.name] != r.version {
			send = append(send, r)
		}
	}
	var removed []string
	for _, name := range asked {
		if !found[name] {
			removed = append(removed, name)
		}
	}
	for name := range held {
		if s.i.resources[typ+" "+name] == nil && !slices.Contains(removed, name) {
			removed = append(removed, name)
		}
	}
	slices.SortFunc(send, func(a, b *resource) int { return len(a.services) - len(b.services) })
	slices.Sort(removed)
	s.push(typ, send, removed)
}

func (s *stream) wants(typ, name string) bool {
	return typ == PolicyType && s.policies || typ == AddressType && s.all || s.subs[name]
}

// changed queues r if the client wants it; mu is held. As with istiod nobody who does not ask for all is told of what has not been sent to him
// yet, also not of a new pod of a Service that was.
func (s *stream) changed(r *resource) {
	if s.wants(r.typ, r.name) {
		s.push(r.typ, []*resource{r}, nil)
	}
}

func (s *stream) push(typ string, resources []*resource, removed []string) {
	s.nonce++
	res := &discovery.DeltaDiscoveryResponse{TypeUrl: typ, Nonce: strconv.Itoa(s.n) + "." + strconv.Itoa(s.nonce), RemovedResources: removed}
	for _, r := range resources {
		res.Resources = append(res.Resources, &discovery.Resource{
			Name: r.name, Version: r.version, Aliases: r.aliases,
			Resource: &anypb.Any{TypeUrl: typ, Value: r.value},
		})
	}
	s.queue = append(s.queue, res)
}
