package spiretest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/e2e/command"
	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/isthmus-mesh/isthmus/identity/spire"
)

// Two trust domains below one root: who says that it vouches for both believes both, and nobody else does. When the root revokes the authority of one of the
// SPIRE servers, its workloads are believed no more, and their open tunnels end.
func TestOneRootForTwoTrustDomains(t *testing.T) {
	t.Parallel()
	root := identitytest.NewCA(spiffeid.RequireTrustDomainFromString("root.example"))
	chain, key := root.Issuer()
	dir := t.TempDir()
	for name, text := range map[string][]byte{"root.pem": identitytest.PEM(chain...), "root.key": identitytest.KeyPEM(key)} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	upstream := fmt.Sprintf(`UpstreamAuthority "disk" { plugin_data { cert_file_path = "%[1]s/root.pem", key_file_path = "%[1]s/root.key" } }`, dir)
	ours, theirs := newSPIRE(t, gateway.TrustDomain(), upstream), newSPIRE(t, partner, upstream)
	ours.entry(gateway.String())
	theirs.entry(partnerOrders.String())
	crl := filepath.Join(dir, "crl.pem")
	lists := func(revoked ...*identity.Source) {
		t.Helper()
		text := identitytest.CRLPEM(root.CRL(nil))
		for _, s := range revoked {
			svid, err := s.GetX509SVID()
			if err != nil {
				t.Fatal(err)
			}
			if len(svid.Certificates) < 2 {
				t.Fatal("the server's authority is not below the root")
			}
			text = identitytest.CRLPEM(root.CRL(svid.Certificates[1:]))
		}
		if err := os.WriteFile(crl+".new", text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(crl+".new", crl); err != nil {
			t.Fatal(err)
		}
	}
	lists()
	also := func(td spiffeid.TrustDomain) identity.Trust {
		return identity.Trust{Additional: []spiffeid.TrustDomain{td}, CRLFile: crl, Interval: 50 * time.Millisecond}
	}
	edge := fromSPIRE(t, spire.Config{Socket: ours.socket, Trust: also(partner)})
	backend := fromSPIRE(t, spire.Config{Socket: theirs.socket, Trust: also(gateway.TrustDomain())})
	alone := fromSPIRE(t, spire.Config{Socket: ours.socket})
	tunnel(t, edge, backend)
	at := serveFor(t, backend)
	if _, err := dial(t, alone, at); err == nil {
		t.Error("one who was not told that the root vouches for the other domain believes it")
	}

	isthmus := command.Build(t)
	run := func(flags ...string) command.Result {
		t.Helper()
		args := []string{"dial", "10.0.0.7:80", "-o", "json", "--timeout", "10s", "--via", at, "--peer", partnerOrders.String(), "--identity", "spire", "--socket", ours.socket}
		return command.Run(t, isthmus, nil, nil, append(args, flags...)...)
	}
	flags := []string{"--trust-additional", partner.Name(), "--crl", crl}
	accepted := func(r command.Result) {
		t.Helper()
		var doc struct{ Connection struct{ Local string } }
		if err := json.Unmarshal([]byte(r.Stdout), &doc); err != nil || r.Code != 0 || doc.Connection.Local != gateway.String() {
			t.Errorf("exit code %d, %+v, %v", r.Code, doc, err)
		}
	}
	accepted(run(flags...))
	r := run(flags[2:]...)
	r.Want(t, 1, r.Stderr, "nobody vouches for trust domain partner.example")

	open, err := dial(t, edge, at)
	if err != nil {
		t.Fatal(err)
	}
	lists(backend)
	if err := open.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, err = open.Read(make([]byte, 1))
	if revoked, ok := errors.AsType[*identity.RevokedError](err); !ok || !revoked.ID.IsZero() {
		t.Errorf("a tunnel to a workload of the revoked authority reads %v", err)
	}
	if _, err := dial(t, edge, at); !isRevoked(err) {
		t.Errorf("a new one: %v", err)
	}
	r = run(flags...)
	r.Want(t, 1, r.Stderr, "revoked")
}

func isRevoked(err error) bool {
	_, ok := errors.AsType[*identity.RevokedError](err)
	return ok
}

// serveFor is the address of a server of id that keeps the tunnels that it accepts.
func serveFor(t *testing.T, id hbone.Identity) string {
	t.Helper()
	l := listen(t)
	s := &hbone.Server{Identity: id, Admit: func(context.Context, *hbone.ConnectRequest) error { return nil }}
	go func() { _ = s.Serve(l) }() // it ends by Close
	go func() {
		for {
			if _, err := s.Accept(); err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

// dial opens a tunnel to the partner's orders at address.
func dial(t *testing.T, client hbone.Identity, address string) (*hbone.Conn, error) {
	t.Helper()
	d := &hbone.Dialer{Identity: client}
	t.Cleanup(func() { d.Close() })
	return d.DialRoute(t.Context(), hbone.Route{Hops: []hbone.Hop{{
		Addr: netip.MustParseAddrPort(address), Authority: "10.0.0.7:80", Peers: []spiffeid.ID{partnerOrders},
	}}})
}
