package identity_test

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
)

var orders = spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/orders")

func endsIn(d time.Duration) identitytest.CRLOption {
	return func(l *x509.RevocationList) { l.NextUpdate = l.ThisUpdate.Add(d) }
}

func beginsIn(d time.Duration) identitytest.CRLOption {
	return func(l *x509.RevocationList) { l.ThisUpdate = l.ThisUpdate.Add(d) }
}

// critical makes a list of a kind that says less than it seems to.
func critical(l *x509.RevocationList) {
	delta := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 1}}
	l.ExtraExtensions = append(l.ExtraExtensions, delta)
}

// criticalEntry makes a list that speaks about what others have issued.
func criticalEntry(l *x509.RevocationList) {
	by := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 29}, Critical: true, Value: []byte{0x30, 0}}
	l.RevokedCertificateEntries[0].ExtraExtensions = append(l.RevokedCertificateEntries[0].ExtraExtensions, by)
}

// A list that cannot be believed, or read, keeps a Source from starting; one that can is in force from the start.
func TestCRLAtTheStart(t *testing.T) {
	ca := identitytest.NewCA(td)
	between, stranger := ca.Intermediate(), identitytest.NewCA(td)
	betweenCert, _ := between.Issuer()
	bad := ca.SVID(orders).Certificates
	badBetween := between.SVID(orders).Certificates
	list := ca.CRL(bad[:1])
	pem := func(ders ...[]byte) []byte {
		var out []byte
		for _, der := range ders {
			out = append(out, identitytest.CRLPEM(der)...)
		}
		return out
	}
	for name, c := range map[string]struct {
		text    []byte
		own     *identitytest.CA // issuer of our own certificate; nil: ca
		expired identity.ExpiredCRL
		refused string
		revoked [][]*x509.Certificate
		lists   int
	}{
		"PEM":                          {text: pem(list), revoked: [][]*x509.Certificate{bad}, lists: 1},
		"DER":                          {text: list, revoked: [][]*x509.Certificate{bad}, lists: 1},
		"nobody is revoked":            {text: ca.CRL(nil), lists: 1},
		"of an intermediate of ours":   {text: pem(between.CRL(badBetween[:1])), own: between, revoked: [][]*x509.Certificate{badBetween}, lists: 1},
		"of an intermediate beside it": {text: append(identitytest.PEM(betweenCert...), pem(between.CRL(badBetween[:1]))...), revoked: [][]*x509.Certificate{badBetween}, lists: 1},
		"of both":                      {text: pem(list, between.CRL(badBetween[:1])), own: between, revoked: [][]*x509.Certificate{bad, badBetween}, lists: 2},
		"an authority is revoked":      {text: pem(ca.CRL(betweenCert)), revoked: [][]*x509.Certificate{badBetween}, lists: 1},
		"two of one issuer":            {text: pem(list, ca.CRL(nil, beginsIn(-time.Hour))), revoked: [][]*x509.Certificate{bad}, lists: 1},
		"expired":                      {text: ca.CRL(bad[:1], beginsIn(-time.Hour), endsIn(time.Second)), revoked: [][]*x509.Certificate{bad}, lists: 1},

		"expired, and it matters":        {text: ca.CRL(nil, beginsIn(-2*time.Hour), endsIn(time.Hour)), expired: identity.ExpiredCRLRefuse, refused: "expired at"},
		"empty":                          {text: nil, refused: "neither PEM nor a DER list"},
		"a certificate":                  {text: identitytest.PEM(ca.Root), refused: "no PEM block X509 CRL"},
		"broken":                         {text: pem(list[:len(list)-3]), refused: "revocation lists in "},
		"of a stranger of the same name": {text: stranger.CRL(nil), refused: "does not hold"},
		"of an unknown intermediate":     {text: between.CRL(nil), refused: "nobody who is trusted here is called CN=cluster.local intermediate"},
		"of a stranger's intermediate":   {text: append(identitytest.PEM(first(stranger.Intermediate().Issuer())...), pem(list)...), revoked: [][]*x509.Certificate{bad}, lists: 1},
		"one good and one bad":           {text: pem(list, stranger.CRL(nil)), refused: "does not hold"},
		"a damaged one behind a good":    {text: append(pem(list), bytes.Replace(pem(ca.CRL(nil)), []byte("\n"), []byte("\n!"), 2)...), refused: "PEM block 2 is damaged"},
		"a damaged one before a good":    {text: append(bytes.Replace(pem(ca.CRL(nil)), []byte("\n"), []byte("\n!"), 2), pem(list)...), refused: "PEM block 1 is damaged"},
		"the second cut off":             {text: bytes.TrimSuffix(pem(list, ca.CRL(nil)), []byte("CRL-----\n")), refused: "PEM block 2 is damaged"},
		"the second indented":            {text: append(pem(list), bytes.ReplaceAll(pem(ca.CRL(nil)), []byte("-----B"), []byte("  -----B"))...), refused: "PEM block 2 is damaged"},
		"of an unknown kind":             {text: bytes.ReplaceAll(pem(list, ca.CRL(nil)), []byte("X509 CRL"), []byte("CRL")), refused: "PEM block \"CRL\""},
		"two DER lists":                  {text: append(ca.CRL(nil), list...), refused: "bytes follow on a list"},
		"a list and more in one block":   {text: pem(append(ca.CRL(nil), list...)), refused: "bytes follow on a list"},
		"a delta":                        {text: ca.CRL(nil, critical), refused: "critical extension 2.5.29.27"},
		"of other issuers":               {text: ca.CRL(bad[:1], criticalEntry), refused: "critical extension 2.5.29.29"},
		"of tomorrow":                    {text: ca.CRL(nil, beginsIn(time.Hour), endsIn(2*time.Hour)), refused: ": the clocks of this machine and of its issuer disagree"},
		"too large":                      {text: bytes.Repeat([]byte("x"), 33<<20), refused: "has more than"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newScript()
			f.then(gives(materialBy(ca, c.own)))
			s, err := identity.New(t.Context(), f, identity.Config{Trust: identity.Trust{CRLFile: write(t, "", c.text), ExpiredCRL: c.expired}})
			if c.refused != "" {
				if err == nil || !strings.Contains(err.Error(), c.refused) {
					t.Errorf("got %v, want %q", err, c.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			for _, chain := range c.revoked {
				if r, ok := errors.AsType[*identity.RevokedError](s.CheckPeer(chain)); !ok || r.At.IsZero() || r.Serial == nil {
					t.Errorf("a revoked chain passes: %v", r)
				}
			}
			if err := s.CheckPeer(ca.SVID(orders).Certificates); err != nil {
				t.Errorf("one that is not revoked: %v", err)
			}
			if st := s.Stats().Trust; st.Lists != c.lists || st.NextUpdate.IsZero() {
				t.Errorf("stats %+v", st)
			}
		})
	}
	f := newScript()
	_, err := identity.New(t.Context(), f, identity.Config{Trust: identity.Trust{CRLFile: "/nowhere/at/all"}})
	if err == nil || !strings.Contains(err.Error(), "/nowhere/at/all: no such file") {
		t.Errorf("got %v", err)
	}
}

func first(certs []*x509.Certificate, _ any) []*x509.Certificate { return certs }

// materialBy is a certificate that issuer, or root where that is nil, has issued.
func materialBy(root, issuer *identitytest.CA) *identity.Material {
	m := material(root)
	if issuer != nil {
		m.SVID = issuer.SVID(me)
	}
	return m
}

// The error says who it is, and by whom, and since when.
func TestRevokedErrors(t *testing.T) {
	ca := identitytest.NewCA(td)
	between := ca.Intermediate()
	certs, _ := between.Issuer()
	leaf := ca.SVID(orders).Certificates
	f := newScript()
	f.then(gives(material(ca)))
	s := start(t, f, identity.Config{Trust: identity.Trust{CRLFile: write(t, "", ca.CRL([]*x509.Certificate{leaf[0], certs[0]}))}})
	for want, chain := range map[string][]*x509.Certificate{
		"the certificate of spiffe://cluster.local/ns/shop/sa/orders (serial ": leaf,
		"the certificate of authority CN=cluster.local intermediate (serial ":  between.SVID(orders).Certificates,
	} {
		err := s.CheckPeer(chain)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "was revoked by CN=cluster.local root at 2") {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// Another authority of the same name has revoked the same number: that is no news about our peer.
func TestRevokedNumberOfANamesake(t *testing.T) {
	ca, namesake := identitytest.NewCA(td), identitytest.NewCA(td)
	peer := ca.SVID(orders).Certificates
	m := material(ca)
	bundle := ca.Bundle()
	bundle.AddX509Authority(namesake.Root)
	m.Bundles.Add(bundle)
	f := newScript()
	f.then(gives(m))
	s := start(t, f, identity.Config{Trust: identity.Trust{CRLFile: write(t, "", namesake.CRL(peer[:1]))}})
	if err := s.CheckPeer(peer); err != nil {
		t.Error(err)
	}
}

// The file is followed: what is good is in force within the interval and tells who must look again; what is not good changes nothing, and is told once.
func TestCRLIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := identitytest.NewCA(td)
		one, two := ca.SVID(orders).Certificates, ca.SVID(orders).Certificates
		path := write(t, "", ca.CRL(nil))
		older := ca.CRL(nil, beginsIn(-time.Minute))
		told := &complaints{}
		f := newScript()
		f.then(gives(material(ca)))
		s := start(t, f, identity.Config{
			Trust: identity.Trust{CRLFile: path, Interval: 3 * time.Second},
			Trace: &identity.Trace{TrustFailed: told.add},
		})
		revoked := func(chain []*x509.Certificate) bool {
			_, ok := errors.AsType[*identity.RevokedError](s.CheckPeer(chain))
			return ok
		}
		recheck, changed := s.Rechecks(), s.Changed()
		time.Sleep(time.Minute) // nothing happens
		select {
		case <-recheck:
			t.Error("the same list is news")
		default:
		}
		write(t, path, identitytest.CRLPEM(ca.CRL(one[:1])))
		begin := time.Now()
		<-recheck
		if took := time.Since(begin); took > 3*time.Second || !revoked(one) || revoked(two) {
			t.Errorf("after %v: %v, %v", took, revoked(one), revoked(two))
		}
		for want, text := range map[string][]byte{
			"neither PEM nor":    []byte("half"),
			"does not hold":      identitytest.NewCA(td).CRL(nil),
			"older than the one": older,
			"block 1 is damaged": append(bytes.Replace(identitytest.CRLPEM(ca.CRL(one[:1])), []byte("\n"), []byte("\n!"), 2), identitytest.CRLPEM(ca.CRL(nil))...),
		} {
			write(t, path, text)
			time.Sleep(20 * time.Second)
			if said := told.take(); len(said) != 1 || !strings.Contains(said[0].Error(), want) || !revoked(one) {
				t.Errorf("told %v, want %q; still revoked: %v", said, want, revoked(one))
			}
			if st := s.Stats(); st.Trust.LastError == nil || st.LastError != nil || st.Trust.Revoked != 1 {
				t.Errorf("stats %+v", st)
			}
		}
		select {
		case <-changed:
			t.Error("a list is no new generation")
		default:
		}
		write(t, path, ca.CRL(two[:1]))
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if st := s.Stats().Trust; revoked(one) || !revoked(two) || st.LastError != nil || st.Failures != 4 {
			t.Errorf("stats %+v", st)
		}
	})
}

// A list that nobody renews stays in force, and the alarm is raised once; or nobody of that issuer is believed any more.
func TestCRLExpires(t *testing.T) {
	for name, policy := range map[string]identity.ExpiredCRL{"keep": identity.ExpiredCRLKeep, "refuse": identity.ExpiredCRLRefuse} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca, theirs := identitytest.NewCA(td), identitytest.NewCA(other)
				bad, good := ca.SVID(orders).Certificates, ca.SVID(orders).Certificates
				foreign := theirs.SVID(spiffeid.RequireFromPath(other, "/ns/shop/sa/orders")).Certificates
				m := material(ca)
				m.Bundles.Add(theirs.Bundle())
				path := write(t, "", ca.CRL(bad[:1], endsIn(time.Minute)))
				told := &complaints{}
				f := newScript()
				f.then(gives(m))
				s := start(t, f, identity.Config{
					Trust: identity.Trust{CRLFile: path, ExpiredCRL: policy},
					Trace: &identity.Trace{TrustFailed: told.add},
				})
				if said, err := told.take(), s.CheckPeer(good); err != nil || len(said) > 0 {
					t.Errorf("before its end: %v, told %v", err, said)
				}
				time.Sleep(2 * time.Minute)
				if said := told.take(); len(said) != 1 || !strings.Contains(said[0].Error(), "nobody writes a new one") || s.Stats().Trust.LastError == nil {
					t.Errorf("told %v", said)
				}
				if _, ok := errors.AsType[*identity.RevokedError](s.CheckPeer(bad)); !ok {
					t.Error("what it revokes is believed")
				}
				err := s.CheckPeer(good)
				if refused := err != nil && strings.Contains(err.Error(), "Trust.ExpiredCRL"); refused != (policy == identity.ExpiredCRLRefuse) {
					t.Errorf("after its end: %v", err)
				}
				if err := s.CheckPeer(foreign); err != nil {
					t.Errorf("of whom the list does not speak: %v", err)
				}
				write(t, path, ca.CRL(bad[:1]))
				time.Sleep(6 * time.Second)
				if err := s.CheckPeer(good); err != nil || s.Stats().Trust.LastError != nil {
					t.Errorf("with a new list: %v, %+v", err, s.Stats().Trust)
				}
			})
		})
	}
}

// We are told that peers will refuse us.
func TestOurOwnCertificateIsRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := identitytest.NewCA(td)
		m := material(ca)
		path := write(t, "", ca.CRL(nil))
		f := newScript()
		f.then(gives(m))
		s := start(t, f, identity.Config{Trust: identity.Trust{CRLFile: path}})
		write(t, path, ca.CRL(m.SVID.Certificates[:1]))
		time.Sleep(6 * time.Second)
		if err := s.Stats().Trust.LastError; err == nil || !strings.Contains(err.Error(), "our own identity") || !strings.Contains(err.Error(), me.String()) {
			t.Errorf("got %v", err)
		}
		if _, err := s.GetX509SVID(); err != nil {
			t.Error(err)
		}
	})
}

// A file that was cut off between two lists lets nobody in; when the authority of the second is trusted no more, its list is not needed either.
func TestAListThatIsNoMoreInTheFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, old := identitytest.NewCA(td), identitytest.NewCA(td)
		bad, later := old.SVID(orders).Certificates, ca.SVID(orders).Certificates
		both, alone := material(ca), material(ca)
		bundle := ca.Bundle()
		bundle.AddX509Authority(old.Root)
		both.Bundles.Add(bundle)
		path := write(t, "", append(identitytest.CRLPEM(ca.CRL(nil)), identitytest.CRLPEM(old.CRL(bad[:1]))...))
		told := &complaints{}
		f := &notifying{newScript(), make(chan struct{}, 1)}
		f.then(gives(both))
		s := start(t, f, identity.Config{Trust: identity.Trust{CRLFile: path}, Trace: &identity.Trace{TrustFailed: told.add}})
		revoked := func(chain []*x509.Certificate) bool {
			_, ok := errors.AsType[*identity.RevokedError](s.CheckPeer(chain))
			return ok
		}
		write(t, path, identitytest.CRLPEM(ca.CRL(later[:1])))
		time.Sleep(time.Minute)
		if said := told.take(); len(said) != 1 || !strings.Contains(said[0].Error(), "is no more in it") || s.Stats().Trust.LastError == nil {
			t.Errorf("told %v, %+v", said, s.Stats().Trust)
		}
		if st := s.Stats().Trust; !revoked(bad) || !revoked(later) || st.Lists != 2 || st.Revoked != 2 {
			t.Errorf("%v, %v, %+v", revoked(bad), revoked(later), st)
		}
		f.then(gives(alone))
		f.notify <- struct{}{}
		time.Sleep(time.Minute)
		if st := s.Stats().Trust; !revoked(later) || st.Lists != 1 || st.LastError != nil {
			t.Errorf("%+v", st)
		}
	})
}

// A list of a new authority comes before its root: it is taken when the root is there.
func TestCRLBeforeItsRoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, next := identitytest.NewCA(td), identitytest.NewCA(td)
		path := write(t, "", ca.CRL(nil))
		m := material(ca)
		f := &notifying{newScript(), make(chan struct{}, 1)}
		f.then(gives(m))
		s := start(t, f, identity.Config{Trust: identity.Trust{CRLFile: path}})
		bad := next.SVID(orders).Certificates
		write(t, path, append(identitytest.CRLPEM(ca.CRL(nil)), identitytest.CRLPEM(next.CRL(bad[:1]))...))
		time.Sleep(6 * time.Second)
		if s.Stats().Trust.LastError == nil {
			t.Fatal("a list that nobody vouches for is taken")
		}
		both := ca.Bundle()
		both.AddX509Authority(next.Root)
		more := material(ca)
		more.Bundles.Add(both)
		f.then(gives(more))
		f.notify <- struct{}{}
		synctest.Wait()
		if _, ok := errors.AsType[*identity.RevokedError](s.CheckPeer(bad)); !ok || s.Stats().Trust.LastError != nil {
			t.Errorf("stats %+v", s.Stats().Trust)
		}
	})
}
