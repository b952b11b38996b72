package identity_test

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
)

var (
	old  = spiffeid.RequireTrustDomainFromString("old.example")
	west = spiffeid.RequireTrustDomainFromString("west.example")
)

func domains(list ...spiffeid.TrustDomain) []spiffeid.TrustDomain { return list }

// write puts data into a file of its own, or in place of the file at path.
func write(t *testing.T, path string, data []byte) string {
	t.Helper()
	if path == "" {
		path = filepath.Join(t.TempDir(), "file")
	}
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil { // a reader sees the one or the other
		t.Fatal(err)
	}
	return path
}

// Who vouches for whom, and who is the same.
func TestTrust(t *testing.T) {
	ours, theirs, more := identitytest.NewCA(td), identitytest.NewCA(other), identitytest.NewCA(west)
	names := map[*identitytest.CA]string{ours: "ours", theirs: "theirs", more: "more"}
	in := func(d spiffeid.TrustDomain) spiffeid.ID { return spiffeid.RequireFromPath(d, "/ns/shop/sa/orders") }
	type want map[spiffeid.TrustDomain]string // the authorities that vouch for a domain; absent: nobody
	for name, c := range map[string]struct {
		trust   identity.Trust
		brought []*identitytest.CA // beside ours
		files   map[spiffeid.TrustDomain]*identitytest.CA
		want    want
		same    [][2]spiffeid.TrustDomain // of those, the same path is the same identity
	}{
		"nothing but the authority": {want: want{td: "ours"}},
		"what the authority brings": {brought: []*identitytest.CA{theirs}, want: want{td: "ours", other: "theirs"}},
		"an alias of our own domain": {
			trust: identity.Trust{Aliases: [][]spiffeid.TrustDomain{domains(td, old)}},
			want:  want{td: "ours", old: "ours"}, same: [][2]spiffeid.TrustDomain{{td, old}},
		},
		"an alias with roots of its own": {
			trust: identity.Trust{Aliases: [][]spiffeid.TrustDomain{domains(other, td)}}, brought: []*identitytest.CA{theirs},
			want: want{td: "ours theirs", other: "ours theirs"}, same: [][2]spiffeid.TrustDomain{{td, other}},
		},
		"aliases of a foreign domain": {
			trust: identity.Trust{Aliases: [][]spiffeid.TrustDomain{domains(other, old)}}, brought: []*identitytest.CA{theirs},
			want: want{td: "ours", other: "theirs", old: "theirs"}, same: [][2]spiffeid.TrustDomain{{other, old}},
		},
		"two sets of aliases": {
			trust:   identity.Trust{Aliases: [][]spiffeid.TrustDomain{domains(td, old), domains(other, west)}},
			brought: []*identitytest.CA{theirs},
			want:    want{td: "ours", old: "ours", other: "theirs", west: "theirs"},
			same:    [][2]spiffeid.TrustDomain{{td, old}, {other, west}},
		},
		"aliases of whom nobody vouches for": {
			trust: identity.Trust{Aliases: [][]spiffeid.TrustDomain{domains(other, old)}},
			want:  want{td: "ours"}, same: [][2]spiffeid.TrustDomain{{other, old}},
		},
		"an additional domain": {
			trust: identity.Trust{Additional: domains(west)}, want: want{td: "ours", west: "ours"},
		},
		"an additional domain with roots of its own": {
			trust: identity.Trust{Additional: domains(west)}, brought: []*identitytest.CA{more},
			want: want{td: "ours", west: "more ours"},
		},
		"an additional domain that has an alias": {
			trust: identity.Trust{Aliases: [][]spiffeid.TrustDomain{domains(west, old)}, Additional: domains(old)},
			want:  want{td: "ours", west: "ours", old: "ours"}, same: [][2]spiffeid.TrustDomain{{west, old}},
		},
		"two additional domains vouch not for each other": {
			trust: identity.Trust{Additional: domains(other, west)}, brought: []*identitytest.CA{theirs, more},
			want: want{td: "ours", other: "ours theirs", west: "more ours"},
		},
		"a file": {
			files: map[spiffeid.TrustDomain]*identitytest.CA{other: theirs}, want: want{td: "ours", other: "theirs"},
		},
		"a file beside what the authority brings": {
			files: map[spiffeid.TrustDomain]*identitytest.CA{other: more}, brought: []*identitytest.CA{theirs}, want: want{td: "ours", other: "more theirs"},
		},
		"a file for an alias": {
			trust: identity.Trust{Aliases: [][]spiffeid.TrustDomain{domains(td, old)}},
			files: map[spiffeid.TrustDomain]*identitytest.CA{old: theirs},
			want:  want{td: "ours theirs", old: "ours theirs"}, same: [][2]spiffeid.TrustDomain{{td, old}},
		},
		"a file for our own domain": {
			files: map[spiffeid.TrustDomain]*identitytest.CA{td: more}, want: want{td: "more ours"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := material(ours)
			for _, ca := range c.brought {
				m.Bundles.Add(ca.Bundle())
			}
			c.trust.Federated = map[spiffeid.TrustDomain]string{}
			for d, ca := range c.files {
				c.trust.Federated[d] = write(t, "", identitytest.PEM(ca.Root))
			}
			f := newScript()
			f.then(gives(m))
			s := start(t, f, identity.Config{Trust: c.trust})
			all := domains(td, other, old, west)
			for _, d := range all {
				b, err := s.GetX509BundleForTrustDomain(d)
				got := ""
				if err == nil {
					var list []string
					for _, ca := range []*identitytest.CA{more, ours, theirs} {
						if b.HasX509Authority(ca.Root) {
							list = append(list, names[ca])
						}
					}
					got = strings.Join(list, " ")
					if b.TrustDomain() != d || len(b.X509Authorities()) != len(list) {
						t.Errorf("%s: a bundle of %s with %d roots", d, b.TrustDomain(), len(b.X509Authorities()))
					}
				}
				if got != c.want[d] {
					t.Errorf("%s: got %q (%v), want %q", d, got, err, c.want[d])
				}
			}
			for _, a := range all {
				for _, b := range all {
					want := a == b
					for _, pair := range c.same {
						want = want || pair == [2]spiffeid.TrustDomain{a, b} || pair == [2]spiffeid.TrustDomain{b, a}
					}
					if got := s.SameID(in(a), in(b)); got != want {
						t.Errorf("%s is %s: %v", in(a), in(b), got)
					}
					if got := slices.Contains(s.Names(in(a)), in(b)); got != (want && a != b) {
						t.Errorf("%s is among the names of %s: %v", in(b), in(a), got)
					}
					if s.SameID(in(a), spiffeid.RequireFromPath(b, "/ns/shop/sa/cart")) {
						t.Errorf("orders of %s is cart of %s", a, b)
					}
				}
			}
			if st := s.Stats().Trust; st.Domains != len(c.want) || st.LastError != nil {
				t.Errorf("stats %+v", st)
			}
		})
	}
}

func TestTrustThatMakesNoSense(t *testing.T) {
	for want, trust := range map[string]identity.Trust{
		"names old.example twice":           {Aliases: [][]spiffeid.TrustDomain{domains(td, old), domains(old, other)}},
		"names cluster.local twice":         {Aliases: [][]spiffeid.TrustDomain{domains(td, td)}},
		"a trust domain without a name":     {Additional: domains(spiffeid.TrustDomain{})},
		"is 7, which is no policy":          {ExpiredCRL: 7},
		"roots of trust domain old.example": {Federated: map[spiffeid.TrustDomain]string{old: "/nowhere/at/all"}},
		"no PEM certificate":                {Federated: map[spiffeid.TrustDomain]string{old: write(t, "", []byte("rubbish"))}},
	} {
		f := newScript()
		_, err := identity.New(t.Context(), f, identity.Config{Trust: trust})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// A Config that changes afterwards changes nothing.
func TestTrustIsCopied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trust := identity.Trust{Aliases: [][]spiffeid.TrustDomain{domains(td, old)}, Additional: domains(west)}
		f := newScript()
		s := start(t, f, identity.Config{Trust: trust})
		trust.Aliases[0][1], trust.Additional[0] = other, other
		<-s.Changed() // the next certificate
		for _, d := range domains(old, west) {
			if _, err := s.GetX509BundleForTrustDomain(d); err != nil {
				t.Error(err)
			}
		}
		if _, err := s.GetX509BundleForTrustDomain(other); err == nil || !strings.Contains(err.Error(), "nobody vouches for trust domain other.example") {
			t.Errorf("got %v", err)
		}
	})
}

// A file of roots is followed: a new generation, and a question about open connections. What is wrong with it changes nothing and is told once.
func TestFederatedFileIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := identitytest.NewCA(other), identitytest.NewCA(other)
		path := write(t, "", identitytest.PEM(first.Root))
		told := &complaints{}
		var changes []identity.TrustStats
		f := newScript()
		s := start(t, f, identity.Config{
			Trust: identity.Trust{Federated: map[spiffeid.TrustDomain]string{other: path}},
			Trace: &identity.Trace{TrustFailed: told.add, TrustChanged: func(s identity.TrustStats) { changes = append(changes, s) }},
		})
		has := func(ca *identitytest.CA) bool {
			b, err := s.GetX509BundleForTrustDomain(other)
			return err == nil && b.HasX509Authority(ca.Root)
		}
		changed, recheck := s.Changed(), s.Rechecks()
		write(t, path, []byte("half a fil"))
		time.Sleep(time.Minute)
		synctest.Wait()
		if st, told := s.Stats().Trust, told.take(); !has(first) || len(told) != 1 || st.Failures != 1 || st.LastError == nil || !strings.Contains(st.LastError.Error(), path) {
			t.Errorf("told %v, stats %+v", told, st)
		}
		write(t, path, identitytest.PEM(first.Root, second.Root))
		<-changed
		<-recheck
		synctest.Wait()
		if st := s.Stats(); !has(first) || !has(second) || len(changes) != 1 || st.Generation != 2 || st.Trust.LastError != nil {
			t.Errorf("stats %+v, %d changes", st, len(changes))
		}
		changed = s.Changed()
		write(t, path, identitytest.PEM(second.Root))
		begin := time.Now()
		<-changed
		if took := time.Since(begin); has(first) || !has(second) || took > 5*time.Second {
			t.Errorf("after %v: %v %v", took, has(first), has(second))
		}
	})
}

// The trust domain of a peer may go away altogether.
func TestCheckPeerOfADomainThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		theirs := identitytest.NewCA(other)
		both := material(identitytest.NewCA(td))
		alone := &identity.Material{SVID: both.SVID, Bundles: x509bundle.NewSet(both.Bundles.Bundles()...)}
		both.Bundles.Add(theirs.Bundle())
		f := &notifying{newScript(), make(chan struct{}, 1)}
		f.then(gives(both))
		s := start(t, f, identity.Config{})
		peer := theirs.SVID(spiffeid.RequireFromPath(other, "/ns/shop/sa/orders")).Certificates
		if err := s.CheckPeer(peer); err != nil {
			t.Fatal(err)
		}
		recheck := s.Rechecks()
		f.then(gives(alone))
		f.notify <- struct{}{}
		<-recheck
		if err := s.CheckPeer(peer); err == nil || !strings.Contains(err.Error(), "nobody vouches for trust domain other.example") {
			t.Errorf("got %v", err)
		}
		for name, chain := range map[string][]*x509.Certificate{"nobody": nil, "an authority": {theirs.Root}, "who has no name": theirs.SVID(me, identitytest.NoURI).Certificates} {
			if err := s.CheckPeer(chain); err == nil {
				t.Errorf("%s passes", name)
			}
		}
	})
}
