package spiretest

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/e2e/command"
	"github.com/isthmus-mesh/isthmus/e2e/programs"
	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/file"
	"github.com/isthmus-mesh/isthmus/identity/sds"
	"github.com/isthmus-mesh/isthmus/identity/spire"
)

// Two meshes with a SPIRE each: their workloads believe each other as far as the servers, or files, say so, also while one of them replaces its root.
func TestFederation(t *testing.T) {
	t.Parallel()
	ours, theirs := newSPIRE(t, gateway.TrustDomain()), newSPIRE(t, partner)
	federate(ours, theirs)
	federate(theirs, ours)
	ours.entry(gateway.String(), "-federatesWith", partner.IDString(), "-x509SVIDTTL", "60")
	theirs.entry(partnerOrders.String(), "-federatesWith", gateway.TrustDomain().IDString(), "-x509SVIDTTL", "60")

	edge := fromSPIRE(t, spire.Config{Socket: ours.socket})
	backend := fromSPIRE(t, spire.Config{Socket: theirs.socket})
	tunnel(t, edge, backend)
	tunnel(t, backend, edge)

	// Roots as files: what the server of the other mesh shows, and what an agent writes.
	partnerRoots := filepath.Join(ours.dir, "partner.pem")
	ours.write("partner.pem", theirs.bundle("pem"))
	byFile := fromSDS(t, sds.Config{Socket: ours.socket, Name: gateway.String(), Trust: identity.Trust{
		Federated: map[spiffeid.TrustDomain]string{partner: partnerRoots}, Interval: 50 * time.Millisecond,
	}})
	if _, err := fromSDS(t, sds.Config{Socket: ours.socket, Name: gateway.String()}).GetX509BundleForTrustDomain(partner); err == nil {
		t.Error("without the file the partner is believed, too")
	}
	tunnel(t, byFile, backend)
	written := theirs.written(t)
	fromFiles := startFile(t, file.Config{
		Chain: filepath.Join(written, "svid.0.pem"), Key: filepath.Join(written, "svid.0.key"), Roots: filepath.Join(written, "bundle.0.pem"),
		Trust: identity.Trust{Federated: map[spiffeid.TrustDomain]string{gateway.TrustDomain(): filepath.Join(written, "federated_bundle.0.0.pem")}},
	})
	tunnel(t, edge, fromFiles)
	tunnel(t, fromFiles, edge)

	t.Run("the command", func(t *testing.T) { ours.abroad(t, backend, written, partnerRoots) })

	t.Run("the partner's root is replaced", func(t *testing.T) {
		active, prepared := theirs.prepare(t)
		federate(ours, theirs)
		ours.write("partner.pem", theirs.bundle("pem"))
		for name, s := range map[string]*identity.Source{"Workload API": edge, "a file": byFile} {
			trusts(t, name, s, partner, 2)
		}
		before, err := backend.GetX509SVID()
		if err != nil {
			t.Fatal(err)
		}
		theirs.activate(active, prepared)
		for end := time.Now().Add(90 * time.Second); ; time.Sleep(50 * time.Millisecond) { // and all the while they can speak
			tunnel(t, edge, backend)
			tunnel(t, byFile, backend)
			if now, err := backend.GetX509SVID(); err == nil && !now.Certificates[0].Equal(before.Certificates[0]) {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("the partner has no new certificate: %+v", backend.Stats())
			}
		}
		theirs.server("localauthority", "x509", "revoke", "-authorityID", active)
		federate(ours, theirs)
		ours.write("partner.pem", theirs.bundle("pem"))
		for name, s := range map[string]*identity.Source{"Workload API": edge, "a file": byFile} {
			trusts(t, name, s, partner, 1)
			tunnel(t, s, backend)
		}
	})
	t.Run("a federation ends", func(t *testing.T) {
		ours.server("bundle", "delete", "-id", partner.IDString(), "-mode", "dissociate")
		for end := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			if _, err := edge.GetX509BundleForTrustDomain(partner); err != nil {
				break
			}
			if time.Now().After(end) {
				t.Fatal("the partner is believed for ever")
			}
		}
		tunnel(t, byFile, backend) // whom a file vouches for
	})
}

// federate gives w the roots that the other server shows now.
func federate(w, other *spireWorld) {
	w.t.Helper()
	w.write(other.td.Name()+".json", other.bundle("spiffe"))
	w.server("bundle", "set", "-format", "spiffe", "-id", other.td.IDString(), "-path", filepath.Join(w.dir, other.td.Name()+".json"))
}

// bundle is the server's own roots.
func (w *spireWorld) bundle(format string) string {
	w.t.Helper()
	return w.server("bundle", "show", "-format", format)
}

// written is a folder with what the agent's own command writes for programs that read files.
func (w *spireWorld) written(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := w.try(programs.SpireAgent, "api", "fetch", "x509", "-socketPath", w.socket, "-write", dir); err != nil {
		t.Fatal(err, out)
	}
	return dir
}

func startFile(t *testing.T, cfg file.Config) *identity.Source {
	t.Helper()
	s, err := file.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// trusts waits until s trusts that many roots of td.
func trusts(t *testing.T, name string, s *identity.Source, td spiffeid.TrustDomain, n int) {
	t.Helper()
	var got int
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		b, err := s.GetX509BundleForTrustDomain(td)
		if err != nil {
			got = 0
			continue
		}
		if got = len(b.X509Authorities()); got == n {
			return
		}
	}
	t.Fatalf("%s: it trusts %d roots of %s, want %d", name, got, td, n)
}

// abroad dials a server of the partner with isthmus dial: by files that an agent wrote, with roots from a file, and under the name that it has as an alias.
func (w *spireWorld) abroad(t *testing.T, server hbone.Identity, written, partnerRoots string) {
	isthmus := command.Build(t)
	at := serve(t, server)
	alias := spiffeid.RequireFromPath(gateway.TrustDomain(), partnerOrders.Path())
	own := []string{"--identity", "sds", "--socket", w.socket, "--sds-name", gateway.String()}
	theirs := []string{
		"--identity", "files", "--cert", filepath.Join(written, "svid.0.pem"), "--key", filepath.Join(written, "svid.0.key"),
		"--roots", filepath.Join(written, "bundle.0.pem"), "--trust-domain", partner.Name(),
	}
	federated := []string{"--trust-federated", partner.Name() + "=" + partnerRoots}
	aliased := []string{"--trust-alias", partner.Name()}
	for name, tt := range map[string]struct {
		flags []string
		peer  spiffeid.ID
		as    spiffeid.ID // zero: it is refused
		says  string
	}{
		"roots from a file":          {slices.Concat(federated, own), partnerOrders, gateway, ""},
		"without them":               {own, partnerOrders, spiffeid.ID{}, "nobody vouches for trust domain partner.example"},
		"under another name":         {slices.Concat(federated, own), alias, spiffeid.ID{}, partnerOrders.String()},
		"the other name is an alias": {slices.Concat(aliased, federated, own), alias, gateway, ""},
		"files that an agent wrote":  {theirs, partnerOrders, partnerOrders, ""},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"dial", "10.0.0.7:80", "-o", "json", "--timeout", "10s", "--via", at, "--peer", tt.peer.String()}, tt.flags...)
			r := command.Run(t, isthmus, nil, nil, args...)
			if tt.as.IsZero() {
				r.Want(t, 1, r.Stderr, tt.says)
				return
			}
			var doc struct{ Connection struct{ Local string } }
			if err := json.Unmarshal([]byte(r.Stdout), &doc); err != nil || r.Code != 0 || doc.Connection.Local != tt.as.String() {
				t.Errorf("exit code %d, %+v, %v; want %s", r.Code, doc, err, tt.as)
			}
		})
	}
}
