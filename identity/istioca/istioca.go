package istioca

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
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	security "istio.io/api/security/v1alpha1"

	"github.com/isthmus-mesh/isthmus/identity"
)

// Config says which authority, and who asks. It is copied.
type Config struct {
	// Addresses are host:port of the authority's TLS port (istiod's 15012); they are tried in turn. At least one.
	Addresses []string
	// ServerName is the name in the authority's certificate. Empty means istiod.istio-system.svc.
	ServerName string
	// RootsFile is a PEM file of the roots that the authority's certificate leads to; it is read again for every call. One of RootsFile and Roots
	// is required.
	RootsFile string
	// Roots gives the same PEM by function.
	Roots func() ([]byte, error)
	// TokenFile holds the service account's token for audience istio-ca; it is read again for every call. One of TokenFile and Token is required.
	TokenFile string
	// Token gives the token by function.
	Token func(ctx context.Context) (string, error)
	// ClusterID is istiod's name of our cluster. Empty means Kubernetes.
	ClusterID string
	// ID is who we are: it must be the token's service account. Required.
	ID spiffeid.ID
	// TTL is the lifetime asked for. Zero means 24 h; the authority may give less.
	TTL time.Duration
	// DialContext makes TCP connections. Nil means a net.Dialer.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
	// Logger takes failures and renewals. Nil is silent.
	Logger *slog.Logger
}

// New returns a Source with its first certificate. It blocks until then, trying again while the authority is away, or until ctx ends. An
// authority that refuses the token ends it at once.
func New(ctx context.Context, cfg Config) (*identity.Source, error) {
	switch {
	case len(cfg.Addresses) == 0:
		return nil, errors.New("istioca: no address: set Config.Addresses")
	case cfg.ID.IsZero():
		return nil, errors.New("istioca: no identity: set Config.ID")
	case cfg.RootsFile == "" && cfg.Roots == nil:
		return nil, errors.New("istioca: no roots to know the authority by: set Config.RootsFile")
	case cfg.TokenFile == "" && cfg.Token == nil:
		return nil, errors.New("istioca: no token: set Config.TokenFile")
	}
	return identity.New(ctx, &client{cfg: cfg}, identity.Config{Logger: cfg.Logger})
}

// client is the identity.Fetcher.
type client struct{ cfg Config }

// Fetch asks one address after the other for a certificate for a new key.
func (c *client) Fetch(ctx context.Context) (*identity.Material, error) {
	rootsPEM, err := c.roots()
	if err != nil {
		return nil, err
	}
	token, err := c.token(ctx)
	if err != nil {
		return nil, err
	}
	key, csr, err := newRequest(c.cfg.ID)
	if err != nil {
		return nil, err
	}
	var failed error
	for _, address := range c.cfg.Addresses {
		chain, err := c.ask(ctx, address, rootsPEM, token, csr)
		if err == nil {
			return c.material(address, key, chain, rootsPEM)
		}
		failed = errors.Join(failed, c.explain(address, err))
		if _, ok := errors.AsType[*identity.PermanentError](failed); ok {
			break
		}
	}
	return nil, failed
}

func (c *client) roots() ([]byte, error) {
	if c.cfg.Roots != nil {
		return c.cfg.Roots()
	}
	pem, err := os.ReadFile(c.cfg.RootsFile)
	if err != nil {
		return nil, fmt.Errorf("istioca: read roots: %w (mount ConfigMap istio-ca-root-cert, key root-cert.pem)", err)
	}
	return pem, nil
}

func (c *client) token(ctx context.Context) (string, error) {
	if c.cfg.Token != nil {
		return c.cfg.Token(ctx)
	}
	token, err := os.ReadFile(c.cfg.TokenFile)
	if err != nil {
		return "", fmt.Errorf("istioca: read token: %w (project a serviceAccountToken with audience istio-ca)", err)
	}
	return strings.TrimSpace(string(token)), nil
}

// newRequest makes an ECDSA P-256 key and the signing request for id.
func newRequest(id spiffeid.ID) (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{URIs: []*url.URL{id.URL()}}, key)
	if err != nil {
		return nil, nil, err
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// ask makes one CreateCertificate call.
func (c *client) ask(ctx context.Context, address string, rootsPEM []byte, token string, csr []byte) ([]string, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(rootsPEM) {
		return nil, errors.New("the roots file holds no certificate")
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool, ServerName: cmp.Or(c.cfg.ServerName, "istiod.istio-system.svc")}
	opts := []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(config))}
	if dial := c.cfg.DialContext; dial != nil {
		opts = append(opts, grpc.WithContextDialer(func(ctx context.Context, a string) (net.Conn, error) { return dial(ctx, "tcp", a) }))
	}
	cc, err := grpc.NewClient("passthrough:///"+address, opts...)
	if err != nil {
		return nil, err
	}
	defer cc.Close()
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token, "clusterid", cmp.Or(c.cfg.ClusterID, "Kubernetes"))
	res, err := security.NewIstioCertificateServiceClient(cc).CreateCertificate(ctx, &security.IstioCertificateRequest{
		Csr:              string(csr),
		ValidityDuration: int64(cmp.Or(c.cfg.TTL, 24*time.Hour).Seconds()),
	})
	if err != nil {
		return nil, err
	}
	return res.GetCertChain(), nil
}

// explain says what a refusal means.
func (c *client) explain(address string, err error) error {
	where := fmt.Sprintf("istioca: certificate for %s from %s", c.cfg.ID, address)
	switch status.Code(err) {
	case codes.Unauthenticated, codes.PermissionDenied:
		return &identity.PermanentError{Err: fmt.Errorf("%s: refused: %w: the token must be of that service account, for audience istio-ca, and not expired", where, err)}
	case codes.Unavailable:
		if strings.Contains(err.Error(), "certificate") {
			return fmt.Errorf("%s: %w: is the roots file that of this mesh (ConfigMap istio-ca-root-cert)?", where, err)
		}
		return fmt.Errorf("%s: not reachable: %w: is istiod running, and does its TLS port (15012) admit us?", where, err)
	}
	return fmt.Errorf("%s: %w", where, err)
}

// material checks the answer and adds whom to trust: the configured roots and the root that the chain ends with.
func (c *client) material(address string, key *ecdsa.PrivateKey, chain []string, rootsPEM []byte) (*identity.Material, error) {
	certs, err := parseChain(chain)
	if err != nil {
		return nil, fmt.Errorf("istioca: answer of %s: %w", address, err)
	}
	leaf := certs[0]
	if !key.PublicKey.Equal(leaf.PublicKey) {
		return nil, fmt.Errorf("istioca: answer of %s: the certificate is for another key", address)
	}
	id, err := x509svid.IDFromCert(leaf)
	if err != nil {
		return nil, fmt.Errorf("istioca: answer of %s: %w", address, err)
	}
	if id != c.cfg.ID {
		return nil, &identity.PermanentError{Err: fmt.Errorf("istioca: asked %s for %s and got %s: the token is of another service account, or the trust domain differs", address, c.cfg.ID, id)}
	}
	bundle := x509bundle.New(id.TrustDomain())
	for rest := rootsPEM; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if root, err := x509.ParseCertificate(block.Bytes); err == nil {
			bundle.AddX509Authority(root)
		}
	}
	own := certs
	if last := certs[len(certs)-1]; len(certs) > 1 && last.IsCA {
		bundle.AddX509Authority(last)
		own = certs[:len(certs)-1]
	}
	return &identity.Material{
		SVID:    &x509svid.SVID{ID: id, Certificates: own, PrivateKey: key},
		Bundles: x509bundle.NewSet(bundle),
	}, nil
}

func parseChain(chain []string) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for rest := []byte(strings.Join(chain, "\n")); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("it has no certificate")
	}
	return certs, nil
}

var _ identity.Fetcher = (*client)(nil)
