package capture

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/node"
	"github.com/isthmus-mesh/isthmus/e2e/world"
)

// FuncName is the process's name in world.Funcs.
const FuncName = "capture"

// Funcs is what world.Enter must know so that Hook works.
func Funcs() world.Funcs { return world.Funcs{FuncName: Main} }

// Mesh is what all pods of a mesh share.
type Mesh struct {
	TrustDomain string // empty: cluster.local
	ClusterID   string // empty: Kubernetes
	Istiod      string // host:port of its TLS port; empty: 10.244.0.1:15012
	ServerName  string // empty: istiod.istio-system.svc
	// Roots gives the PEM that istiod's certificate leads to, when a pod is captured.
	Roots func() []byte `json:"-"`
	// Wait is how long a connection waits for a policy that the workload lists and that has not come. Zero means 5 s; negative
	// does not wait.
	Wait time.Duration
	// Lenient chooses pods whose process follows ztunnel where it is stricter by itself: there, a policy that the workload lists and
	// that has not come does not deny. So what gets past a real mesh can be shown. Nil: none.
	Lenient func(namespace, pod string) bool `json:"-"`
}

// config is the process's configuration file.
type config struct {
	Mesh
	Namespace, Pod, ServiceAccount, Node string
	IP                                   netip.Addr
	TokenFile, RootsFile                 string
	ServicePorts                         string // as in node.CapturePod
	Lenient                              bool   // Mesh.Lenient's answer for this pod
	Ztunnel                              string // path of a real one, to run instead
}

// Hook starts the process for each pod.
func Hook(m Mesh) node.CaptureHook {
	if m.TrustDomain == "" {
		m.TrustDomain = "cluster.local"
	}
	if m.ClusterID == "" {
		m.ClusterID = "Kubernetes"
	}
	if m.Istiod == "" {
		m.Istiod = "10.244.0.1:15012"
	}
	if m.ServerName == "" {
		m.ServerName = "istiod.istio-system.svc"
	}
	return func(_ context.Context, p node.CapturePod) (node.CaptureProcess, error) {
		if path := os.Getenv(ZtunnelEnv); path != "" && !filepath.IsAbs(path) {
			return node.CaptureProcess{}, fmt.Errorf("%s is %q: give an absolute path, tests run in folders of their own", ZtunnelEnv, path)
		}
		cfg := config{
			Mesh: m, Namespace: p.Namespace, Pod: p.Name, ServiceAccount: p.ServiceAccount, Node: p.Node, IP: p.IP,
			TokenFile: p.TokenFile, RootsFile: filepath.Join(p.Dir, "root-cert.pem"),
			ServicePorts: p.ServicePorts,
			Lenient:      m.Lenient != nil && m.Lenient(p.Namespace, p.Name), Ztunnel: os.Getenv(ZtunnelEnv),
		}
		if err := os.WriteFile(cfg.RootsFile, m.Roots(), 0o600); err != nil {
			return node.CaptureProcess{}, err
		}
		text, err := json.Marshal(cfg)
		if err != nil {
			return node.CaptureProcess{}, err
		}
		path := filepath.Join(p.Dir, "capture.json")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return node.CaptureProcess{}, err
		}
		return node.CaptureProcess{Cmd: world.FuncCommand(FuncName, path)}, nil
	}
}

func readConfig(path string) (*config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	cfg := &config{}
	if err := json.Unmarshal(text, cfg); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return cfg, nil
}
