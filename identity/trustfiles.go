package identity

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/identity/internal/pemtext"
	"github.com/isthmus-mesh/isthmus/identity/internal/regular"
)

// trustFiles is what the files of a Trust held when they were last good. Its user calls read from one goroutine at a time.
type trustFiles struct {
	cfg   Trust
	roots map[spiffeid.TrustDomain]*x509bundle.Bundle
	lists *revocations
	sum   [sha256.Size]byte // of what lists was made from

	missing error   // of lists that the file has no more, and that stay in force
	by      *belief // what was believed when that was found
}

// read reads all files and puts together whom to believe along with m. What is wrong with a file is an error, beside a belief with
// what it held before; stale is a list that is kept although it has expired.
func (f *trustFiles) read(m *Material, now time.Time) (b *belief, stale, err error) {
	byName := func(a, b spiffeid.TrustDomain) int { return strings.Compare(a.Name(), b.Name()) }
	for _, td := range slices.SortedFunc(maps.Keys(f.cfg.Federated), byName) {
		roots, readErr := readRoots(td, f.cfg.Federated[td])
		if readErr != nil {
			err = errors.Join(err, fmt.Errorf("identity: roots of trust domain %s: %w", td, readErr))
			continue
		}
		if f.roots == nil {
			f.roots = map[spiffeid.TrustDomain]*x509bundle.Bundle{}
		}
		f.roots[td] = roots
	}
	b = f.cfg.believe(m.SVID.ID.TrustDomain(), m.Bundles, f.roots)
	if f.cfg.CRLFile == "" {
		return b, nil, err
	}
	if listErr := f.readLists(m, b, now); listErr != nil {
		err = errors.Join(err, fmt.Errorf("identity: revocation lists in %s: %w", f.cfg.CRLFile, listErr))
	}
	b.lists = f.lists
	if stale = f.lists.stale(now); stale != nil {
		stale = fmt.Errorf("identity: revocation lists in %s: %w", f.cfg.CRLFile, stale)
	}
	return b, stale, err
}

// readLists takes what the file of lists holds now, if it is good.
func (f *trustFiles) readLists(m *Material, b *belief, now time.Time) error {
	text, err := regular.Read(f.cfg.CRLFile, maxCRLFile)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(text)
	if f.lists != nil && sum == f.sum && (f.missing == nil || b.trusts(f.by)) {
		return f.missing
	}
	lists, beside, err := parseCRLs(text)
	if err != nil {
		return err
	}
	next, err := b.verify(lists, append(beside, m.SVID.Certificates...), now)
	if err != nil {
		return err
	}
	if err := next.older(f.lists); err != nil {
		return err
	}
	f.missing, f.by = nil, b
	if lost := b.lost(f.lists, next, now); len(lost) > 0 { // a file that was cut off between two lists must let nobody in
		next = &revocations{lists: append(next.lists, lost...), count: next.count}
		for _, l := range lost {
			next.count += len(l.at)
			f.missing = errors.Join(f.missing, fmt.Errorf("the list of %s, who is trusted, is no more in it; that of %s stays in force",
				l.issuer.Subject, l.begin.UTC().Format(time.RFC3339)))
		}
	}
	f.lists, f.sum = next, sum
	return f.missing
}

// maxRootsFile is how many bytes a file of roots may have; hundreds fit in.
const maxRootsFile = 4 << 20

// readRoots reads PEM certificates; other blocks are left out.
func readRoots(td spiffeid.TrustDomain, path string) (*x509bundle.Bundle, error) {
	text, err := regular.Read(path, maxRootsFile)
	if err != nil {
		return nil, err
	}
	certs, err := pemtext.Certificates(text, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return x509bundle.FromX509Authorities(td, certs), nil
}
