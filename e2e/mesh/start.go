package mesh

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/isthmus-mesh/isthmus/e2e/node"
	"github.com/isthmus-mesh/isthmus/e2e/programs"
	"github.com/isthmus-mesh/isthmus/e2e/world"
)

// nodeAddr is where everything of the control plane listens.
func nodeAddr() netip.Addr { return netip.AddrFrom4([4]byte{10, 244, 0, 1}) }

// Start starts a mesh and returns when it is ready: the API server serves, all CRDs are established, istiod is ready,
// and so is the node. Programs that are not there yet are built first, which needs the network and
// minutes. The program must have called world.Enter with Funcs. The caller calls Stop.
func Start(ctx context.Context, o Options) (_ *Mesh, err error) {
	if !world.Inside() {
		return nil, errors.New("start mesh: not inside a world: call world.Enter(mesh.Funcs()) first")
	}
	m := &Mesh{opts: o}
	if m.Programs, err = programs.Ensure(ctx, wanted(o), o.Progress); err != nil {
		return nil, fmt.Errorf("start mesh: %w", err)
	}
	begin := time.Now()
	asked := ctx
	if t := o.timeout(); t > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t)
		defer cancel()
	}
	if err := m.start(ctx); err != nil {
		if asked.Err() != nil { // nobody wants to know why
			_ = m.Stop()
			return nil, fmt.Errorf("start mesh: %w", err)
		}
		m.Keep()
		_ = m.Stop() // what it could say is in err already
		return nil, fmt.Errorf("start mesh: %w\nlogs are in %s", err, m.Dir)
	}
	m.Ready = time.Since(begin)
	m.say("mesh is ready after %.1f s", m.Ready.Seconds())
	return m, nil
}

// wanted are the programs that o needs.
func wanted(o Options) []programs.Name {
	if !o.APIOnly {
		return programs.All()
	}
	return slices.DeleteFunc(programs.All(), func(n programs.Name) bool {
		return slices.Contains([]programs.Name{programs.PilotDiscovery, programs.PilotAgent, programs.Envoy,
			programs.EnvoyBootstrap, programs.Injector, programs.Istioctl}, n)
	})
}

func (m *Mesh) say(format string, args ...any) { fmt.Fprintf(m.opts.progress(), format+"\n", args...) }

// start does what Start promises; Stop cleans up after it, also when it fails.
func (m *Mesh) start(ctx context.Context) error {
	if err := m.makeDir(); err != nil {
		return err
	}
	if err := m.makeNamespace(); err != nil {
		return err
	}
	if err := m.startAPI(ctx); err != nil {
		return err
	}
	// Behind the CRDs: its garbage collector learns of new kinds every 30 s only.
	if err := m.startControllerManager(); err != nil || m.opts.APIOnly {
		return err
	}
	if err := m.prepareIstiod(ctx); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.StartIstiod(gctx) })
	g.Go(func() error { return m.startNode(gctx) })
	return g.Wait()
}

func (m *Mesh) path(elem ...string) string { return filepath.Join(append([]string{m.Dir}, elem...)...) }

func (m *Mesh) logPath(name string) string { return m.path("logs", name) }

// makeNamespace makes the network in which everything listens.
func (m *Mesh) makeNamespace() error {
	ns, err := world.NewNS("mesh")
	if err != nil {
		return err
	}
	m.NS = ns
	m.http = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: ns.DialContext}}
	return m.AddAddress(nodeAddr())
}

// run starts a program of the control plane, with env on top of a small environment of its own.
func (m *Mesh) run(name programs.Name, env []string, args ...string) (*process, error) {
	cmd := exec.CommandContext(context.Background(), m.Programs.Path(name), args...)
	cmd.Env = []string{"HOME=" + m.Dir, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir()}
	if m.opts.Quick {
		cmd.Env = append(cmd.Env, "GOGC=400")
	}
	cmd.Env = append(cmd.Env, env...)
	cmd.Dir = m.Dir
	p, err := startProcess(m.NS, m.path("logs"), string(name), cmd)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.started = append(m.started, p)
	return p, nil
}

// get asks for a page in the namespace and is satisfied with 200.
func (m *Mesh) get(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := m.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, res.Status)
	}
	return nil
}

func (m *Mesh) startNode(ctx context.Context) (err error) {
	log, err := m.logger()
	if err != nil {
		return err
	}
	m.Node, err = node.Start(ctx, node.Config{
		REST: m.Config, KubeletClient: m.kubeletClient, NS: m.NS, Dir: m.path("node"), Images: m.opts.Images, Program: m.opts.Program, Capture: m.opts.Capture,
		Rules: m.opts.Rules, RotateTokens: m.opts.RotateTokens, Logger: log,
	})
	return err
}
