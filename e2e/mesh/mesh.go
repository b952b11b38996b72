package mesh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/e2e/node"
	"github.com/isthmus-mesh/isthmus/e2e/programs"
	"github.com/isthmus-mesh/isthmus/e2e/world"
)

// Istiod is where istiod listens, inside the mesh's namespace; pods reach it by its Service name too.
type Istiod struct {
	XDS, CA    netip.AddrPort // with TLS, the same port
	Monitoring netip.AddrPort // plain HTTP: metrics, debug pages
	ServerName string         // in its certificate
}

// Mesh is a running control plane. Its fields are not to be changed. Its methods may be called by several goroutines at once.
type Mesh struct {
	// Kubeconfig is a file for the administrator that works for processes in NS.
	Kubeconfig string
	// Config reaches the API server from this process. Copy it before changing it.
	Config *rest.Config
	// NS is the network namespace of the control plane, and the node's.
	NS *world.NS
	// Istiod is zero with Options.APIOnly, as is RootPEM, the root of the mesh's certificates.
	Istiod  Istiod
	RootPEM []byte
	// Dir has a folder logs.
	Dir string
	// Node is nil with Options.APIOnly.
	Node *node.Player
	// Programs are those that run here; Missing says what the mesh has to do without.
	Programs programs.Set
	// Ready is how long the start took, without building.
	Ready time.Duration

	opts   Options
	client client.WithWatch
	http   *http.Client // through NS
	ca     *authority
	// kubeletClient is the certificate that the API server shows to the node.
	kubeletClient []byte
	nodeLog       *os.File
	temp          *world.TempDir // nil when Options.Dir is set

	mu      sync.Mutex // guards the fields below
	started []*process // in order of their start
	stopped bool
	keep    bool
}

// Funcs are the functions that world.Enter must know for a mesh with a node, with more of the caller's.
func Funcs(more ...world.Funcs) world.Funcs {
	all := node.Funcs()
	for _, m := range more {
		for name, f := range m {
			all[name] = f
		}
	}
	return all
}

// Client reads, writes and watches the API server directly, without a cache. It knows the types of Kubernetes, Istio and the
// Gateway API.
func (m *Mesh) Client() client.WithWatch { return m.client }

// Command makes a command for a program of Programs, or any other, with KUBECONFIG set to the administrator's.
// Start it with NS.Start.
func (m *Mesh) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	path := m.Programs.Path(programs.Name(name))
	if path == "" {
		path = name
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+m.Kubeconfig)
	return cmd
}

// Run runs what Command makes, to its end, and returns its standard output. Its error has what it said on standard error.
func (m *Mesh) Run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := m.Command(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := m.NS.Start(cmd); err != nil {
		return "", fmt.Errorf("run %s: %w", name, err)
	}
	if err := cmd.Wait(); err != nil {
		return stdout.String(), fmt.Errorf("run %s: %w: %s", name, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), nil
}

// KubeconfigFor is the administrator's configuration for those who reach the API server at another address, as
// through a relay: "127.0.0.1:40000".
func (m *Mesh) KubeconfigFor(address string) ([]byte, error) {
	return kubeconfig(m.ca, "https://"+address, m.Config.CertData, m.Config.KeyData)
}

// UserConfig is a REST configuration like Config for another user, who has the rights that RBAC gives him and his groups.
func (m *Mesh) UserConfig(user string, groups ...string) (*rest.Config, error) {
	p, err := m.ca.client(user, groups...)
	if err != nil {
		return nil, err
	}
	c := rest.CopyConfig(m.Config)
	c.CertData, c.KeyData = p.cert, p.key
	return c, nil
}

// kubeconfig is a file's content; the server is known by its name, whatever address leads to it.
func kubeconfig(ca *authority, server string, cert, key []byte) ([]byte, error) {
	c := clientcmdapi.NewConfig()
	c.Clusters["mesh"] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: ca.pem, TLSServerName: serverName}
	c.AuthInfos["admin"] = &clientcmdapi.AuthInfo{ClientCertificateData: cert, ClientKeyData: key}
	c.Contexts["mesh"] = &clientcmdapi.Context{Cluster: "mesh", AuthInfo: "admin"}
	c.CurrentContext = "mesh"
	return clientcmd.Write(*c)
}

// Process is a running program of the control plane.
type Process struct {
	Name string
	PID  int
	Log  string // file
}

// Processes lists the programs of the control plane in order of their start.
func (m *Mesh) Processes() []Process {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Process
	for _, p := range m.started {
		out = append(out, Process{Name: p.name, PID: p.cmd.Process.Pid, Log: p.log})
	}
	return out
}

// runs reports whether a program runs, or may not be started any more.
func (m *Mesh) runs(name programs.Name) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stopped || slices.ContainsFunc(m.started, func(p *process) bool { return p.name == string(name) })
}

// kill ends a program, if it runs.
func (m *Mesh) kill(name programs.Name) error {
	m.mu.Lock()
	i := slices.IndexFunc(m.started, func(p *process) bool { return p.name == string(name) })
	if i < 0 {
		m.mu.Unlock()
		return nil
	}
	p := m.started[i]
	m.started = slices.Delete(slices.Clone(m.started), i, i+1)
	m.mu.Unlock()
	return p.stop()
}

// Keep makes Stop leave the folder where it is, for people to look into.
func (m *Mesh) Keep() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keep = true
}

// Stop ends everything in the opposite order of the start, and returns when all processes are gone. It is an error when one
// of them has ended before; the folder then stays. A second call does nothing.
func (m *Mesh) Stop() error {
	m.mu.Lock()
	if m.stopped {
		m.mu.Unlock()
		return nil
	}
	m.stopped = true
	procs := m.started
	m.started = nil
	m.mu.Unlock()

	var errs []error
	if m.Node != nil {
		errs = append(errs, m.Node.Close())
	}
	for i := len(procs) - 1; i >= 0; i-- {
		errs = append(errs, procs[i].stop())
	}
	if m.http != nil {
		m.http.CloseIdleConnections()
	}
	if m.NS != nil {
		errs = append(errs, m.NS.Close())
	}
	if m.nodeLog != nil {
		errs = append(errs, m.nodeLog.Close())
	}
	m.mu.Lock()
	remove := !m.keep && errors.Join(errs...) == nil
	m.mu.Unlock()
	errs = append(errs, m.leaveDir(remove))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w\nlogs are in %s", err, m.Dir)
	}
	return nil
}

// logger is where the node's log goes.
func (m *Mesh) logger() (*slog.Logger, error) {
	if m.opts.Logger != nil {
		return m.opts.Logger, nil
	}
	f, err := os.Create(m.logPath("node.log"))
	if err != nil {
		return nil, err
	}
	m.nodeLog = f
	return slog.New(slog.NewTextHandler(f, &slog.HandlerOptions{Level: slog.LevelDebug})), nil
}
