package file

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/fsnotify/fsnotify"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/isthmus-mesh/isthmus/identity"
)

// Config names the files. It is copied.
type Config struct {
	Chain string // PEM, leaf first; required
	Key   string // PEM, PKCS #8 or SEC 1; required
	Roots string // PEM; trusted for the leaf's trust domain; required
	// Logger takes failures and renewals. Nil is silent.
	Logger *slog.Logger
}

// New returns a Source with what the files hold now; a file that is missing or wrong is an error at once. Afterwards
// changes are taken as they come.
func New(ctx context.Context, cfg Config) (*identity.Source, error) {
	r := &reader{cfg: cfg, notify: make(chan struct{}, 1)}
	if _, err := r.Fetch(ctx); err != nil {
		return nil, err
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("identity file: watch: %w", err)
	}
	for _, f := range []string{cfg.Chain, cfg.Key, cfg.Roots} {
		if err := w.Add(filepath.Dir(f)); err != nil { // the folder: mounts replace what is in it
			w.Close()
			return nil, fmt.Errorf("identity file: watch %s: %w", filepath.Dir(f), err)
		}
	}
	r.watcher = w
	go r.follow()
	s, err := identity.New(ctx, r, identity.Config{Logger: cfg.Logger})
	if err != nil {
		w.Close()
		return nil, err
	}
	return s, nil
}

// reader is the identity.Fetcher.
type reader struct {
	cfg     Config
	watcher *fsnotify.Watcher
	notify  chan struct{}
}

// follow passes events on until the watcher is closed.
func (r *reader) follow() {
	defer close(r.notify)
	for {
		select {
		case _, ok := <-r.watcher.Events:
			if !ok {
				return
			}
		case _, ok := <-r.watcher.Errors: // events were lost: read again
			if !ok {
				return
			}
		}
		select {
		case r.notify <- struct{}{}:
		default:
		}
	}
}

// Notify tells of changes.
func (r *reader) Notify() <-chan struct{} { return r.notify }

// Close ends the watch.
func (r *reader) Close() error { return r.watcher.Close() }

// Fetch reads the files.
func (r *reader) Fetch(context.Context) (*identity.Material, error) {
	chain, err := readCerts(r.cfg.Chain)
	if err != nil {
		return nil, err
	}
	roots, err := readCerts(r.cfg.Roots)
	if err != nil {
		return nil, err
	}
	key, err := readKey(r.cfg.Key)
	if err != nil {
		return nil, err
	}
	leaf := chain[0]
	if pub, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(key.Public()) {
		return nil, fmt.Errorf("identity file: %s and %s do not belong together; if they are being replaced, the next change is read", r.cfg.Chain, r.cfg.Key)
	}
	id, err := x509svid.IDFromCert(leaf)
	if err != nil {
		return nil, fmt.Errorf("identity file: %s: %w", r.cfg.Chain, err)
	}
	return &identity.Material{
		SVID:    &x509svid.SVID{ID: id, Certificates: chain, PrivateKey: key},
		Bundles: x509bundle.NewSet(x509bundle.FromX509Authorities(id.TrustDomain(), roots)),
	}, nil
}

func readCerts(path string) ([]*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("identity file: %w", err)
	}
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("identity file: %s: %w", path, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("identity file: %s holds no PEM certificate", path)
	}
	return certs, nil
}

func readKey(path string) (crypto.Signer, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("identity file: %w", err)
	}
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return nil, fmt.Errorf("identity file: %s holds no PEM key", path)
		}
		switch block.Type {
		case "PRIVATE KEY":
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("identity file: %s: %w", path, err)
			}
			if signer, ok := key.(crypto.Signer); ok {
				return signer, nil
			}
			return nil, errors.New("identity file: " + path + " holds a key that cannot sign")
		case "EC PRIVATE KEY":
			key, err := x509.ParseECPrivateKey(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("identity file: %s: %w", path, err)
			}
			return key, nil
		}
	}
}

var (
	_ identity.Fetcher  = (*reader)(nil)
	_ identity.Notifier = (*reader)(nil)
)
