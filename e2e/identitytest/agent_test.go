package identitytest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/programs"
	"github.com/isthmus-mesh/isthmus/e2e/world"
	"github.com/isthmus-mesh/isthmus/identity/sds"
)

// istioAgent is what a workload gets from Istio's agent beside it, which has its certificates from istiod: the first one, and the next that the agent
// pushes.
func istioAgent(t *testing.T, m *mesh.Mesh, isthmus, token string) {
	dir := world.SocketDir(t)
	for path, text := range map[string]string{
		"var/run/secrets/tokens/istio-token":  token,
		"var/run/secrets/istio/root-cert.pem": string(m.RootPEM),
		"no-envoy":                            "#!/bin/sh\nwhile kill -0 $PPID; do sleep 1; done\n", // without an Envoy the agent serves no secrets
	} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cmd := m.Command(t.Context(), string(programs.PilotAgent), "proxy", "sidecar", "--domain", "edge.svc.cluster.local",
		"--templateFile", m.Programs.Path(programs.EnvoyBootstrap))
	cmd.Dir = dir
	cmd.Env = append(cmd.Env,
		"POD_NAME=gateway", "POD_NAMESPACE=edge", "SERVICE_ACCOUNT=gateway", "INSTANCE_IP="+m.Istiod.CA.Addr().String(),
		"ISTIO_META_CLUSTER_ID=Kubernetes", "TRUST_DOMAIN=cluster.local", "ISTIOD_SAN="+m.Istiod.ServerName, "SECRET_TTL=16s",
		fmt.Sprintf("PROXY_CONFIG={discoveryAddress: %q, binaryPath: %q}", m.Istiod.CA, filepath.Join(dir, "no-envoy")))
	run(t, m, cmd)

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s, err := sds.New(ctx, sds.Config{Socket: filepath.Join(dir, "var/run/secrets/workload-spiffe-uds/socket"), ID: gateway})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	roots, err := x509bundle.Parse(gateway.TrustDomain(), m.RootPEM)
	if err != nil {
		t.Fatal(err)
	}
	line := newCommandLine(t, m, isthmus)
	line.is(line.run("--identity", "sds", "--socket", filepath.Join(dir, "var/run/secrets/workload-spiffe-uds/socket"), "--spiffe-id", gateway.String()), gateway)
	for range 2 {
		next := s.Changed()
		svid, err := s.GetX509SVID()
		if err != nil {
			t.Fatal(err)
		}
		if id, _, err := x509svid.Verify(svid.Certificates, roots); err != nil || id != gateway {
			t.Errorf("verify: %v, %v", id, err)
		}
		if b, err := s.GetX509BundleForTrustDomain(gateway.TrustDomain()); err != nil || !b.Equal(roots) {
			t.Errorf("trusts %v, %v", b, err)
		}
		select {
		case <-next:
		case <-time.After(30 * time.Second):
			t.Fatalf("the agent pushes no other certificate: %+v", s.Stats())
		}
	}
}

// run starts a program in the mesh's network until the test ends. What it said is shown when the test has failed.
func run(t *testing.T, m *mesh.Mesh, cmd *exec.Cmd) {
	t.Helper()
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second // for what it leaves behind
	if err := m.NS.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(cmd.Path), said.String())
		}
	})
}
