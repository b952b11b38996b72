package wds

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/hbone/route"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/structpb"
)

// Node is the workload that asks. Istiod refuses one whose namespace or service account is not the token's.
type Node struct {
	IP             netip.Addr // of the pod, which tells which endpoints are near; required
	Pod            string     // its name; required
	Namespace      string     // required
	ServiceAccount string     // empty: default
	ClusterID      string     // empty: Kubernetes
	Network        string     // empty: the mesh's own
	Domain         string     // of Services; empty: cluster.local
}

// Config says whom to ask, and as whom. It is copied.
type Config struct {
	// Addresses are host:port of istiod's TLS port (15012); they are tried in turn. At least one.
	Addresses []string
	// ServerName is the name in istiod's certificate. Empty means istiod.istio-system.svc.
	ServerName string
	// RootsFile is a PEM file of the roots that istiod's certificate leads to, read again for every connection. One of RootsFile and
	// Roots is required, but for Insecure and Identity.
	RootsFile string
	// Roots gives the same PEM by function.
	Roots func() ([]byte, error)
	// TokenFile holds the service account's token for audience istio-ca, read again for every connection. One of TokenFile, Token and
	// Identity is required, but for Insecure.
	TokenFile string
	// Token gives the token by function.
	Token func(ctx context.Context) (string, error)
	// Identity is shown to istiod in place of a token: a certificate of Node's service account, by an issuer that istiod believes. What it is at the
	// moment is taken for every connection. Without RootsFile and Roots istiod is known by the roots of its trust domain.
	Identity hbone.Identity
	// Insecure speaks plaintext, to istiod's port 15010 inside a trusted network. No token is sent.
	Insecure bool
	// Node is who we are.
	Node Node
	// Policies asks for L4 policies too, which an Authorizer needs.
	Policies bool
	// Passthrough lets Resolve answer addresses that istiod does not know with themselves, in plaintext.
	Passthrough bool
	// Ingress resolves as Istio's own ingress gateways do; see route.Source.
	Ingress bool
	// FailOpen goes around waypoints that are not there, and so around their policies; see route.Source.
	FailOpen bool
	// Wildcard asks for all there is in the mesh, instead of for what is dialled. A mesh of 100,000 workloads takes some 100 MB.
	Wildcard bool
	// MaxNames bounds the names asked for, beside our own address. Zero means 10,000. A further one takes the place of those that led nowhere, else it is an
	// error.
	MaxNames int
	// AbsentFor is how long an answer "nothing by that name" is remembered, while istiod is there to be asked again. Zero means 2 s.
	AbsentFor time.Duration
	// RefreshEvery is how often Services that are dialled are asked for anew: istiod tells a client that does not ask for all of what happens to the
	// pods it knows, but not of new ones. When a pod goes, its Services are asked for within a second, and at once when it was the last. Zero means 10 s, or longer where that would be
	// more than 2,000 pods a second; negative never asks. Wildcard needs none.
	RefreshEvery time.Duration
	// UnusedFor is how long what was dialled is held after it was dialled last and its last tunnel of a Dialer has ended. Zero means 30 min;
	// negative holds it until Close. Wildcard holds all.
	UnusedFor time.Duration
	// MaxResources bounds what istiod can make us hold, of addresses and of policies each; one of more than 1 KiB counts as one for each KiB. Zero means
	// 1,000,000. What comes beyond is refused; a refused policy denies.
	MaxResources int
	// MaxMessage bounds a message of istiod, in bytes. Zero means 64 MiB. A larger one ends the connection, and what it was about is given up for a while; see
	// the package's limits.
	MaxMessage int
	// SnapshotFile keeps what is held on disk, so that after a restart it answers before istiod does, or without it. The file is written a few
	// seconds after a change and by Close, in one step (until then it is called .NAME.*.unfinished) and with mode 0600. One that was damaged, that others can write to, or that is of another
	// Node or format is not read. That something is missing in it says nothing, unless it was written by a Client with Wildcard that had all there is. Empty keeps
	// nothing.
	SnapshotFile string
	// SnapshotMaxAge is how old a SnapshotFile may be. Zero means 24 h; negative takes any.
	SnapshotMaxAge time.Duration
	// DialContext makes TCP connections. Nil means a net.Dialer.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
	// Logger takes connection failures and resources that cannot be read. Nil is silent.
	Logger *slog.Logger

	largeTime time.Duration // how long what is too large is not asked for, the first time; zero means 30 s. Tests are shorter
}

func (c *Config) maxNames() int            { return cmp.Or(c.MaxNames, 10_000) }
func (c *Config) absentFor() time.Duration { return cmp.Or(c.AbsentFor, 2*time.Second) }
func (c *Config) refresh() time.Duration   { return cmp.Or(c.RefreshEvery, 10*time.Second) }
func (c *Config) unusedFor() time.Duration { return cmp.Or(c.UnusedFor, 30*time.Minute) }
func (c *Config) maxMessage() int          { return cmp.Or(c.MaxMessage, 64<<20) }
func (c *Config) largeFor() time.Duration  { return cmp.Or(c.largeTime, 30*time.Second) }
func (c *Config) maxResources() int        { return cmp.Or(c.MaxResources, 1_000_000) }

func (c *Config) snapshotMaxAge() time.Duration { return cmp.Or(c.SnapshotMaxAge, 24*time.Hour) }

func (c *Config) logger() *slog.Logger {
	if c.Logger != nil {
		return c.Logger
	}
	return slog.New(slog.DiscardHandler)
}

func (c *Config) source() route.Source {
	return route.Source{
		Namespace: c.Node.Namespace, Network: c.Node.Network, Domain: c.Node.Domain, IP: c.Node.IP,
		Passthrough: c.Passthrough, Ingress: c.Ingress, FailOpen: c.FailOpen, Memory: new(route.Memory), OnDemand: !c.Wildcard,
	}
}

func (c *Config) validate() error {
	switch {
	case len(c.Addresses) == 0:
		return errors.New("wds: no address: set Config.Addresses")
	case !c.Node.IP.IsValid() || c.Node.Pod == "" || c.Node.Namespace == "":
		return errors.New("wds: Node needs IP, Pod and Namespace")
	case c.Insecure && (c.TokenFile != "" || c.Token != nil):
		return errors.New("wds: a token is never sent without TLS: leave out either Insecure or the token")
	case c.Insecure && c.Identity != nil:
		return errors.New("wds: a certificate cannot be shown without TLS: leave out either Insecure or Identity")
	case c.Insecure:
		return nil
	case c.Identity != nil && (c.TokenFile != "" || c.Token != nil):
		return errors.New("wds: istiod is shown a token or a certificate: leave out either the token or Identity")
	case c.Identity != nil:
		return nil
	case c.RootsFile == "" && c.Roots == nil:
		return errors.New("wds: no roots to know istiod by: set Config.RootsFile")
	case c.TokenFile == "" && c.Token == nil:
		return errors.New("wds: no token: set Config.TokenFile, or Config.Identity")
	}
	return nil
}

func (n *Node) proto() *core.Node { return &core.Node{Id: n.nodeID(), Metadata: n.metadata()} }

// nodeID is how istiod knows an ambient client.
func (n *Node) nodeID() string {
	return fmt.Sprintf("ztunnel~%s~%s.%s~%s.svc.%s", n.IP, n.Pod, n.Namespace, n.Namespace, cmp.Or(n.Domain, "cluster.local"))
}

func (n *Node) metadata() *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{
		"NAMESPACE":       structpb.NewStringValue(n.Namespace),
		"SERVICE_ACCOUNT": structpb.NewStringValue(cmp.Or(n.ServiceAccount, "default")),
		"CLUSTER_ID":      structpb.NewStringValue(cmp.Or(n.ClusterID, "Kubernetes")),
		"NETWORK":         structpb.NewStringValue(n.Network),
	}}
}

// dial makes the gRPC connection to one address.
func (c *Config) dial(address string, messages *codec) (*grpc.ClientConn, error) {
	creds := insecure.NewCredentials()
	if !c.Insecure {
		t, err := c.tls()
		if err != nil {
			return nil, err
		}
		if creds = (clocks{credentials.NewTLS(t)}); c.Identity != nil {
			creds = refusals{creds}
		}
	}
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		// Else an istiod whose node vanished would be waited for as long as TCP does. Istiod wants 15 s at least between pings.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(c.maxMessage()), grpc.ForceCodecV2(messages)),
	}
	if c.DialContext != nil {
		opts = append(opts, grpc.WithContextDialer(func(ctx context.Context, a string) (net.Conn, error) { return c.DialContext(ctx, "tcp", a) }))
	}
	return grpc.NewClient("passthrough:///"+address, opts...)
}

// authenticated adds who we are to the call.
func (c *Config) authenticated(ctx context.Context) (context.Context, error) {
	ctx = metadata.AppendToOutgoingContext(ctx, "clusterid", cmp.Or(c.Node.ClusterID, "Kubernetes"))
	if c.Insecure || c.Identity != nil {
		return ctx, nil
	}
	var token string
	if c.Token != nil {
		t, err := c.Token(ctx)
		if err != nil {
			return nil, fmt.Errorf("get token: %w", err)
		}
		token = t
	} else {
		t, err := c.readToken()
		if err != nil {
			return nil, err
		}
		token = t
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token), nil
}
