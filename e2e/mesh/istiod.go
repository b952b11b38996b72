package mesh

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/e2e/programs"
)

const (
	istioNamespace = "istio-system"
	istiodName     = "istiod.istio-system.svc"
)

// istioObjects are what an installation of Istio has and our parts look at.
const istioObjects = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: istiod, namespace: istio-system}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: ztunnel, namespace: istio-system}
---
apiVersion: v1
kind: Service
metadata: {name: istiod, namespace: istio-system, labels: {app: istiod, istio.io/rev: default}}
spec:
  ports:
  - {name: grpc-xds, port: 15010}
  - {name: https-dns, port: 15012}
  - {name: https-webhook, port: 443, targetPort: 15017}
  - {name: http-monitoring, port: 15014}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: istiod, namespace: istio-system, labels: {kubernetes.io/service-name: istiod, endpointslice.kubernetes.io/managed-by: isthmus-e2e}}
addressType: IPv4
endpoints: [{addresses: [10.244.0.1], conditions: {ready: true}}]
ports:
- {name: grpc-xds, port: 15010}
- {name: https-dns, port: 15012}
- {name: https-webhook, port: 15017}
- {name: http-monitoring, port: 15014}
`

// prepareIstiod makes what istiod wants to find when it starts.
func (m *Mesh) prepareIstiod(ctx context.Context) error {
	ns := &corev1.Namespace{}
	ns.Name = istioNamespace
	if err := m.client.Create(ctx, ns, fieldOwner); err != nil {
		return fmt.Errorf("create namespace %s: %w", istioNamespace, err)
	}
	config := &corev1.ConfigMap{Data: map[string]string{"mesh": m.opts.meshConfig(), "meshNetworks": "networks: {}"}}
	config.Name, config.Namespace = "istio", istioNamespace
	if err := m.client.Create(ctx, config, fieldOwner); err != nil {
		return fmt.Errorf("create mesh configuration: %w", err)
	}
	injector, err := m.readFile(programs.Injector)
	if err != nil {
		return err
	}
	return m.Apply(ctx, string(injector)+"\n---\n"+istioObjects)
}

// StartIstiod starts istiod and waits until it is ready: first in Start, and again after StopIstiod. ctx bounds the wait.
func (m *Mesh) StartIstiod(ctx context.Context) error {
	if m.runs(programs.PilotDiscovery) {
		return errors.New("start istiod: it runs already, or the mesh is stopped")
	}
	env := append([]string{
		"POD_NAMESPACE=" + istioNamespace, "POD_NAME=istiod-0", "REVISION=default", "CLUSTER_ID=Kubernetes",
		"PILOT_ENABLE_AMBIENT=true", "CA_TRUSTED_NODE_ACCOUNTS=" + istioNamespace + "/ztunnel",
		"JWT_POLICY=third-party-jwt", "PILOT_CERT_PROVIDER=istiod",
		// Injection is on for the templates of waypoints and gateways; no webhook is there to be patched.
		"INJECT_ENABLED=true", "INJECTION_WEBHOOK_CONFIG_NAME=", "VALIDATION_WEBHOOK_CONFIG_NAME=",
	}, m.opts.IstiodEnv...)
	p, err := m.run(programs.PilotDiscovery, env, "discovery",
		"--kubeconfig="+m.Kubeconfig, "--meshConfig=/nonexistent", "--networksConfig=/nonexistent", "--registries=Kubernetes",
		"--secureGRPCAddr=:15012", "--grpcAddr=:15010", "--httpsAddr=:15017", "--httpAddr=:8080", "--monitoringAddr=:15014",
		"--domain=cluster.local", "--ctrlz_port=0",
	)
	if err != nil {
		return err
	}
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(nodeAddr(), port) }
	ready := fmt.Sprintf("http://%v/ready", at(8080))
	if err := p.until(ctx, "ready", func(ctx context.Context) error { return m.get(ctx, ready) }); err != nil {
		return err
	}
	if m.RootPEM != nil { // a restart: address and root are as before
		return nil
	}
	m.Istiod = Istiod{XDS: at(15012), CA: at(15012), Monitoring: at(15014), ServerName: istiodName}
	secret := &corev1.Secret{}
	err = p.until(ctx, "showing its root certificate", func(ctx context.Context) error {
		return m.client.Get(ctx, client.ObjectKey{Namespace: istioNamespace, Name: "istio-ca-secret"}, secret)
	})
	if err != nil {
		return err
	}
	if m.RootPEM = secret.Data["ca-cert.pem"]; len(m.RootPEM) == 0 {
		return errors.New("istiod's secret istio-ca-secret has no ca-cert.pem")
	}
	m.say("istiod is ready")
	return nil
}

// StopIstiod kills istiod, for tests of what happens without it. Nothing happens when it does not run.
func (m *Mesh) StopIstiod() error { return m.kill(programs.PilotDiscovery) }
