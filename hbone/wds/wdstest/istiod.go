package wdstest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/isthmus-mesh/isthmus/hbone/authz"
	"github.com/isthmus-mesh/isthmus/hbone/route"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

// The types that Istiod serves.
const (
	AddressType = "type.googleapis.com/istio.workload.Address"
	PolicyType  = "type.googleapis.com/istio.security.Authorization"
)

// Request is what a client sent, in the order of arrival.
type Request struct {
	Stream                 int // counts from 1
	Type                   string
	NodeID                 string
	Subscribe, Unsubscribe []string
	Initial                map[string]string // versions that the client holds
	Nonce                  string            // of the response that this one answers; empty for a subscription
	Error                  string            // of a NACK
	Peer                   spiffeid.ID       // of the certificate that was shown; zero: none was
}

// resource is something served.
type resource struct {
	typ, name, version string
	aliases, services  []string // services: keys that it is an endpoint of
	value              []byte
}

// Istiod is a fake. All methods may be called from several goroutines.
type Istiod struct {
	addr  string
	ca    *identitytest.CA
	creds credentials.TransportCredentials

	mu        sync.Mutex // guards the fields below
	server    *grpc.Server
	token     string
	cert      *tls.Certificate
	silent    bool
	version   int
	resources map[string]*resource          // by type and name
	alias     map[string]map[*resource]bool // Address resources by other names
	endpoints map[string]map[*resource]bool // workloads by the keys of their Services
	streams   map[*stream]bool
	count     int
	requests  []Request
	told      chan struct{} // closed with the next request
}

// New starts an Istiod without resources that takes the token "token". It ends with the test.
func New(t testing.TB) *Istiod {
	t.Helper()
	ca := identitytest.NewCA(spiffeid.RequireTrustDomainFromString("cluster.local"))
	clients := x509.NewCertPool()
	clients.AddCert(ca.Root)
	i := &Istiod{
		ca: ca, token: "token",
		resources: map[string]*resource{}, alias: map[string]map[*resource]bool{}, endpoints: map[string]map[*resource]bool{}, streams: map[*stream]bool{}, told: make(chan struct{}),
	}
	i.creds = credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS12, GetCertificate: i.certificate, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: clients,
	})
	i.SetCertificate()
	if err := i.listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.Stop)
	return i
}

func (i *Istiod) listen(address string) error {
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", address)
	if err != nil {
		return err
	}
	// As istiod: else gRPC ends, after a minute or two, the connection of a client that looks every half a minute whether it is still there.
	server := grpc.NewServer(grpc.Creds(i.creds), grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 15 * time.Second}))
	discovery.RegisterAggregatedDiscoveryServiceServer(server, ads{i: i})
	i.mu.Lock()
	i.addr, i.server = ln.Addr().String(), server
	i.mu.Unlock()
	go func() { _ = server.Serve(ln) }() // ends with Stop, which wants no error
	return nil
}

// Addr is host:port of the TLS listener; Start keeps it.
func (i *Istiod) Addr() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.addr
}

// Roots is the PEM of the root that the certificate leads to.
func (i *Istiod) Roots() ([]byte, error) { return identitytest.PEM(i.ca.Root), nil }

// SetCertificate gives it another certificate of the same root for connections from now on, changed as the options say: identitytest.Expired, say.
func (i *Istiod) SetCertificate(opts ...identitytest.Option) {
	name := func(c *x509.Certificate) { c.DNSNames = []string{"istiod.istio-system.svc"} }
	svid := i.ca.SVID(spiffeid.RequireFromPath(i.ca.TrustDomain, "/ns/istio-system/sa/istiod"), append([]identitytest.Option{name}, opts...)...)
	cert := &tls.Certificate{PrivateKey: svid.PrivateKey}
	for _, c := range svid.Certificates {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.cert = cert
}

func (i *Istiod) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.cert, nil
}

// Identity is one whose certificate it takes in place of a token, for wds.Config.Identity. It trusts what issued that and the certificate of Istiod.
func (i *Istiod) Identity(id spiffeid.ID) *identitytest.Source { return i.ca.Source(id) }

// Stop goes away: streams end, connections are refused. It waits for that.
func (i *Istiod) Stop() {
	i.mu.Lock()
	server := i.server
	i.mu.Unlock()
	server.Stop()
}

// Start comes back after Stop, at the same address, with what was set meanwhile.
func (i *Istiod) Start(t testing.TB) {
	t.Helper()
	err := i.listen(i.Addr())
	// A connection of somebody else may have been given the port meanwhile.
	for until := time.Now().Add(10 * time.Second); errors.Is(err, syscall.EADDRINUSE) && time.Now().Before(until); err = i.listen(i.Addr()) {
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Disconnect ends the streams; clients may connect again.
func (i *Istiod) Disconnect() {
	i.mu.Lock()
	defer i.mu.Unlock()
	for s := range i.streams {
		s.once.Do(func() { close(s.end) })
	}
}

// SetToken says which token is accepted.
func (i *Istiod) SetToken(token string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.token = token
}

// SetSilent makes it take requests and answer none; what was asked meanwhile is answered when it speaks again.
func (i *Istiod) SetSilent(silent bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.silent = silent
	i.wake()
}

// SetWorkload adds or changes a workload.
func (i *Istiod) SetWorkload(w *route.Workload) { i.set(workloadResource(w, "")) }

func workloadResource(w *route.Workload, version string) *resource {
	r := &resource{typ: AddressType, name: w.UID, version: version, value: EncodeWorkload(w)}
	for _, ip := range w.Addresses {
		r.aliases = append(r.aliases, route.NetAddr{Network: w.Network, IP: ip}.Key())
	}
	for _, m := range w.Services {
		r.services = append(r.services, m.Service)
	}
	return r
}

// SetService adds or changes a Service.
func (i *Istiod) SetService(s *route.Service) { i.set(serviceResource(s, "")) }

func serviceResource(s *route.Service, version string) *resource {
	r := &resource{typ: AddressType, name: s.Key(), version: version, value: EncodeService(s)}
	for _, a := range s.Addresses {
		r.aliases = append(r.aliases, a.Key())
	}
	return r
}

// SetPolicy adds or changes a policy.
func (i *Istiod) SetPolicy(p *authz.Policy) {
	i.set(&resource{typ: PolicyType, name: p.Key(), value: EncodePolicy(p)})
}

// SetRaw adds or changes a resource of any bytes, such as ones that cannot be read.
func (i *Istiod) SetRaw(typ, name string, value []byte, aliases ...string) {
	i.set(&resource{typ: typ, name: name, value: value, aliases: aliases})
}

func (i *Istiod) set(r *resource) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.version++
	r.version = strconv.Itoa(i.version)
	i.put(r)
	for s := range i.streams {
		s.changed(r)
	}
	i.wake()
}

// put adds r or replaces what has its name; mu is held.
func (i *Istiod) put(r *resource) {
	i.drop(r.typ, r.name)
	i.resources[r.typ+" "+r.name] = r
	for _, name := range r.aliases {
		add(i.alias, name, r)
	}
	for _, key := range r.services {
		add(i.endpoints, key, r)
	}
}

func (i *Istiod) drop(typ, name string) {
	r := i.resources[typ+" "+name]
	if r == nil {
		return
	}
	delete(i.resources, typ+" "+name)
	for _, name := range r.aliases {
		delete(i.alias[name], r)
	}
	for _, key := range r.services {
		delete(i.endpoints[key], r)
	}
}

func add(m map[string]map[*resource]bool, key string, r *resource) {
	if m[key] == nil {
		m[key] = map[*resource]bool{}
	}
	m[key][r] = true
}

// behind is the Address resources that answer for names: those that have one, and the endpoints of the Services among them. mu is held.
func (i *Istiod) behind(names map[string]bool) map[*resource]bool {
	found := map[*resource]bool{}
	one := func(r *resource) {
		found[r] = true
		for e := range i.endpoints[r.name] {
			found[e] = true
		}
	}
	for name := range names {
		if r := i.resources[AddressType+" "+name]; r != nil {
			one(r)
		}
		for r := range i.alias[name] {
			one(r)
		}
	}
	return found
}

// of is all resources of a type; mu is held.
func (i *Istiod) of(typ string) map[*resource]bool {
	found := map[*resource]bool{}
	for _, r := range i.resources {
		if r.typ == typ {
			found[r] = true
		}
	}
	return found
}

// Remove takes away the resource of that type and name.
func (i *Istiod) Remove(typ, name string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.drop(typ, name)
	for s := range i.streams {
		if s.wants(typ, name) {
			s.push(typ, nil, []string{name})
		}
	}
	i.wake()
}

// wake lets the streams look at their queues; mu is held.
func (i *Istiod) wake() {
	for s := range i.streams {
		select {
		case s.kick <- struct{}{}:
		default:
		}
	}
}

// Requests is what clients sent so far.
func (i *Istiod) Requests() []Request {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.requests)
}

// Wait returns the first request that match holds of, also of those that came already. It fails the test when none comes in time.
func (i *Istiod) Wait(t testing.TB, what string, match func(Request) bool) Request {
	t.Helper()
	for {
		i.mu.Lock()
		list, told := i.requests, i.told
		i.mu.Unlock()
		if at := slices.IndexFunc(list, match); at >= 0 {
			return list[at]
		}
		select {
		case <-told:
		case <-timeout():
			var seen []string
			for _, r := range list {
				seen = append(seen, fmt.Sprintf("%+v", r))
			}
			t.Fatalf("no request: %s; there were\n%s", what, strings.Join(seen, "\n"))
		}
	}
}

// Token is a wds.Config.Token with the token that a new Istiod takes.
func Token(context.Context) (string, error) { return "token", nil }
