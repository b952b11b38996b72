package istioca

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/internal/pemtext"
	"github.com/isthmus-mesh/isthmus/identity/internal/regular"
)

// mountGrace is how long a file may be missing after New was called: a kubelet may mount it a moment after the container has begun. Who is in
// no pod at all should not wait for ever.
const mountGrace = 2 * time.Second

const (
	maxChain     = 16      // certificates of an answer
	maxRootsFile = 4 << 20 // bytes; hundreds of roots fit in
	maxTokenFile = 1 << 20 // bytes; a token has a few thousand
)

// client is the identity.Fetcher.
type client struct {
	cfg    Config
	begun  time.Time // when New was called
	wg     sync.WaitGroup
	cancel context.CancelFunc // set by Notify

	mu    sync.Mutex // guards the field below
	roots []byte     // of the last Fetch
}

// Fetch asks one address after the other for a certificate for a new key.
func (c *client) Fetch(ctx context.Context) (*identity.Material, error) {
	roots, err := c.readRoots()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.roots = roots
	c.mu.Unlock()
	token, err := c.token(ctx)
	if err != nil {
		return nil, err
	}
	key, csr, err := newRequest(c.cfg.ID)
	if err != nil {
		return nil, fmt.Errorf("istioca: make a signing request: %w", err)
	}
	var failed error
	for i, address := range c.cfg.Addresses {
		chain, err := c.ask(ctx, address, len(c.cfg.Addresses)-i, roots, token, csr)
		if err == nil {
			var m *identity.Material
			if m, err = c.material(address, token, key, chain, roots); err == nil {
				return m, nil
			}
		}
		failed = errors.Join(failed, err)
		if _, ok := errors.AsType[*identity.PermanentError](err); ok || ctx.Err() != nil {
			break
		}
	}
	return nil, failed
}

// missing makes the error of a file that is not there one that New ends with, when the file has had its time to come.
func (c *client) missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) && time.Since(c.begun) >= mountGrace {
		return &identity.PermanentError{Err: err}
	}
	return err
}

// readRoots reads what the authority is known by now.
func (c *client) readRoots() ([]byte, error) {
	if c.cfg.Roots != nil {
		roots, err := c.cfg.Roots()
		if err != nil {
			return nil, fmt.Errorf("istioca: get roots: %w", err)
		}
		return roots, nil
	}
	roots, err := regular.Read(c.cfg.RootsFile, maxRootsFile)
	if err != nil {
		return nil, c.missing(fmt.Errorf("istioca: read roots: %w (in a pod: mount ConfigMap istio-ca-root-cert, key root-cert.pem; elsewhere write its content there)", err))
	}
	return roots, nil
}

// token reads what we show the authority now.
func (c *client) token(ctx context.Context) (string, error) {
	if c.cfg.Token != nil {
		token, err := c.cfg.Token(ctx)
		if err != nil {
			return "", fmt.Errorf("istioca: get token: %w", err)
		}
		return token, nil
	}
	text, err := regular.Read(c.cfg.TokenFile, maxTokenFile)
	if err != nil {
		return "", c.missing(fmt.Errorf("istioca: read token: %w (in a pod: project a serviceAccountToken with audience istio-ca; elsewhere: kubectl create token ACCOUNT -n NAMESPACE --audience istio-ca)", err))
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", fmt.Errorf("istioca: read token: %s is empty", c.cfg.TokenFile)
	}
	return token, nil
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

// material checks the answer and adds whom to trust: the configured roots and the root that the chain ends with, which during a rotation may be
// newer. That the certificate leads there is for identity.Source to check.
func (c *client) material(address, token string, key *ecdsa.PrivateKey, chain []string, roots []byte) (*identity.Material, error) {
	wrong := func(err error) error { return fmt.Errorf("istioca: answer of %s: %w", address, err) }
	certs, err := pemtext.Certificates([]byte(strings.Join(chain, "\n")), maxChain)
	if err != nil {
		return nil, wrong(err)
	}
	leaf := certs[0]
	if !key.PublicKey.Equal(leaf.PublicKey) {
		return nil, wrong(errors.New("the certificate is for another key"))
	}
	id, err := x509svid.IDFromCert(leaf)
	if err != nil {
		return nil, wrong(err)
	}
	if id != c.cfg.ID {
		return nil, &identity.PermanentError{Err: fmt.Errorf("istioca: asked %s for %s and got %s: %s is of another service account, or the trust domain differs%s",
			address, c.cfg.ID, id, c.tokenName(), c.describe(token))}
	}
	trusted, err := pemtext.Certificates(roots, 0)
	if err != nil {
		return nil, fmt.Errorf("istioca: roots: %w", err)
	}
	bundle := x509bundle.FromX509Authorities(id.TrustDomain(), trusted)
	if last := certs[len(certs)-1]; len(certs) > 1 && isRoot(last) {
		bundle.AddX509Authority(last)
		certs = certs[:len(certs)-1]
	}
	return &identity.Material{
		SVID:    &x509svid.SVID{ID: id, Certificates: certs, PrivateKey: key},
		Bundles: x509bundle.NewSet(bundle),
	}, nil
}

// isRoot reports whether c signed itself. An intermediate that ends a chain is nobody to trust on its own.
func isRoot(c *x509.Certificate) bool {
	return c.IsCA && bytes.Equal(c.RawSubject, c.RawIssuer) && c.CheckSignatureFrom(c) == nil
}

// Notify tells when the roots are others than those of the last Fetch.
func (c *client) Notify() <-chan struct{} {
	if c.cfg.rootsInterval() < 0 {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	changed := make(chan struct{}, 1)
	c.wg.Go(func() { c.watchRoots(ctx, changed) })
	return changed
}

// watchRoots compares until ctx ends. It looks rather than being told: mounts, links and functions are all the same to it.
func (c *client) watchRoots(ctx context.Context, changed chan<- struct{}) {
	tick := time.NewTicker(c.cfg.rootsInterval())
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		roots, err := c.readRoots()
		if err != nil { // the next Fetch will say so
			continue
		}
		c.mu.Lock()
		same := bytes.Equal(roots, c.roots)
		c.mu.Unlock()
		if same {
			continue
		}
		select {
		case changed <- struct{}{}:
		default:
		}
	}
}

// Close ends the watch.
func (c *client) Close() error {
	if c.cancel != nil {
		c.cancel()
		c.wg.Wait()
	}
	return nil
}

var (
	_ identity.Fetcher  = (*client)(nil)
	_ identity.Notifier = (*client)(nil)
)
