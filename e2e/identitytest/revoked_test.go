package identitytest

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
)

// revoked has istiod's authority revoke certificates that istiod has issued. Everybody reads the lists as istiod spreads them, from ConfigMap istio-ca-crl: the
// open tunnel of a thief ends and says why, he gets no other, and neither does a client that knows of it open one to a revoked server. All others go on.
func revoked(t *testing.T, m *mesh.Mesh, isthmus, plugged string, issuer *identitytest.CA) {
	roots := append(identitytest.PEM(issuer.Root), m.RootPEM...)
	crl := filepath.Join(t.TempDir(), "ca-crl.pem")
	spread := func(want []byte) {
		t.Helper()
		c := &corev1.ConfigMap{}
		for end := time.Now().Add(90 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			err := m.Client().Get(t.Context(), client.ObjectKey{Namespace: "edge", Name: "istio-ca-crl"}, c)
			if err == nil && bytes.Equal(bytes.TrimSpace([]byte(c.Data["ca-crl.pem"])), bytes.TrimSpace(want)) {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("istiod does not spread the list: %v, %d bytes", err, len(c.Data["ca-crl.pem"]))
			}
		}
		if err := os.WriteFile(crl+".new", []byte(c.Data["ca-crl.pem"]), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(crl+".new", crl); err != nil {
			t.Fatal(err)
		}
	}
	lists, err := os.ReadFile(filepath.Join(plugged, "ca-crl.pem"))
	if err != nil {
		t.Fatal(err)
	}
	spread(lists)
	as := func(namespace, name string) *identity.Source {
		cfg := config(m, token(t, m, account(t, m, namespace, name), "istio-ca"))
		cfg.Roots = func() ([]byte, error) { return roots, nil }
		cfg.ID = spiffeid.RequireFromPathf(gateway.TrustDomain(), "/ns/%s/sa/%s", namespace, name)
		cfg.Trust = identity.Trust{CRLFile: crl, Interval: 50 * time.Millisecond}
		return start(t, cfg)
	}
	orders, stolen, honest, thief := as("shop", "orders"), as("shop", "stolen"), as("edge", "gateway"), as("edge", "thief")
	for _, s := range []*identity.Source{orders, honest} {
		if st := s.Stats().Trust; st.Lists == 0 || st.LastError != nil {
			t.Fatalf("the lists: %+v", st)
		}
	}
	toOrders, atStolen := echo(t, m, orders), echo(t, m, stolen)
	open := func(client *identity.Source, to route) (*hbone.Conn, error) {
		d := &hbone.Dialer{Identity: client, NetDial: m.NS.DialContext}
		t.Cleanup(func() { d.Close() })
		return d.DialRoute(t.Context(), hbone.Route{Hops: []hbone.Hop{{Addr: to.at, Authority: "10.0.0.7:80", Peers: []spiffeid.ID{to.id}}}})
	}
	must := func(client *identity.Source, to route) *hbone.Conn {
		t.Helper()
		c, err := open(client, to)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		works(t, c)
		return c
	}
	good, bad, byServer := must(honest, toOrders), must(thief, toOrders), must(honest, atStolen)

	all := append(identitytest.CRLPEM(issuer.CRL(leaves(t, thief, stolen))), lists...)
	if err := os.WriteFile(filepath.Join(plugged, "ca-crl.pem"), all, 0o600); err != nil {
		t.Fatal(err)
	}
	spread(all)
	if err := ends(t, bad); err == nil {
		t.Error("the thief's tunnel ends in peace")
	} else {
		t.Logf("the thief reads: %v", err)
	}
	err = ends(t, byServer)
	if r, ok := errors.AsType[*identity.RevokedError](err); !ok {
		t.Errorf("the client of a revoked server reads %v", err)
	} else {
		t.Logf("its client reads: %v", r)
	}
	works(t, good)
	works(t, must(honest, toOrders))
	if c, err := open(thief, toOrders); err == nil {
		c.Close()
		t.Error("the thief has a new tunnel")
	}
	if _, err := open(honest, atStolen); !isRevoked(err) {
		t.Errorf("a new tunnel to a revoked server: %v", err)
	}

	flags := func(file string) []string {
		return []string{
			"dial", "10.0.0.7:80", "-o", "json", "--timeout", "10s", "--via", atStolen.at.String(), "--peer", atStolen.id.String(), "--istiod", m.Istiod.CA.String(),
			"--ca-roots", write(t, "roots.pem", roots), "--token-file", write(t, "token", []byte(token(t, m, account(t, m, "edge", "gateway"), "istio-ca"))), "--crl", file,
		}
	}
	line := &commandLine{t: t, m: m, path: isthmus, args: flags(write(t, "before.pem", lists))}
	line.is(line.run(), gateway)
	line.args = flags(crl)
	r := line.run()
	r.Want(t, 1, r.Stderr, "revoked")
}

func isRevoked(err error) bool {
	_, ok := errors.AsType[*identity.RevokedError](err)
	return ok
}

// route is where a server listens, and who it is.
type route struct {
	at netip.AddrPort
	id spiffeid.ID
}

// echo is a server of the mesh that echoes.
func echo(t *testing.T, m *mesh.Mesh, id *identity.Source) route {
	t.Helper()
	svid, err := id.GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	l, err := m.NS.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &hbone.Server{Identity: id, Admit: func(context.Context, *hbone.ConnectRequest) error { return nil }}
	go func() { _ = s.Serve(l) }() // it ends by Close
	go func() {
		for {
			c, err := s.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	t.Cleanup(func() { s.Close() })
	return route{netip.MustParseAddrPort(l.Addr().String()), svid.ID}
}

// works sends something through a tunnel and back.
func works(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

// ends waits until a tunnel ends, and returns why.
func ends(t *testing.T, c net.Conn) error {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, err := io.Copy(io.Discard, c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("a tunnel does not end")
	}
	return err
}

// leaves are the certificates that sources have now.
func leaves(t *testing.T, sources ...*identity.Source) (certs []*x509.Certificate) {
	t.Helper()
	for _, s := range sources {
		svid, err := s.GetX509SVID()
		if err != nil {
			t.Fatal(err)
		}
		certs = append(certs, svid.Certificates[0])
	}
	return certs
}

// write writes a file that a flag names.
func write(t *testing.T, name string, text []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
