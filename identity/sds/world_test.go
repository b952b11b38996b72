package sds_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/isthmus-mesh/isthmus/identity/internal/sourcetest"
	"github.com/isthmus-mesh/isthmus/identity/sds"
)

var (
	td    = spiffeid.RequireTrustDomainFromString("cluster.local")
	other = spiffeid.RequireTrustDomainFromString("other.example")
	me    = spiffeid.RequireFromString("spiffe://cluster.local/ns/edge/sa/gateway")
	he    = spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/orders")
)

const (
	secretType    = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
	validatorType = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig"
)

// TestMain fails when the package leaves goroutines.
func TestMain(m *testing.M) { sourcetest.Main(m, "sds") }

// msg builds a message.
type msg []byte

func (m msg) put(num protowire.Number, b []byte) msg {
	return protowire.AppendBytes(protowire.AppendTag(m, num, protowire.BytesType), b)
}

// inline is a DataSource.
func inline(b []byte) msg { return msg{}.put(2, b) }

func certificate(name string, svid *x509svid.SVID) msg {
	return msg{}.put(1, []byte(name)).put(2, msg{}.
		put(1, inline(identitytest.PEM(svid.Certificates...))).
		put(2, inline(identitytest.KeyPEM(svid.PrivateKey))))
}

// trusted is a validation context with roots for whoever asks.
func trusted(name string, roots ...*x509.Certificate) msg {
	return msg{}.put(1, []byte(name)).put(4, msg{}.put(1, inline(identitytest.PEM(roots...))))
}

// validator is a validation context with roots a domain.
func validator(name string, roots map[spiffeid.TrustDomain]*x509.Certificate) msg {
	var config msg
	for d, root := range roots {
		config = config.put(1, msg{}.put(1, []byte(d.Name())).put(2, inline(identitytest.PEM(root))))
	}
	typed := msg{}.put(1, []byte(validatorType)).put(2, config)
	return msg{}.put(1, []byte(name)).put(4, msg{}.put(12, msg{}.put(1, []byte("envoy.tls.cert_validator.spiffe")).put(2, typed)))
}

// agent serves secrets on a socket.
type agent struct {
	t      *testing.T
	socket string
	ca     *identitytest.CA

	mu       sync.Mutex // guards the fields below
	secrets  map[string]msg
	version  int
	news     chan struct{}
	requests []*discovery.DiscoveryRequest
	end      error // that streams end with; nil: they go on
	server   *grpc.Server
	served   chan struct{}
}

// newAgent starts one that has me, as Istio's does.
func newAgent(t *testing.T) *agent {
	t.Helper()
	a := &agent{t: t, socket: filepath.Join(sourcetest.SocketDir(t), "socket"), ca: identitytest.NewCA(td), news: make(chan struct{}), version: 1}
	a.secrets = map[string]msg{"default": certificate("default", a.ca.SVID(me)), "ROOTCA": trusted("ROOTCA", a.ca.Root)}
	a.start()
	t.Cleanup(a.stop)
	return a
}

func (a *agent) start() {
	a.t.Helper()
	l, err := net.Listen("unix", a.socket)
	if err != nil {
		a.t.Fatal(err)
	}
	a.server, a.served = grpc.NewServer(), make(chan struct{})
	a.server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "envoy.service.secret.v3.SecretDiscoveryService", HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{StreamName: "StreamSecrets", ServerStreams: true, ClientStreams: true,
			Handler: func(srv any, st grpc.ServerStream) error { return srv.(*agent).stream(st) }}},
	}, a)
	go func() {
		defer close(a.served)
		_ = a.server.Serve(l) // it ends by Stop
	}()
}

func (a *agent) stop() {
	a.server.Stop()
	<-a.served
}

// change tells streams of what f does.
func (a *agent) change(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
	a.version++
	close(a.news)
	a.news = make(chan struct{})
}

// stream answers the first request of a stream and pushes what changes.
func (a *agent) stream(st grpc.ServerStream) error {
	requests := make(chan *discovery.DiscoveryRequest)
	go func() {
		defer close(requests)
		for {
			req := &discovery.DiscoveryRequest{}
			if st.RecvMsg(req) != nil {
				return
			}
			a.mu.Lock()
			a.requests = append(a.requests, req)
			a.mu.Unlock()
			select {
			case requests <- req:
			case <-st.Context().Done():
			}
		}
	}()
	first, ok := <-requests
	if !ok {
		return nil
	}
	if len(first.GetResourceNames()) != 1 || first.GetNode().GetId() == "" || first.GetTypeUrl() != secretType {
		return status.Errorf(codes.InvalidArgument, "odd request %v", first)
	}
	name, sent := first.GetResourceNames()[0], msg(nil)
	for {
		a.mu.Lock()
		secret, version, news, end := a.secrets[name], strconv.Itoa(a.version), a.news, a.end
		a.mu.Unlock()
		if end != nil {
			return end
		}
		if secret == nil {
			return status.Errorf(codes.InvalidArgument, "workload is not authorized for the requested identities %q", name)
		}
		if !bytes.Equal(secret, sent) {
			sent = secret
			res := &discovery.DiscoveryResponse{VersionInfo: version, Nonce: "n" + version, TypeUrl: secretType, Resources: []*anypb.Any{{TypeUrl: secretType, Value: secret}}}
			if err := st.SendMsg(res); err != nil {
				return err
			}
		}
		select {
		case <-news:
		case _, ok := <-requests:
			if !ok {
				return nil
			}
		case <-st.Context().Done():
			return st.Context().Err()
		}
	}
}

// said are the requests about name.
func (a *agent) said(name string) []*discovery.DiscoveryRequest {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []*discovery.DiscoveryRequest
	for _, r := range a.requests {
		if r.GetResourceNames()[0] == name {
			out = append(out, r)
		}
	}
	return out
}

// begin is a Source that ends with the test.
func (a *agent) begin(change func(*sds.Config)) *identity.Source {
	a.t.Helper()
	cfg := sds.Config{Socket: a.socket}
	if change != nil {
		change(&cfg)
	}
	return sourcetest.Begin(a.t, func(ctx context.Context) (*identity.Source, error) { return sds.New(ctx, cfg) })
}

// refused is the error of New when its time is over.
func (a *agent) refused(cfg sds.Config) error {
	a.t.Helper()
	return sourcetest.Refused(a.t, func(ctx context.Context) (*identity.Source, error) { return sds.New(ctx, cfg) })
}
