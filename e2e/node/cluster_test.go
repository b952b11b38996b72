package node

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/e2e/programs"
	"github.com/isthmus-mesh/isthmus/e2e/world"
)

// cluster is a bare control plane: etcd, API server, controller manager, in a namespace of its own.
type cluster struct {
	ns     *world.NS
	rest   *rest.Config
	client *kubernetes.Clientset
	dir    string
	procs  []*exec.Cmd
	// kubeletClient is the certificate that the API server shows to the node.
	kubeletClient []byte
}

func startCluster(ctx context.Context, dir string) (_ *cluster, err error) {
	set, err := programs.Ensure(ctx, []programs.Name{programs.Etcd, programs.KubeAPIServer, programs.KubeControllerManager}, os.Stderr)
	if err != nil {
		return nil, err
	}
	c := &cluster{dir: dir}
	defer func() {
		if err != nil {
			c.stop()
		}
	}()
	if c.ns, err = world.NewNS("cluster"); err != nil {
		return nil, err
	}
	var cfg Config
	if err := c.ns.Do(func() error { return setUpNode(cfg.gateway(), cfg.dnsVIP(), cfg.serviceCIDR()) }); err != nil {
		return nil, err
	}
	if err := writeKey(filepath.Join(dir, "sa.key")); err != nil {
		return nil, err
	}
	if c.kubeletClient, err = writePair(dir, "kubelet-client"); err != nil {
		return nil, err
	}
	const token = "admin-of-the-test"
	if err := os.WriteFile(filepath.Join(dir, "tokens"), []byte(token+`,admin,1,"system:masters"`+"\n"), 0o600); err != nil {
		return nil, err
	}
	if err := c.start(set.Path(programs.Etcd), "--data-dir", filepath.Join(dir, "etcd"), "--unsafe-no-fsync",
		"--listen-client-urls", "http://127.0.0.1:2379", "--advertise-client-urls", "http://127.0.0.1:2379", "--listen-peer-urls", "http://127.0.0.1:2380"); err != nil {
		return nil, err
	}
	if err := c.start(set.Path(programs.KubeAPIServer), "--etcd-servers", "http://127.0.0.1:2379", "--cert-dir", dir,
		"--service-cluster-ip-range", cfg.serviceCIDR().String(), "--advertise-address", cfg.gateway().String(), "--bind-address", cfg.gateway().String(),
		"--service-account-issuer", "https://kubernetes.default.svc", "--service-account-signing-key-file", filepath.Join(dir, "sa.key"),
		"--service-account-key-file", filepath.Join(dir, "sa.key"), "--authorization-mode", "RBAC", "--token-auth-file", filepath.Join(dir, "tokens"),
		"--kubelet-client-certificate", filepath.Join(dir, "kubelet-client.crt"), "--kubelet-client-key", filepath.Join(dir, "kubelet-client.key"),
		"--disable-admission-plugins", "ServiceAccount"); err != nil {
		return nil, err
	}
	c.rest = &rest.Config{
		Host: "https://" + netip.AddrPortFrom(cfg.gateway(), 6443).String(), BearerToken: token, Dial: c.ns.DialContext, QPS: -1,
		TLSClientConfig: rest.TLSClientConfig{CAFile: filepath.Join(dir, "apiserver.crt")},
	}
	if err := c.waitReady(ctx); err != nil {
		return nil, err
	}
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(kubeconfig, fmt.Appendf(nil, `apiVersion: v1
kind: Config
current-context: a
clusters: [{name: a, cluster: {server: %q, certificate-authority: %q}}]
users: [{name: a, user: {token: %q}}]
contexts: [{name: a, context: {cluster: a, user: a}}]
`, c.rest.Host, c.rest.CAFile, token), 0o600); err != nil {
		return nil, err
	}
	return c, c.start(set.Path(programs.KubeControllerManager), "--kubeconfig", kubeconfig, "--leader-elect=false", "--controllers",
		"endpointslice-controller,deployment-controller,replicaset-controller,serviceaccount-controller,namespace-controller,garbage-collector-controller")
}

// start runs a program in the cluster's namespace until the test binary ends.
func (c *cluster) start(path string, args ...string) error {
	log, err := os.Create(filepath.Join(c.dir, filepath.Base(path)+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := c.ns.Start(cmd); err != nil {
		return err
	}
	c.procs = append(c.procs, cmd)
	return nil
}

func (c *cluster) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var last error
	for pause(ctx, 50*time.Millisecond) {
		if _, err := os.Stat(c.rest.CAFile); err != nil {
			last = err
			continue
		}
		client, err := kubernetes.NewForConfig(c.rest)
		if err != nil {
			return err
		}
		var code int
		if last = client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).StatusCode(&code).Error(); last == nil && code == http.StatusOK {
			c.client = client
			return nil
		}
	}
	return fmt.Errorf("API server not ready: %w\n%s", last, lastLines(filepath.Join(c.dir, "kube-apiserver.log"), 10))
}

func (c *cluster) stop() {
	for i := len(c.procs) - 1; i >= 0; i-- {
		c.procs[i].Process.Kill()
		c.procs[i].Wait()
	}
	if c.ns != nil {
		c.ns.Close()
	}
}

// writePair writes a certificate and its key, and returns the former.
func writePair(dir, name string) ([]byte, error) {
	pair, err := selfSigned(netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		return nil, err
	}
	key, err := x509.MarshalECPrivateKey(pair.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		return nil, err
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})
	return cert, errors.Join(os.WriteFile(filepath.Join(dir, name+".crt"), cert, 0o600),
		os.WriteFile(filepath.Join(dir, name+".key"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: key}), 0o600))
}

func writeKey(path string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := pem.Encode(&b, &pem.Block{Type: "EC PRIVATE KEY", Bytes: der}); err != nil {
		return err
	}
	return os.WriteFile(path, b.Bytes(), 0o600)
}
