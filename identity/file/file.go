package file

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/internal/pemtext"
)

// Config names the files. It is copied.
type Config struct {
	Chain string // PEM, leaf first; required
	Key   string // PEM, PKCS #8, SEC 1 or PKCS #1; may be the same file; required
	Roots string // PEM; trusted for the leaf's trust domain; required
	// Interval is how often the files are read without being told of a change, as on file systems that do not tell. Zero means 1 min; negative
	// means only when told, and when the certificate should long have been renewed.
	Interval time.Duration
	// Trust widens and narrows whom the Source believes, beside Roots.
	Trust identity.Trust
	// Trace is told how the Source fares. It may be nil.
	Trace *identity.Trace
	// Logger takes failures and renewals. Nil is silent.
	Logger *slog.Logger
}

func (c *Config) interval() time.Duration {
	if c.Interval == 0 {
		return time.Minute
	}
	return c.Interval
}

func (c *Config) logger() *slog.Logger {
	if c.Logger != nil {
		return c.Logger
	}
	return slog.New(slog.DiscardHandler)
}

// New returns a Source with what the files hold now. A file that is missing or wrong, and a certificate that has expired or does not lead to the
// roots, is an error at once. Afterwards changes are taken as they come; while they do not fit together the Source keeps what it has and its Stats have
// the error.
func New(ctx context.Context, cfg Config) (*identity.Source, error) {
	for name, path := range map[string]string{"Chain": cfg.Chain, "Key": cfg.Key, "Roots": cfg.Roots} {
		if path == "" {
			return nil, errors.New("identity file: no file: set Config." + name)
		}
	}
	r := &reader{cfg: cfg, notify: make(chan struct{}, 1), end: make(chan struct{})}
	var err error
	if r.watcher, err = fsnotify.NewWatcher(); err != nil {
		return nil, fmt.Errorf("identity file: watch: %w", err)
	}
	r.watch() // before the first look, so that no change is missed
	r.wg.Go(r.follow)
	s, err := identity.New(ctx, r, identity.Config{Trust: cfg.Trust, Trace: cfg.Trace, Logger: cfg.Logger, FailFast: true})
	if err != nil {
		r.Close()
		return nil, err
	}
	return s, nil
}

// reader is the identity.Fetcher.
type reader struct {
	cfg     Config
	watcher *fsnotify.Watcher
	notify  chan struct{}
	end     chan struct{} // closed by Close
	wg      sync.WaitGroup
	watched []string // folders; New's at first, then follow's
}

// watch watches the folders of the files and, as mounts replace what is in a folder and links may lead through several, those that their links lead to
// now. What cannot be watched is left to Interval.
func (r *reader) watch() {
	var want []string
	for _, f := range []string{r.cfg.Chain, r.cfg.Key, r.cfg.Roots} {
		want = append(want, filepath.Dir(f))
		if target, err := filepath.EvalSymlinks(f); err == nil {
			want = append(want, filepath.Dir(target))
		}
	}
	for _, dir := range r.watched {
		if !slices.Contains(want, dir) {
			_ = r.watcher.Remove(dir) // it may be gone by itself
		}
	}
	for _, dir := range want {
		_ = r.watcher.Add(dir) // again and again: a folder of the same name may be another one
	}
	r.watched = want
}

// follow passes changes on until Close.
func (r *reader) follow() {
	defer close(r.notify)
	var tick <-chan time.Time
	if r.cfg.interval() > 0 {
		t := time.NewTicker(r.cfg.interval())
		defer t.Stop()
		tick = t.C
	}
	for {
		select {
		case <-r.end:
			return
		case e := <-r.watcher.Events:
			if e.Op == fsnotify.Chmod {
				continue
			}
			if e.Has(fsnotify.Create | fsnotify.Rename | fsnotify.Remove) {
				r.watch()
			}
		case err := <-r.watcher.Errors: // events were lost
			r.cfg.logger().Warn("identity file: the watch of the files", "error", err)
			r.watch()
		case <-tick:
			r.watch()
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
func (r *reader) Close() error {
	close(r.end)
	r.wg.Wait()
	return r.watcher.Close()
}

// Fetch reads the files.
func (r *reader) Fetch(context.Context) (*identity.Material, error) {
	text, err := read(r.cfg.Chain)
	if err != nil {
		return nil, err
	}
	chain, err := pemtext.Certificates(text, 0)
	if err != nil {
		return nil, fmt.Errorf("identity file: %s: %w", r.cfg.Chain, err)
	}
	secret := text // of one file with both, so that it cannot be replaced in between
	if text, err = read(r.cfg.Roots); err != nil {
		return nil, err
	}
	roots, err := pemtext.Certificates(text, 0)
	if err != nil {
		return nil, fmt.Errorf("identity file: %s: %w", r.cfg.Roots, err)
	}
	if r.cfg.Key != r.cfg.Chain {
		if secret, err = read(r.cfg.Key); err != nil {
			return nil, err
		}
	}
	key, err := pemtext.Key(secret)
	if err != nil {
		return nil, fmt.Errorf("identity file: %s: %w", r.cfg.Key, err)
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

var (
	_ identity.Fetcher  = (*reader)(nil)
	_ identity.Notifier = (*reader)(nil)
)
