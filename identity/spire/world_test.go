package spire_test

import (
	"context"
	"crypto/x509"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/isthmus-mesh/isthmus/identity/internal/sourcetest"
	"github.com/isthmus-mesh/isthmus/identity/spire"
)

var (
	td    = spiffeid.RequireTrustDomainFromString("cluster.local")
	other = spiffeid.RequireTrustDomainFromString("other.example")
	me    = spiffeid.RequireFromString("spiffe://cluster.local/ns/edge/sa/gateway")
	he    = spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/orders")
)

// TestMain fails when the package leaves goroutines.
func TestMain(m *testing.M) { sourcetest.Main(m, "spire") }

// entry is an identity that an agent has for us.
type entry struct {
	svid *x509svid.SVID
	hint string
}

// agent serves the Workload API on a socket. Without entries it knows nobody.
type agent struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	t      *testing.T
	socket string
	ca     *identitytest.CA

	mu      sync.Mutex // guards the fields below
	entries []entry
	roots   map[spiffeid.TrustDomain][]*x509.Certificate
	odd     *workload.X509SVIDResponse // sent instead of what follows from the others
	news    chan struct{}
	end     error // that calls end with; nil: they go on
	server  *grpc.Server
	served  chan struct{}
}

// newAgent starts one that has me.
func newAgent(t *testing.T) *agent {
	t.Helper()
	a := &agent{t: t, socket: filepath.Join(sourcetest.SocketDir(t), "agent.sock"), ca: identitytest.NewCA(td), news: make(chan struct{})}
	a.entries = []entry{{svid: a.ca.SVID(me)}}
	a.roots = map[spiffeid.TrustDomain][]*x509.Certificate{td: {a.ca.Root}}
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
	workload.RegisterSpiffeWorkloadAPIServer(a.server, a)
	go func() {
		defer close(a.served)
		_ = a.server.Serve(l) // it ends by Stop
	}()
}

func (a *agent) stop() {
	a.server.Stop()
	<-a.served
}

// change tells who listens of what f does.
func (a *agent) change(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
	close(a.news)
	a.news = make(chan struct{})
}

// FetchX509SVID sends what there is, and again when it changes.
func (a *agent) FetchX509SVID(_ *workload.X509SVIDRequest, st grpc.ServerStreamingServer[workload.X509SVIDResponse]) error {
	if md, _ := metadata.FromIncomingContext(st.Context()); len(md.Get("workload.spiffe.io")) != 1 {
		return status.Error(codes.InvalidArgument, "security header missing from request")
	}
	for {
		a.mu.Lock()
		res, news, end := a.answer(), a.news, a.end
		a.mu.Unlock()
		if end != nil {
			return end
		}
		if res == nil {
			return status.Error(codes.PermissionDenied, "no identity issued")
		}
		if err := st.Send(res); err != nil {
			return err
		}
		select {
		case <-news:
		case <-st.Context().Done():
			return st.Context().Err()
		}
	}
}

// answer is nil when there is no entry; mu is held.
func (a *agent) answer() *workload.X509SVIDResponse {
	if a.odd != nil || len(a.entries) == 0 {
		return a.odd
	}
	res := &workload.X509SVIDResponse{FederatedBundles: map[string][]byte{}}
	der := func(certs []*x509.Certificate) []byte {
		var out []byte
		for _, c := range certs {
			out = append(out, c.Raw...)
		}
		return out
	}
	for _, e := range a.entries {
		key, err := x509.MarshalPKCS8PrivateKey(e.svid.PrivateKey)
		if err != nil {
			a.t.Error(err)
		}
		res.Svids = append(res.Svids, &workload.X509SVID{
			SpiffeId: e.svid.ID.String(), X509Svid: der(e.svid.Certificates), X509SvidKey: key, Bundle: der(a.roots[e.svid.ID.TrustDomain()]), Hint: e.hint,
		})
	}
	for d, roots := range a.roots {
		if d != td {
			res.FederatedBundles[d.IDString()] = der(roots)
		}
	}
	return res
}

// begin is a Source that ends with the test.
func (a *agent) begin(change func(*spire.Config)) *identity.Source {
	a.t.Helper()
	cfg := spire.Config{Socket: "unix://" + a.socket}
	if change != nil {
		change(&cfg)
	}
	return sourcetest.Begin(a.t, func(ctx context.Context) (*identity.Source, error) { return spire.New(ctx, cfg) })
}

// refused is the error of New when its time is over.
func (a *agent) refused(cfg spire.Config) error {
	a.t.Helper()
	return sourcetest.Refused(a.t, func(ctx context.Context) (*identity.Source, error) { return spire.New(ctx, cfg) })
}
