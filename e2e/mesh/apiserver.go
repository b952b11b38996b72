package mesh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/e2e/programs"
)

const (
	// serverName is in the API server's certificate, for clients that reach it by other addresses.
	serverName = "kubernetes"
	apiPort    = "6443"
	etcdClient = "http://127.0.0.1:2379"
	etcdPeer   = "http://127.0.0.1:2380"
	// kubeletClient is who the API server is to the node, and how the files are named that say so.
	kubeletClient = "kube-apiserver-kubelet-client"
)

// startAPI starts etcd and the API server, and waits until the latter serves all CRDs.
func (m *Mesh) startAPI(ctx context.Context) error {
	etcd, err := m.run(programs.Etcd, nil,
		"--name=mesh", "--data-dir="+m.path("etcd"), "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls="+etcdClient, "--advertise-client-urls="+etcdClient,
		"--listen-peer-urls="+etcdPeer, "--initial-advertise-peer-urls="+etcdPeer, "--initial-cluster=mesh="+etcdPeer,
		// One member need not wait long for its own vote.
		"--heartbeat-interval=10", "--election-timeout=50",
	)
	if err != nil {
		return err
	}
	if err := m.makeKeys(); err != nil {
		return fmt.Errorf("make keys: %w", err)
	}
	if err := etcd.until(ctx, "ready", func(ctx context.Context) error { return m.get(ctx, etcdClient+"/health") }); err != nil {
		return err
	}
	seeded, err := m.plant(ctx)
	if err != nil {
		return err
	}
	if err := m.StartAPIServer(ctx); err != nil {
		return err
	}
	m.say("API server is ready")
	if seeded {
		return nil
	}
	if err := m.applyCRDs(ctx); err != nil {
		return err
	}
	m.harvest(ctx)
	return nil
}

// StartAPIServer starts the API server and waits until it serves: first in Start, and again after StopAPIServer, with what it held. ctx bounds the wait.
func (m *Mesh) StartAPIServer(ctx context.Context) error {
	if m.runs(programs.KubeAPIServer) {
		return errors.New("start API server: it runs already, or the mesh is stopped")
	}
	// The soft limit makes it collect its garbage of start-up, a quarter of its memory. What lives needs half of it.
	limit := "GOMEMLIMIT=320MiB"
	if m.opts.Quick {
		limit = "GOMEMLIMIT=1GiB"
	}
	env := append([]string{limit}, m.opts.APIServerEnv...)
	args := append([]string{
		"--etcd-servers=" + etcdClient, "--bind-address=0.0.0.0", "--secure-port=" + apiPort, "--advertise-address=" + nodeAddr().String(),
		"--tls-cert-file=" + m.path("pki", "apiserver.crt"), "--tls-private-key-file=" + m.path("pki", "apiserver.key"),
		"--kubelet-client-certificate=" + m.path("pki", kubeletClient+".crt"), "--kubelet-client-key=" + m.path("pki", kubeletClient+".key"),
		"--client-ca-file=" + m.path("pki", "ca.crt"), "--cert-dir=" + m.path("pki"),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-signing-key-file=" + m.path("pki", "sa.key"), "--service-account-key-file=" + m.path("pki", "sa.key"),
		"--service-cluster-ip-range=10.96.0.0/16", "--authorization-mode=RBAC", "--allow-privileged",
		"--disable-admission-plugins=ServiceAccount", "--profiling=false",
	}, m.opts.APIServerArgs...)
	api, err := m.run(programs.KubeAPIServer, env, args...)
	if err != nil {
		return err
	}
	client, err := rest.HTTPClientFor(m.Config)
	if err != nil {
		return err
	}
	probe := &Mesh{http: client}
	err = api.until(ctx, "ready", func(ctx context.Context) error { return probe.get(ctx, m.Config.Host+"/readyz") })
	if err != nil {
		return err
	}
	if m.client != nil { // a restart
		return nil
	}
	return m.makeClient()
}

// StopAPIServer kills the API server, for tests of what happens without it. Nothing happens when it does not run.
func (m *Mesh) StopAPIServer() error { return m.kill(programs.KubeAPIServer) }

// makeKeys makes the API server's authority, and from it all that servers and clients show.
func (m *Mesh) makeKeys() (err error) {
	if m.ca, err = newAuthority("isthmus-mesh"); err != nil {
		return err
	}
	server, err := m.ca.server(
		[]string{serverName, "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost"},
		net.IP(nodeAddr().AsSlice()), net.IPv4(10, 96, 0, 1), net.IPv4(127, 0, 0, 1))
	if err != nil {
		return err
	}
	admin, err := m.ca.client("admin", "system:masters")
	if err != nil {
		return err
	}
	kubelet, err := m.ca.client(kubeletClient)
	if err != nil {
		return err
	}
	m.kubeletClient = kubelet.cert
	_, sa, err := newKey()
	if err != nil {
		return err
	}
	m.Config = &rest.Config{
		Host: "https://" + net.JoinHostPort(nodeAddr().String(), apiPort), Dial: m.NS.DialContext,
		TLSClientConfig: rest.TLSClientConfig{CAData: m.ca.pem, CertData: admin.cert, KeyData: admin.key},
		// The server is ours alone.
		QPS: -1, Burst: -1,
		// What it warns of is for the author of a test to see in its log, not on everybody's terminal.
		WarningHandler: rest.NoWarnings{},
	}
	m.Kubeconfig = m.path("kubeconfig")
	kube, err := kubeconfig(m.ca, m.Config.Host, admin.cert, admin.key)
	if err != nil {
		return err
	}
	var errs []error
	for path, b := range map[string][]byte{
		m.Kubeconfig: kube, m.path("pki", "ca.crt"): m.ca.pem, m.path("pki", "apiserver.crt"): server.cert,
		m.path("pki", "apiserver.key"): server.key, m.path("pki", "sa.key"): sa,
		m.path("pki", kubeletClient+".crt"): kubelet.cert, m.path("pki", kubeletClient+".key"): kubelet.key,
	} {
		errs = append(errs, os.WriteFile(path, b, 0o600))
	}
	return errors.Join(errs...)
}

// startControllerManager starts those controllers that a mesh meets; nobody waits for them.
func (m *Mesh) startControllerManager() error {
	controllers := []string{
		"clusterrole-aggregation-controller", "daemonset-controller", "deployment-controller", "endpointslice-controller",
		"garbage-collector-controller", "namespace-controller", "replicaset-controller",
		"root-ca-certificate-publisher-controller", "serviceaccount-controller", "statefulset-controller",
	}
	_, err := m.run(programs.KubeControllerManager, nil,
		"--kubeconfig="+m.Kubeconfig, "--leader-elect=false", "--controllers="+strings.Join(controllers, ","),
		"--root-ca-file="+m.path("pki", "ca.crt"), "--secure-port=0", "--kube-api-qps=500", "--kube-api-burst=1000", "--profiling=false",
		"--node-monitor-grace-period=24h",
	)
	return err
}

// readFile reads a file that programs made.
func (m *Mesh) readFile(name programs.Name) ([]byte, error) {
	b, err := os.ReadFile(m.Programs.Path(name))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", filepath.Base(string(name)), err)
	}
	return b, nil
}

// scheme knows the types of Kubernetes, Istio and the Gateway API.
func scheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	var errs []error
	for _, add := range schemeParts() {
		errs = append(errs, add(s))
	}
	return s, errors.Join(errs...)
}
