package istiocatest

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	security "istio.io/api/security/v1alpha1"

	"github.com/isthmus-mesh/isthmus/identity/identitytest"
)

// ServerName is the name in the server's certificate, as in istiod's.
const ServerName = "istiod.istio-system.svc"

// Request is one call as the server saw it, with a token it admits and a signed request for a certificate.
type Request struct {
	ID        spiffeid.ID // whom the token names
	Token     string
	ClusterID string
	CSR       *x509.CertificateRequest
	TTL       time.Duration // asked for; zero when nothing was
	// Impersonated is whom the call names as who it is for; zero when it names nobody. Whether it may is for Answer to say: Sign issues for it.
	Impersonated spiffeid.ID
}

// Server is a certificate authority. Its methods may be called from several goroutines. Close it.
type Server struct {
	address string

	mu       sync.Mutex // guards the fields below
	ca       *identitytest.CA
	tokens   map[string]spiffeid.ID
	answer   func(Request) ([]string, error)
	requests []Request
	refused  int
	server   *grpc.Server // nil while away
	served   chan struct{}
}

// New starts a server on a port of 127.0.0.1 that issues by ca. It admits nobody yet.
func New(ca *identitytest.CA) (*Server, error) {
	s := &Server{ca: ca, tokens: map[string]spiffeid.ID{}}
	if err := s.Start(); err != nil {
		return nil, err
	}
	return s, nil
}

// Start ends being away; the address is the one from before.
func (s *Server) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server != nil {
		return nil
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", cmp.Or(s.address, "127.0.0.1:0"))
	if err != nil {
		return fmt.Errorf("istiocatest: %w", err)
	}
	s.address = l.Addr().String()
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.certificate})))
	security.RegisterIstioCertificateServiceServer(server, service{s: s})
	served := make(chan struct{})
	s.server, s.served = server, served
	go func() {
		defer close(served)
		_ = server.Serve(l) // it ends by Stop
	}()
	return nil
}

// Stop makes the server be away: connections end and new ones are refused, until Start.
func (s *Server) Stop() {
	s.mu.Lock()
	server, served := s.server, s.served
	s.server = nil
	s.mu.Unlock()
	if server != nil {
		server.Stop()
		<-served
	}
}

// Close ends the server. It is idempotent.
func (s *Server) Close() error {
	s.Stop()
	return nil
}

// Address is host:port, also while the server is away.
func (s *Server) Address() string { return s.address }

// RootPEM is the root to know the server by, as in ConfigMap istio-ca-root-cert.
func (s *Server) RootPEM() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return identitytest.PEM(s.ca.Root)
}

// Rotate makes another authority issue from now on, also the server's own certificate.
func (s *Server) Rotate(ca *identitytest.CA) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ca = ca
}

// Admit makes token the one of id.
func (s *Server) Admit(token string, id spiffeid.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[token] = id
}

// Expel makes token nobody's.
func (s *Server) Expel(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tokens, token)
}

// Answer sets what admitted requests get: a PEM chain, leaf first and root last, or an error made by grpc's status. Nil goes back to Sign without
// options. It may be called by several requests at once.
func (s *Server) Answer(f func(Request) ([]string, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = f
}

// Requests are those admitted so far.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Refused counts requests without an admitted token.
func (s *Server) Refused() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused
}

// Sign is the chain that istiod would answer, with the certificate changed by opts.
func (s *Server) Sign(r Request, opts ...identitytest.Option) []string {
	s.mu.Lock()
	ca := s.ca
	s.mu.Unlock()
	if r.TTL > 0 {
		opts = append([]identitytest.Option{identitytest.Lifetime(r.TTL)}, opts...)
	}
	id := r.ID
	if !r.Impersonated.IsZero() {
		id = r.Impersonated
	}
	var chain []string
	for _, c := range append(ca.IssueFor(id, r.CSR.PublicKey, opts...), ca.Root) {
		chain = append(chain, string(identitytest.PEM(c)))
	}
	return chain
}

// certificate is the server's own.
func (s *Server) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	ca := s.ca
	s.mu.Unlock()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	id, err := spiffeid.FromPath(ca.TrustDomain, "/ns/istio-system/sa/istiod")
	if err != nil {
		return nil, err
	}
	cert := &tls.Certificate{PrivateKey: key}
	for _, c := range ca.Issue(id, key, func(c *x509.Certificate) { c.DNSNames = []string{ServerName} }) {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert, nil
}

// service is the gRPC side of a Server.
type service struct {
	security.UnimplementedIstioCertificateServiceServer
	s *Server
}

// CreateCertificate answers a request with a chain.
func (v service) CreateCertificate(ctx context.Context, in *security.IstioCertificateRequest) (*security.IstioCertificateResponse, error) {
	r, answer, err := v.s.admit(ctx)
	if err != nil {
		return nil, err
	}
	if r.CSR, err = parseCSR(in.GetCsr()); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "signing request: %v", err)
	}
	r.TTL = time.Duration(in.GetValidityDuration()) * time.Second
	if name := in.GetMetadata().GetFields()["ImpersonatedIdentity"].GetStringValue(); name != "" {
		if r.Impersonated, err = spiffeid.FromString(name); err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "impersonated identity: %v", err)
		}
	}
	v.s.mu.Lock()
	v.s.requests = append(v.s.requests, r)
	v.s.mu.Unlock()
	if answer == nil {
		answer = func(r Request) ([]string, error) { return v.s.Sign(r), nil }
	}
	chain, err := answer(r)
	if err != nil {
		return nil, err
	}
	return &security.IstioCertificateResponse{CertChain: chain}, nil
}

// admit finds out who calls.
func (s *Server) admit(ctx context.Context) (Request, func(Request) ([]string, error), error) {
	md, _ := metadata.FromIncomingContext(ctx)
	token, ok := strings.CutPrefix(strings.Join(md.Get("authorization"), ","), "Bearer ")
	s.mu.Lock()
	defer s.mu.Unlock()
	id, known := s.tokens[token]
	if !ok || !known {
		s.refused++
		return Request{}, nil, status.Error(codes.Unauthenticated, "request authenticate failure")
	}
	return Request{ID: id, Token: token, ClusterID: strings.Join(md.Get("clusterid"), ",")}, s.answer, nil
}

func parseCSR(text string) (*x509.CertificateRequest, error) {
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE REQUEST" || strings.TrimSpace(string(rest)) != "" {
		return nil, errors.New("not one PEM block CERTIFICATE REQUEST")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	return csr, csr.CheckSignature()
}
