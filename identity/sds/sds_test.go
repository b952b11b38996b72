package sds_test

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/isthmus-mesh/isthmus/identity/internal/sourcetest"
	"github.com/isthmus-mesh/isthmus/identity/sds"
)

// As Istio's agent does it: one certificate, one set of roots; what comes is acknowledged.
func TestCertificateAndRoots(t *testing.T) {
	a := newAgent(t)
	s := a.begin(func(c *sds.Config) { c.Socket = "unix://" + a.socket; c.ID = me })
	svid, err := s.GetX509SVID()
	if err != nil || svid.ID != me {
		t.Fatalf("got %v, %v", svid, err)
	}
	if id, _, err := x509svid.Verify(svid.Certificates, s); err != nil || id != me {
		t.Errorf("verify: %v, %v", id, err)
	}
	for _, name := range []string{"default", "ROOTCA"} {
		sourcetest.Until(t, s, "the acknowledgement of "+name, func() bool {
			said := a.said(name)
			return len(said) == 2 && said[0].GetVersionInfo() == "" && said[1].GetVersionInfo() == "1" && said[1].GetResponseNonce() == "n1" && said[1].GetErrorDetail() == nil
		})
	}
	changed := s.Changed()
	next := a.ca.Intermediate().SVID(me)
	a.change(func() { a.secrets["default"] = certificate("default", next) })
	<-changed
	if svid, err := s.GetX509SVID(); err != nil || !svid.Certificates[0].Equal(next.Certificates[0]) || len(svid.Certificates) != 2 {
		t.Errorf("the next certificate: %v, %v", svid, err)
	}
}

// As SPIRE's agent does it for who asks for ALL: roots by domain, and a certificate by its name.
func TestRootsByDomain(t *testing.T) {
	a := newAgent(t)
	theirs := identitytest.NewCA(other)
	a.change(func() {
		a.secrets[me.String()] = certificate(me.String(), a.ca.SVID(me))
		a.secrets["ALL"] = validator("ALL", map[spiffeid.TrustDomain]*x509.Certificate{td: a.ca.Root, other: theirs.Root})
	})
	s := a.begin(func(c *sds.Config) { c.Name, c.Roots, c.Node = me.String(), "ALL", "edge" })
	if b, err := s.GetX509BundleForTrustDomain(other); err != nil || !b.HasX509Authority(theirs.Root) {
		t.Errorf("got %v, %v", b, err)
	}
	if v := a.said("ALL")[0].GetNode(); v.GetId() != "edge" || v.GetUserAgentBuildVersion().GetVersion().GetMinorNumber() < 18 {
		t.Errorf("we called ourselves %v", v)
	}
	changed := s.Changed()
	a.change(func() {
		a.secrets["ALL"] = validator("ALL", map[spiffeid.TrustDomain]*x509.Certificate{td: a.ca.Root})
	})
	<-changed
	if _, err := s.GetX509BundleForTrustDomain(other); err == nil {
		t.Error("a domain that is federated no more is trusted")
	}
}

// The root is replaced: the certificate may come before the root that it leads to. Until both are there the old pair is shown.
func TestCertificateBeforeItsRoot(t *testing.T) {
	a := newAgent(t)
	s := a.begin(nil)
	first, err := s.GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	ca := identitytest.NewCA(td)
	next := ca.SVID(me)
	a.change(func() { a.secrets["default"] = certificate("default", next) })
	sourcetest.Until(t, s, "an error", func() bool {
		err := s.Stats().LastError
		return err != nil && strings.Contains(err.Error(), "does not lead to the roots")
	})
	if svid, err := s.GetX509SVID(); err != nil || svid != first {
		t.Errorf("got %v, %v", svid, err)
	}
	a.change(func() { a.secrets["ROOTCA"] = trusted("ROOTCA", a.ca.Root, ca.Root) })
	sourcetest.Until(t, s, "the next certificate", func() bool {
		svid, err := s.GetX509SVID()
		return err == nil && svid.Certificates[0].Equal(next.Certificates[0])
	})
	if b, err := s.GetX509BundleForTrustDomain(td); err != nil || len(b.X509Authorities()) != 2 || s.Stats().LastError != nil {
		t.Errorf("got %v, %v, %+v", b, err, s.Stats())
	}
}

// What is not a secret of the kind is refused, the agent is told why, and the old one stays.
func TestBadSecrets(t *testing.T) {
	a := newAgent(t)
	svid := a.ca.SVID(me)
	good := certificate("default", svid)
	chain, key := identitytest.PEM(svid.Certificates...), identitytest.KeyPEM(svid.PrivateKey)
	tls := func(m msg) msg { return msg{}.put(1, []byte("default")).put(2, m) }
	s := a.begin(func(c *sds.Config) { c.ID = me })
	first, err := s.GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		secret string
		bad    msg
		want   string
	}{
		"no message":           {"default", msg("\xff\xff"), "sds: secret default"},
		"another name":         {"default", certificate("other", svid), `it is called "other"`},
		"a validation context": {"default", trusted("default", a.ca.Root), "it is no TLS certificate"},
		"a file":               {"default", tls(msg{}.put(1, msg{}.put(1, []byte("/etc/passwd"))).put(2, inline(key))), "chain: the secret is elsewhere"},
		"a key elsewhere":      {"default", tls(msg{}.put(1, inline(chain)).put(6, []byte{})), "private key provider"},
		"no key":               {"default", tls(msg{}.put(1, inline(chain))), "there is no PEM key"},
		"no chain":             {"default", tls(msg{}.put(2, inline(key))), "there is no PEM certificate"},
		"another key":          {"default", tls(msg{}.put(1, inline(chain)).put(2, inline(identitytest.KeyPEM(a.ca.SVID(me).PrivateKey)))), "do not belong together"},
		"no identity":          {"default", certificate("default", a.ca.SVID(me, identitytest.NoURI)), "URI SAN"},
		"somebody else":        {"default", certificate("default", a.ca.SVID(he)), "see Config.ID"},
		"a certificate":        {"ROOTCA", certificate("ROOTCA", svid), "it is no validation context"},
		"no roots":             {"ROOTCA", msg{}.put(1, []byte("ROOTCA")).put(4, msg{}.put(1, inline(nil))), "trusted CA: there is no PEM certificate"},
		"nothing to trust":     {"ROOTCA", msg{}.put(1, []byte("ROOTCA")).put(4, nil), "it has no roots"},
		"another validator": {"ROOTCA", msg{}.put(1, []byte("ROOTCA")).put(4, msg{}.put(12, msg{}.put(2, msg{}.put(1, []byte("type.googleapis.com/odd"))))),
			"only the one for SPIFFE is known"},
		"a bad domain": {"ROOTCA", validator("ROOTCA", map[spiffeid.TrustDomain]*x509.Certificate{{}: a.ca.Root}), "validator: "},
	} {
		t.Run(name, func(t *testing.T) {
			before := a.secrets[c.secret]
			asked := len(a.said(c.secret))
			a.change(func() { a.secrets[c.secret] = c.bad })
			sourcetest.Until(t, s, "an error", func() bool {
				err := s.Stats().LastError
				return err != nil && strings.Contains(err.Error(), c.want)
			})
			sourcetest.Until(t, s, "a refusal", func() bool {
				said := a.said(c.secret)
				return len(said) > asked && said[len(said)-1].GetErrorDetail() != nil && said[len(said)-1].GetVersionInfo() != ""
			})
			if svid, err := s.GetX509SVID(); err != nil || svid != first {
				t.Errorf("got %v, %v", svid, err)
			}
			a.change(func() { a.secrets[c.secret] = before })
			sourcetest.Until(t, s, "good again", func() bool { return s.Stats().LastError == nil })
		})
	}
	changed := s.Changed()
	a.change(func() { a.secrets["default"] = good })
	<-changed
}

// An agent that goes away is missed and found again; the certificate is shown meanwhile.
func TestTheAgentRestarts(t *testing.T) {
	for name, end := range map[string]error{"away": nil, "cancelled": status.Error(codes.Canceled, "stopping")} {
		t.Run(name, func(t *testing.T) {
			a := newAgent(t)
			s := a.begin(nil)
			if end == nil {
				a.stop()
			} else {
				a.change(func() { a.end = end })
			}
			sourcetest.Until(t, s, "an error", func() bool { return s.Stats().LastError != nil })
			if _, err := s.GetX509SVID(); err != nil {
				t.Error(err)
			}
			next := a.ca.SVID(me)
			a.change(func() { a.secrets["default"], a.end = certificate("default", next), nil })
			if end == nil {
				a.start()
			}
			begin := time.Now()
			sourcetest.Until(t, s, "the next certificate", func() bool {
				svid, err := s.GetX509SVID()
				return err == nil && svid.Certificates[0].Equal(next.Certificates[0]) && s.Stats().LastError == nil
			})
			t.Logf("found again after %v", time.Since(begin).Round(time.Millisecond))
		})
	}
}

// New says why there is nothing.
func TestNothingYet(t *testing.T) {
	a := newAgent(t)
	for want, cfg := range map[string]sds.Config{
		"is it running, and is its socket mounted here?": {Socket: a.socket + ".not"},
		"has no secret nobody for this process":          {Socket: a.socket, Name: "nobody"},
		"has no secret ALL for this process":             {Socket: a.socket, Roots: "ALL"},
		"certificate and roots have one name":            {Socket: a.socket, Name: "ROOTCA"},
		"it must be an absolute path":                    {Socket: "socket"},
		"see Config.ID":                                  {Socket: a.socket, ID: he},
	} {
		if err := a.refused(cfg); !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// What Config says of trust and trace reaches the Source.
func TestTrustAndTraceArePassedOn(t *testing.T) {
	a := newAgent(t)
	var renewed []identity.TraceRenewal
	s := a.begin(func(c *sds.Config) {
		c.Trust.Additional = []spiffeid.TrustDomain{other}
		c.Trace = &identity.Trace{Renewed: func(r identity.TraceRenewal) { renewed = append(renewed, r) }}
	})
	if _, err := s.GetX509BundleForTrustDomain(other); err != nil || len(renewed) != 1 || renewed[0].ID != me {
		t.Errorf("got %v, renewals %+v", err, renewed)
	}
}

// The roots of one trust domain vouch for nobody of another, whatever the agent brings and when, by domain or from a file; what makes no sense changes nothing.
func TestRootsVouchForTheirDomainAlone(t *testing.T) {
	t.Run("by domain", func(t *testing.T) {
		a := newAgent(t)
		theirs := identitytest.NewCA(other)
		bring := func(svid *x509svid.SVID, ours, theirs *x509.Certificate) {
			a.change(func() {
				a.secrets["default"] = certificate("default", svid)
				a.secrets["ALL"] = validator("ALL", map[spiffeid.TrustDomain]*x509.Certificate{td: ours, other: theirs})
			})
		}
		bring(a.ca.SVID(me), a.ca.Root, theirs.Root)
		var svid *x509svid.SVID
		var root *x509.Certificate
		var last *identitytest.CA
		s := sourcetest.Federated(t, a.ca, theirs, func() *identity.Source { return a.begin(func(c *sds.Config) { c.Roots = "ALL" }) }, func(ours, theirs *identitytest.CA) {
			svid, root, last = ours.SVID(me), ours.Root, theirs
			bring(svid, root, theirs.Root)
		})
		bring(svid, last.Root, root) // each under the other's name
		sourcetest.Until(t, s, "an error", func() bool {
			err := s.Stats().LastError
			return err != nil && strings.Contains(err.Error(), "does not lead to the roots")
		})
		if b, err := s.GetX509BundleForTrustDomain(other); err != nil || !b.Equal(last.Bundle()) {
			t.Errorf("roots that were mixed up are believed: %v, %v", b, err)
		}
	})
	t.Run("from a file", func(t *testing.T) {
		a := newAgent(t)
		theirs := identitytest.NewCA(other)
		path := filepath.Join(t.TempDir(), "other.pem")
		write := func(ca *identitytest.CA) {
			if err := os.WriteFile(path, identitytest.PEM(ca.Root), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write(theirs)
		sourcetest.Federated(t, a.ca, theirs, func() *identity.Source {
			return a.begin(func(c *sds.Config) {
				c.Trust = identity.Trust{Federated: map[spiffeid.TrustDomain]string{other: path}, Interval: 10 * time.Millisecond}
			})
		}, func(ours, theirs *identitytest.CA) {
			write(theirs)
			a.change(func() {
				a.secrets["default"], a.secrets["ROOTCA"] = certificate("default", ours.SVID(me)), trusted("ROOTCA", ours.Root)
			})
		})
	})
}
