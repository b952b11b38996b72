package spiretest

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/isthmus-mesh/isthmus/identity/sds"
	"github.com/isthmus-mesh/isthmus/identity/spire"
)

var (
	gateway = spiffeid.RequireFromString("spiffe://cluster.local/ns/edge/sa/gateway")
	orders  = spiffeid.RequireFromString("spiffe://cluster.local/ns/shop/sa/orders")
	partner = spiffeid.RequireTrustDomainFromString("partner.example")

	partnerOrders = spiffeid.RequireFromPath(partner, "/ns/shop/sa/orders")
)

// What a workload gets from a SPIRE agent, by the Workload API and by SDS, through renewals, a restart of the agent and another root.
func TestSPIRE(t *testing.T) {
	t.Parallel()
	w := newSPIRE(t, gateway.TrustDomain())
	t.Run("without an entry", func(t *testing.T) {
		var err error
		for _, patience := range []time.Duration{3 * time.Second, 20 * time.Second} { // the agent may have other things to do
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			_, err = spire.New(ctx, spire.Config{Socket: w.socket})
			cancel()
			if err != nil && strings.Contains(err.Error(), "is there a registration entry") {
				return
			}
		}
		t.Errorf("got %v", err)
	})
	theirs := identitytest.NewCA(partner)
	w.write("partner.pem", string(identitytest.PEM(theirs.Root)))
	w.server("bundle", "set", "-id", partner.IDString(), "-path", filepath.Join(w.dir, "partner.pem"))
	w.entry(gateway.String(), "-hint", "edge", "-federatesWith", partner.IDString(), "-x509SVIDTTL", "30")
	w.entry(orders.String(), "-hint", "backend", "-federatesWith", partner.IDString(), "-x509SVIDTTL", "30")

	begin := time.Now()
	edge := fromSPIRE(t, spire.Config{Socket: w.socket, ID: gateway})
	t.Logf("the first certificate took %v", time.Since(begin).Round(time.Millisecond))
	backend := fromSPIRE(t, spire.Config{Socket: "unix://" + w.socket, Hint: "backend"})
	bySDS := fromSDS(t, sds.Config{Socket: w.socket, Name: gateway.String(), Roots: "ALL"})
	plain := fromSDS(t, sds.Config{Socket: w.socket})
	for name, c := range map[string]struct {
		source    *identity.Source
		id        spiffeid.ID // zero: whichever SPIRE has first
		federated bool
	}{
		"Workload API, by id":   {edge, gateway, true},
		"Workload API, by hint": {backend, orders, true},
		"SDS, by id":            {bySDS, gateway, true},
		"SDS":                   {plain, spiffeid.ID{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			svid, err := c.source.GetX509SVID()
			if err != nil || !c.id.IsZero() && svid.ID != c.id {
				t.Fatalf("got %v, %v", svid, err)
			}
			if id, _, err := x509svid.Verify(svid.Certificates, c.source); err != nil || id != svid.ID {
				t.Errorf("verify: %v, %v", id, err)
			}
			b, err := c.source.GetX509BundleForTrustDomain(partner)
			if got := err == nil && b.HasX509Authority(theirs.Root); got != c.federated {
				t.Errorf("federated: %v, %v", got, err)
			}
		})
	}
	t.Run("a tunnel", func(t *testing.T) { tunnel(t, edge, backend) })
	t.Run("the command", func(t *testing.T) { w.command(t, backend) })
	t.Run("renewal", func(t *testing.T) {
		for name, s := range map[string]*identity.Source{"Workload API": edge, "SDS": bySDS} {
			changed(t, name, s, 60*time.Second)
		}
		tunnel(t, edge, backend)
	})
	t.Run("the agent restarts", func(t *testing.T) {
		stop(w.agent)
		for name, s := range map[string]*identity.Source{"Workload API": edge, "SDS": bySDS} {
			for end := time.Now().Add(30 * time.Second); s.Stats().LastError == nil; time.Sleep(50 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("%s does not miss the agent: %+v", name, s.Stats())
				}
			}
			if _, err := s.GetX509SVID(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		w.startAgent()
		for name, s := range map[string]*identity.Source{"Workload API": edge, "SDS": bySDS} {
			for end := time.Now().Add(45 * time.Second); s.Stats().LastError != nil; time.Sleep(50 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("%s does not find the agent: %+v", name, s.Stats())
				}
			}
		}
		tunnel(t, edge, backend)
	})
	t.Run("another root", func(t *testing.T) { w.rotate(t, edge, bySDS, backend) })
}

// prepare makes a new authority, which all trust beside the old one that still issues.
func (w *spireWorld) prepare(t *testing.T) (active, prepared string) {
	t.Helper()
	var answer struct {
		Authority struct {
			ID string `json:"authority_id"`
		} `json:"prepared_authority"`
	}
	active = w.authority(t, "active")
	if err := json.Unmarshal([]byte(w.server("localauthority", "x509", "prepare", "-output", "json")), &answer); err != nil {
		t.Fatal(err)
	}
	return active, answer.Authority.ID
}

// activate makes the server issue by a prepared authority, and its workloads ask for certificates of that.
func (w *spireWorld) activate(active, prepared string) {
	w.t.Helper()
	w.server("localauthority", "x509", "activate", "-authorityID", prepared)
	w.server("localauthority", "x509", "taint", "-authorityID", active)
}

// rotate makes the server issue by a new authority; the old one goes in the end. Sources have both in between, and then the new one only.
func (w *spireWorld) rotate(t *testing.T, sources ...*identity.Source) {
	active, prepared := w.prepare(t)
	w.activate(active, prepared)
	var before []*x509svid.SVID
	for _, s := range sources {
		svid, err := s.GetX509SVID()
		if err != nil {
			t.Fatal(err)
		}
		before = append(before, svid)
	}
	for i, s := range sources {
		for end := time.Now().Add(90 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			svid, err := s.GetX509SVID()
			if err == nil && !svid.Certificates[0].Equal(before[i].Certificates[0]) {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("source %d has no new certificate: %v, %+v", i, err, s.Stats())
			}
		}
	}
	tunnel(t, sources[0], sources[len(sources)-1])
	w.server("localauthority", "x509", "revoke", "-authorityID", active)
	for i, s := range sources {
		for end := time.Now().Add(60 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			b, err := s.GetX509BundleForTrustDomain(gateway.TrustDomain())
			if err == nil && len(b.X509Authorities()) == 1 {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("source %d trusts the old root: %+v", i, s.Stats())
			}
		}
	}
	tunnel(t, sources[0], sources[len(sources)-1])
}

// authority is the id of the one in that state.
func (w *spireWorld) authority(t *testing.T, state string) string {
	t.Helper()
	var shown map[string]struct {
		ID string `json:"authority_id"`
	}
	out := w.server("localauthority", "x509", "show", "-output", "json")
	if err := json.Unmarshal([]byte(out), &shown); err != nil || shown[state].ID == "" {
		t.Fatalf("no %s authority in %s: %v", state, out, err)
	}
	return shown[state].ID
}

func fromSPIRE(t *testing.T, cfg spire.Config) *identity.Source {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s, err := spire.New(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func fromSDS(t *testing.T, cfg sds.Config) *identity.Source {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s, err := sds.New(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// changed waits for the next certificate.
func changed(t *testing.T, name string, s *identity.Source, within time.Duration) {
	t.Helper()
	select {
	case <-s.Changed():
	case <-time.After(within):
		t.Errorf("%s: no new certificate: %+v", name, s.Stats())
	}
}

// tunnel opens one from a client to a server, by what they have now.
func tunnel(t *testing.T, client, server *identity.Source) {
	t.Helper()
	svid, err := server.GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &hbone.Server{Identity: server, Admit: func(context.Context, *hbone.ConnectRequest) error { return nil }}
	go func() { _ = s.Serve(l) }() // it ends by Close
	defer s.Close()
	go func() {
		c, err := s.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, c.(*hbone.Conn).PeerIdentity().String())
	}()
	d := &hbone.Dialer{Identity: client}
	defer d.Close()
	c, err := d.DialRoute(t.Context(), hbone.Route{Hops: []hbone.Hop{{
		Addr: netip.MustParseAddrPort(l.Addr().String()), Authority: "10.0.0.7:80", Peers: []spiffeid.ID{svid.ID},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	own, err := client.GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	if said, err := io.ReadAll(c); err != nil || string(said) != own.ID.String() {
		t.Errorf("the server saw %q, %v", said, err)
	}
}
