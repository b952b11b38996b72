package istioca

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	security "istio.io/api/security/v1alpha1"

	"github.com/isthmus-mesh/isthmus/identity"
)

// maxAnswer is how many bytes an answer may have; a chain has a few thousand.
const maxAnswer = 1 << 20

// ask makes one CreateCertificate call. It takes its share of the time that is left when so many addresses, this one included, are to be asked.
func (c *client) ask(ctx context.Context, address string, addresses int, roots []byte, token string, csr []byte) ([]string, error) {
	if end, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(end)/time.Duration(addresses))
		defer cancel()
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(roots) {
		return nil, errors.New("istioca: there is no certificate in the roots")
	}
	creds := &recording{
		TransportCredentials: credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool, ServerName: c.cfg.serverName()}),
		failure:              &failure{},
	}
	dial := c.cfg.DialContext
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	cc, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, a string) (net.Conn, error) { return dial(ctx, "tcp", a) }),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		return nil, fmt.Errorf("istioca: %s: %w", address, err)
	}
	defer cc.Close()
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token, "clusterid", c.cfg.clusterID())
	req := &security.IstioCertificateRequest{Csr: string(csr), ValidityDuration: int64(c.cfg.ttl().Seconds())}
	if c.cfg.Impersonate {
		req.Metadata = &structpb.Struct{Fields: map[string]*structpb.Value{"ImpersonatedIdentity": structpb.NewStringValue(c.cfg.ID.String())}}
	}
	res, err := security.NewIstioCertificateServiceClient(cc).CreateCertificate(ctx, req)
	if err != nil {
		return nil, c.explain(address, token, err, creds.failure.get())
	}
	return res.GetCertChain(), nil
}

// explain says what a refusal means. The handshake's error, where there is one, is what gRPC's is made of.
func (c *client) explain(address, token string, err, handshake error) error {
	where := fmt.Sprintf("istioca: certificate for %s from %s", c.cfg.ID, address)
	switch status.Code(err) {
	case codes.Unauthenticated:
		why := c.describe(token)
		if why == "" { // istiod answers the same when it cannot ask the API server about the token
			return fmt.Errorf("%s: refused: %w: %s fits as far as can be seen: is its pod or service account gone, is it of another cluster, or can istiod not reach the API server?",
				where, err, c.tokenName())
		}
		return &identity.PermanentError{Err: fmt.Errorf("%s: refused: %w: %s must be of %s service account, for audience istio-ca, and not expired%s",
			where, err, c.tokenName(), map[bool]string{false: "that", true: "a node agent's"}[c.cfg.Impersonate], why)}
	case codes.PermissionDenied:
		return &identity.PermanentError{Err: fmt.Errorf("%s: refused: %w: %s may not have that identity%s", where, err, c.tokenName(), c.describe(token))}
	case codes.Unavailable:
		if handshake == nil {
			return fmt.Errorf("%s: not reachable: %w: is istiod running, and does its TLS port (15012) admit us?", where, err)
		}
		return &tlsError{text: fmt.Sprintf("%s: TLS: %v: %s", where, handshake, c.explainTLS(handshake)), errs: []error{handshake, err}}
	case codes.ResourceExhausted:
		return fmt.Errorf("%s: the answer is too large, or we ask too often: %w", where, err)
	case codes.Canceled:
		return fmt.Errorf("%s: no answer: %w", where, context.Canceled)
	case codes.DeadlineExceeded:
		return fmt.Errorf("%s: no answer: %w: %w", where, context.DeadlineExceeded, err)
	}
	return fmt.Errorf("%s: %w", where, err)
}

// tlsError is a handshake that failed. It is the handshake's error and gRPC's, and says only the former, which the latter repeats.
type tlsError struct {
	text string
	errs []error
}

func (e *tlsError) Error() string   { return e.text }
func (e *tlsError) Unwrap() []error { return e.errs }

// explainTLS says what to do about a handshake that failed.
func (c *client) explainTLS(err error) string {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return c.rootsName() + " must be that of this mesh (ConfigMap istio-ca-root-cert)"
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "it is not who we look for: see Config.ServerName"
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired && invalid.Cert != nil {
		if ahead := time.Until(invalid.Cert.NotBefore); ahead > 0 {
			return fmt.Sprintf("its certificate begins only in %v: the clocks of this machine and of the authority disagree", ahead.Round(time.Second))
		}
		return fmt.Sprintf("its certificate ended %v ago, or the clock of this machine is ahead by that", time.Since(invalid.Cert.NotAfter).Round(time.Second))
	}
	return "is that the TLS port (15012)?"
}

// describe says what about the token does not fit. An account that impersonates may be any.
func (c *client) describe(token string) string {
	if c.cfg.Impersonate {
		return describe(token, spiffeid.ID{})
	}
	return describe(token, c.cfg.ID)
}

func (c *client) tokenName() string {
	if c.cfg.Token == nil {
		return "the token in " + c.cfg.TokenFile
	}
	return "the token"
}

func (c *client) rootsName() string {
	if c.cfg.Roots == nil {
		return "the file " + c.cfg.RootsFile
	}
	return "the root"
}

// recording keeps the error of the last handshake, which gRPC hands on only as text.
type recording struct {
	credentials.TransportCredentials
	failure *failure
}

// ClientHandshake hands on and remembers.
func (r *recording) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, info, err := r.TransportCredentials.ClientHandshake(ctx, authority, raw)
	r.failure.set(err)
	return c, info, err
}

// Clone keeps to the same memory.
func (r *recording) Clone() credentials.TransportCredentials {
	return &recording{TransportCredentials: r.TransportCredentials.Clone(), failure: r.failure}
}

type failure struct {
	mu  sync.Mutex
	err error
}

func (f *failure) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *failure) get() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}
