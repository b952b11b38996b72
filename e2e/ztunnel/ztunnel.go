package ztunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/identity/identitytest"
	"github.com/isthmus-mesh/isthmus/identity/identitytest/istiocatest"
)

// Env is the environment variable with the absolute path of a real ztunnel.
const Env = "ISTHMUS_ZTUNNEL"

// Where it listens.
const (
	Inbound = "127.0.0.1:15008" // for HBONE
	Socks   = "127.0.0.1:15080" // SOCKS5, for what it is to send into the mesh
	ready   = "http://127.0.0.1:15021/healthz/ready"
)

// token is that of its pod, whose certificate the authority issues by it.
const token = "the token of a pod"

// Config says what a ztunnel is to be. Program and CA must be given.
type Config struct {
	Program string           // its path
	CA      *identitytest.CA // of cluster.local
	Env     []string         // key=value, over what it gets anyway
	// Start starts the process; nil: (*exec.Cmd).Start.
	Start func(*exec.Cmd) error
	// Wait bounds its start. Zero means 20 s.
	Wait time.Duration
}

// Ztunnel is a running one. Close it.
type Ztunnel struct {
	cmd  *exec.Cmd
	ca   *istiocatest.Server
	dir  string
	done chan struct{} // closed when it has ended
}

// Serve runs one that ends HBONE for shop/orders, a pod with the address 127.0.0.1.
func Serve(ctx context.Context, c Config) (*Ztunnel, error) {
	return c.start(ctx, "shop/orders-1/orders", workload("shop", "orders-1", "orders", "127.0.0.1", ""))
}

// Dial runs one that sends for edge/gateway: what is for 127.0.0.1 goes through a tunnel to the server at hop, who is to be shop/orders and
// has an address of its own in 127.0.0.0/8.
func Dial(ctx context.Context, c Config, hop netip.AddrPort) (*Ztunnel, error) {
	by := fmt.Sprintf("\n  waypoint: {destination: %q, hboneMtlsPort: %d}", "/"+hop.Addr().String(), hop.Port())
	return c.start(ctx, "edge/gateway-1/gateway", workload("edge", "gateway-1", "gateway", "127.9.9.9", "")+
		workload("shop", "hop-1", "orders", hop.Addr().String(), "")+workload("shop", "orders-1", "orders", "127.0.0.1", by))
}

// workload is one entry of the file with the mesh.
func workload(namespace, name, account, ip, more string) string {
	return fmt.Sprintf(`- uid: Kubernetes//v1/Pod/%[1]s/%[2]s
  name: %[2]s
  namespace: %[1]s
  serviceAccount: %[3]s
  trustDomain: cluster.local
  workloadIps: [%[4]s]
  protocol: HBONE
  node: n1
  network: ""
  clusterId: Kubernetes
  services: {}%[5]s
`, namespace, name, account, ip, more)
}

func (c *Config) start(ctx context.Context, self, workloads string) (_ *Ztunnel, err error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", Inbound)
	if err != nil {
		return nil, fmt.Errorf("start ztunnel: its port is taken, end what has it: %w", err)
	}
	l.Close()
	z := &Ztunnel{}
	defer func() {
		if err != nil {
			z.Close()
		}
	}()
	if z.dir, err = os.MkdirTemp("", "isthmus-ztunnel"); err != nil {
		return nil, err
	}
	if z.ca, err = istiocatest.New(c.CA); err != nil {
		return nil, err
	}
	if err := z.admit(c.CA.TrustDomain, self); err != nil {
		return nil, err
	}
	for name, content := range map[string][]byte{"mesh.yaml": []byte("workloads:\n" + workloads), "root.pem": z.ca.RootPEM(), "token": []byte(token)} {
		if err := os.WriteFile(filepath.Join(z.dir, name), content, 0o600); err != nil {
			return nil, err
		}
	}
	log, err := os.Create(z.logFile())
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, c.Program, "proxy", "ztunnel")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(append(os.Environ(),
		"PROXY_MODE=dedicated", "PROXY_WORKLOAD_INFO="+self, "NODE_NAME=n1", "CLUSTER_ID=Kubernetes",
		"LOCAL_XDS_PATH="+filepath.Join(z.dir, "mesh.yaml"), "XDS_ADDRESS=",
		"CA_ADDRESS=https://"+z.ca.Address(), "ALT_CA_HOSTNAME="+istiocatest.ServerName, "CA_ROOT_CA="+filepath.Join(z.dir, "root.pem"),
		"AUTH_TOKEN="+filepath.Join(z.dir, "token"),
		"ENABLE_ORIG_SRC=false",       // all have addresses of the loopback here
		"UNSTABLE_ENABLE_SOCKS5=true", // nobody redirects connections
	), c.Env...)
	start := c.Start
	if start == nil {
		start = (*exec.Cmd).Start
	}
	if err := start(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", Env, err)
	}
	z.cmd, z.done = cmd, make(chan struct{})
	go func() {
		defer close(z.done)
		_ = cmd.Wait() // its log says more
	}()
	if err := z.ready(ctx, c.wait()); err != nil {
		return nil, fmt.Errorf("ztunnel is not ready: %w; it says: %s", err, z.Log())
	}
	return z, nil
}

// admit makes the token that of self, a namespace, a pod and its account.
func (z *Ztunnel) admit(domain spiffeid.TrustDomain, self string) error {
	of := strings.Split(self, "/")
	id, err := spiffeid.FromSegments(domain, "ns", of[0], "sa", of[2])
	if err != nil {
		return err
	}
	z.ca.Admit(token, id)
	return nil
}

func (c *Config) wait() time.Duration {
	if c.Wait > 0 {
		return c.Wait
	}
	return 20 * time.Second
}

// ready waits until it serves.
func (z *Ztunnel) ready(ctx context.Context, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, ready, nil)
		if err != nil {
			return err
		}
		if res, err := http.DefaultClient.Do(req); err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-z.done:
			return errors.New("it has ended")
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// PID is the process.
func (z *Ztunnel) PID() int { return z.cmd.Process.Pid }

// Addr is where it ends HBONE.
func (z *Ztunnel) Addr() string { return Inbound }

// Drain asks it to end, as a node does with a pod.
func (z *Ztunnel) Drain() error { return z.cmd.Process.Signal(syscall.SIGTERM) }

// Done is closed when it has ended.
func (z *Ztunnel) Done() <-chan struct{} { return z.done }

func (z *Ztunnel) logFile() string { return filepath.Join(z.dir, "log") }

// Log is what it has said.
func (z *Ztunnel) Log() string {
	text, err := os.ReadFile(z.logFile())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Close ends it at once and takes its files away.
func (z *Ztunnel) Close() {
	if z.cmd != nil {
		_ = z.cmd.Process.Kill() // it may have gone by itself
		<-z.done
	}
	if z.ca != nil {
		z.ca.Close()
	}
	if z.dir != "" {
		os.RemoveAll(z.dir)
	}
}
