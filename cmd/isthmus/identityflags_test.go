package main

import (
	"context"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/isthmus-mesh/isthmus/identity/identitytest/istiocatest"
)

func TestIdentitiesThatMakeNoSense(t *testing.T) {
	t.Setenv(socketVariable, "")
	for _, c := range []struct {
		name string
		args string
		want []string // in order; the last of them is the remedy
	}{
		{"a source that there is not", "--identity vault", []string{"--identity takes istiod, spire, sds, files", `"vault"`}},
		{"half of the files", "--cert x --key y", []string{"belong together", "--roots is missing"}},
		{"files without any", "--identity files", []string{"belong together", "--cert is missing"}},
		{"files, and a socket", "--cert x --key y --roots z --socket /s", []string{"--socket is for --identity spire or sds", "come from files", "add --identity spire"}},
		{"a socket alone", "--socket /s", []string{"--socket is for --identity spire or sds", "come from istiod", "add --identity spire"}},
		{"files for SPIRE", "--identity spire --socket /s --roots z", []string{"--roots is for --identity files", "come from spire", "leave it out"}},
		{"SPIRE without a socket", "--identity spire", []string{"needs --socket", socketVariable}},
		{"a socket that is no path", "--identity spire --socket agent.sock", []string{"--socket takes an absolute path", `"agent.sock"`}},
		{"a socket that is a name", "--identity spire --socket tcp://agent:80", []string{"tcp://ip:port", `"tcp://agent:80"`}},
		{"SDS over TCP", "--identity sds --socket tcp://10.0.0.1:80", []string{"--socket takes an absolute path", `"tcp://10.0.0.1:80"`}},
		{"no SPIFFE id", "--identity sds --spiffe-id gateway", []string{"--spiffe-id takes a SPIFFE id such as spiffe://", `"gateway"`}},
		{"a hint for SDS", "--identity sds --spire-hint edge", []string{"--spire-hint is for --identity spire", "come from sds"}},
		{"one secret for both", "--identity sds --sds-name ROOTCA", []string{"cannot both be", "the other whom to trust"}},
		{"SDS names for SPIRE", "--identity spire --socket /s --sds-name x", []string{"--sds-name is for --identity sds", "add --identity sds"}},
		{"an authority without port", "--ca istio-csr", []string{"--ca takes HOST:PORT", `"istio-csr"`}},
		{"an authority for SPIRE", "--identity spire --socket /s --ca a:1", []string{"--ca is for --identity istiod"}},
		{"a name of no authority", "--ca-name x", []string{"--ca-name needs --ca", "--istiod-name"}},
		{"to be nobody", "--impersonate", []string{"--impersonate needs --service-account"}},
		{"no life", "--cert-ttl 10ms", []string{"--cert-ttl takes a second or more"}},
		{"an alias of itself", "--trust-alias cluster.local", []string{"--trust-alias names cluster.local", "--trust-domain has named already"}},
		{"an alias twice", "--trust-alias a.example,a.example", []string{"--trust-alias names a.example", "name each trust domain once"}},
		{"an alias that is also another", "--trust-alias a.example --trust-additional a.example", []string{"--trust-additional names a.example", "--trust-alias has named already"}},
		{"an alias that is no domain", "--trust-alias A_B!", []string{"--trust-alias"}},
		{"a federated domain without roots", "--trust-federated a.example", []string{"--trust-federated takes DOMAIN=FILE", `"a.example"`}},
		{"federated twice", "--trust-federated a.example=x --trust-federated a.example=y", []string{"names a.example twice", "into one file"}},
		{"a policy for no list", "--crl-expired refuse", []string{"--crl-expired needs --crl"}},
		{"no policy", "--crl x --crl-expired maybe", []string{"--crl-expired takes keep or refuse", `"maybe"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, command := range []string{"dial a:1", "controller"} {
				r := isthmus(t, strings.Fields(command+" "+c.args)...)
				r.want(t, exitUsage, r.stderr, append(c.want, "isthmus "+strings.Fields(command)[0]+" --help")...)
			}
		})
	}
	t.Setenv(socketVariable, "agent.sock")
	r := isthmus(t, "dial", "a:1", "--identity", "spire")
	r.want(t, exitUsage, r.stderr, socketVariable+" takes an absolute path", `"agent.sock"`)
}

// believer is a dialer of cluster.local with an identity from files, and somebody who answers.
type believer struct {
	dir   string
	flags []string // but for --peer
	ours  *identitytest.CA
}

func newBeliever(t *testing.T, server func(ours *identitytest.CA) *identitytest.Source) *believer {
	t.Helper()
	b := &believer{dir: t.TempDir(), ours: identitytest.NewCA(account("a", "b").TrustDomain())}
	connect := func(context.Context, *hbone.ConnectRequest) (net.Conn, error) {
		near, far := net.Pipe()
		far.Close() // nothing to say
		return near, nil
	}
	srv := &hbone.Server{Identity: server(b.ours), Connect: connect}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	svid := b.ours.SVID(account("edge", "gateway"))
	b.flags = []string{
		"dial", "10.0.0.1:80", "-o", "json", "--timeout", "5s", "--via", l.Addr().String(),
		"--cert", b.write(t, "chain.pem", identitytest.PEM(svid.Certificates...)),
		"--key", b.write(t, "key.pem", identitytest.KeyPEM(svid.PrivateKey)),
		"--roots", b.write(t, "roots.pem", identitytest.PEM(b.ours.Root)),
	}
	return b
}

func (b *believer) write(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(b.dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (b *believer) dial(t *testing.T, peer string, more ...string) result {
	t.Helper()
	return isthmus(t, append(append(b.flags, "--peer", peer), more...)...)
}

func TestTrustOfTheCommandLine(t *testing.T) {
	const expected = "spiffe://cluster.local/ns/shop/sa/orders"
	in := func(td string) spiffeid.ID {
		return spiffeid.RequireFromPath(spiffeid.RequireTrustDomainFromString(td), "/ns/shop/sa/orders")
	}
	t.Run("an alias", func(t *testing.T) {
		b := newBeliever(t, func(ours *identitytest.CA) *identitytest.Source { return ours.Source(in("old.example"), ours) })
		r := b.dial(t, expected)
		r.want(t, exitFailed, r.stderr, "old.example")
		b.dial(t, expected, "--trust-alias", "old.example").want(t, exitOK, "")
		r = b.dial(t, expected, "--trust-domain", "other.example", "--trust-alias", "old.example")
		r.want(t, exitFailed, r.stderr, "--trust-alias is about trust domain other.example", "add --trust-domain cluster.local")
	})
	t.Run("an additional domain", func(t *testing.T) {
		b := newBeliever(t, func(ours *identitytest.CA) *identitytest.Source { return ours.Source(in("east.example"), ours) })
		r := b.dial(t, in("east.example").String())
		r.want(t, exitFailed, r.stderr, "nobody vouches for trust domain east.example")
		b.dial(t, in("east.example").String(), "--trust-additional", "east.example").want(t, exitOK, "")
		r = b.dial(t, expected, "--trust-additional", "east.example") // it is not ours
		r.want(t, exitFailed, r.stderr, "it is spiffe://east.example/ns/shop/sa/orders")
	})
	t.Run("a federated domain", func(t *testing.T) {
		theirs := identitytest.NewCA(spiffeid.RequireTrustDomainFromString("partner.example"))
		b := newBeliever(t, func(ours *identitytest.CA) *identitytest.Source { return theirs.Source(in("partner.example"), ours) })
		peer, roots := in("partner.example").String(), b.write(t, "partner.pem", identitytest.PEM(theirs.Root))
		r := b.dial(t, peer)
		r.want(t, exitFailed, r.stderr, "nobody vouches for trust domain partner.example")
		b.dial(t, peer, "--trust-federated", "partner.example="+roots).want(t, exitOK, "")
		r = b.dial(t, peer, "--trust-federated", "partner.example=/nonexistent/roots.pem")
		r.want(t, exitFailed, r.stderr, "roots of a federated trust domain", `"where": "/nonexistent/roots.pem"`, "no such file", "correct --trust-federated")
	})
	t.Run("revoked", func(t *testing.T) {
		var server *identitytest.Source
		b := newBeliever(t, func(ours *identitytest.CA) *identitytest.Source {
			server = ours.Source(in("cluster.local"))
			return server
		})
		svid, err := server.GetX509SVID()
		if err != nil {
			t.Fatal(err)
		}
		past := func(l *x509.RevocationList) {
			l.ThisUpdate, l.NextUpdate = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		}
		nobody := b.write(t, "nobody.crl", b.ours.CRL(nil))
		it := b.write(t, "it.crl", b.ours.CRL(svid.Certificates[:1]))
		overdue := b.write(t, "overdue.crl", identitytest.CRLPEM(b.ours.CRL(nil, past)))
		b.dial(t, expected, "--crl", nobody).want(t, exitOK, "")
		r := b.dial(t, expected, "--crl", it)
		r.want(t, exitFailed, r.stderr, "revoked")
		b.dial(t, expected, "--crl", overdue).want(t, exitOK, "")
		for name, args := range map[string][]string{
			"overdue":       {overdue, "--crl-expired", "refuse"},
			"missing":       {"/nonexistent/crl.pem"},
			"somebody's":    {b.write(t, "foreign.crl", identitytest.NewCA(account("a", "b").TrustDomain()).CRL(nil))},
			"not even one":  {b.write(t, "text", []byte("hello"))},
			"a certificate": {filepath.Join(b.dir, "roots.pem")},
		} {
			t.Run(name, func(t *testing.T) {
				r := b.dial(t, expected, append([]string{"--crl"}, args...)...)
				r.want(t, exitFailed, r.stderr, "lists of revoked certificates cannot be used", `"where": "`+args[0], "istio-ca-crl", "correct --crl")
			})
		}
	})
}

// Where nobody listens the error says which agent, and what to look at.
func TestAgentsThatAreAway(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "agent.sock")
	t.Setenv(socketVariable, "unix://"+socket)
	for _, args := range []string{"--identity spire", "--identity spire --socket " + socket, "--identity sds --socket " + socket} {
		r := isthmus(t, strings.Fields("dial a:1 --timeout 500ms "+args)...)
		r.want(t, exitFailed, r.stderr, "gave no certificate", socket, "not reachable", "socket is mounted", "--socket")
	}
}

// Another authority than istiod is asked with the flags that are for it.
func TestAnotherAuthority(t *testing.T) {
	ca := identitytest.NewCA(account("a", "b").TrustDomain())
	authority, err := istiocatest.New(ca)
	if err != nil {
		t.Fatal(err)
	}
	defer authority.Close()
	b := newBeliever(t, func(*identitytest.CA) *identitytest.Source { return ca.Source(account("shop", "orders")) })
	flags := append([]string{}, b.flags[:len(b.flags)-6]...) // without the files
	token := b.write(t, "token", []byte("the token"))
	authority.Admit("the token", account("edge", "gateway"))
	flags = append(flags, "--peer", account("shop", "orders").String(), "--token-file", token, "--service-account", "edge/gateway",
		"--ca-roots", b.write(t, "ca.pem", authority.RootPEM()), "--istiod", closedPort(t))
	r := isthmus(t, append(flags, "--ca", authority.Address(), "--cert-ttl", "30m")...)
	if d := decode[dialDocument](t, r.stdout); r.code != exitOK || d.Connection.Local != account("edge", "gateway").String() {
		t.Errorf("got %+v", d)
	}
	if all := authority.Requests(); len(all) != 1 || all[0].TTL != 30*time.Minute {
		t.Errorf("it was asked %+v", all)
	}
	r = isthmus(t, append(flags, "--ca", authority.Address(), "--ca-name", "elsewhere")...)
	r.want(t, exitFailed, r.stderr, "authority gave no certificate", "authority "+authority.Address(), "--ca-name is elsewhere")
	r = isthmus(t, append(flags, "--ca", closedPort(t), "--timeout", "300ms")...)
	r.want(t, exitFailed, r.stderr, "authority gave no certificate", "another one is named with --ca")
}

func TestIdentityIsCompleted(t *testing.T) {
	for flag, want := range map[string][]string{
		"--identity": {"istiod", "spire", "sds", "files", ":4\n"}, "--crl-expired": {"keep", "refuse", ":4\n"}, "--crl": {":0\n"}, "--cert": {":0\n"}, "--token-file": {":0\n"},
	} {
		r := isthmus(t, "__complete", "dial", flag, "")
		r.want(t, exitOK, r.stdout, want...)
	}
}
