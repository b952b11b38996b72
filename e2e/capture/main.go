package capture

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/isthmus-mesh/isthmus/e2e/world"
	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/hbone/route"
	"github.com/isthmus-mesh/isthmus/hbone/wds"
	"github.com/isthmus-mesh/isthmus/identity"
	"github.com/isthmus-mesh/isthmus/identity/istioca"
)

const (
	readyFD   = 3 // a line there says that the process serves
	drainTime = 5 * time.Second
	// kept is how long nothing has passed on a connection outside of tunnels that is only kept, once its last request has been answered: it does not hold up the end.
	kept = time.Second
	// told is how long istiod may take to tell others that the pod speaks HBONE no more, and hearing how long they may take to hear it after us. Until then tunnels are taken.
	told    = 2 * time.Second
	hearing = 200 * time.Millisecond
	// straggling is how long nobody has to come any more before redirected connections are refused. The node takes the redirection away before it ends the
	// process, but who was led here until then may still be on the way, or wait to be accepted.
	straggling = 50 * time.Millisecond
)

// process is a capture process at work.
type process struct {
	cfg    *config
	id     *identity.Source
	mesh   *wds.Client
	authz  *wds.Authorizer
	dialer *hbone.Dialer
	log    *accessLog
	open   openConns
	// carried is what is carried outside of inbound tunnels.
	carried carried
}

// errPodEnded is the cause of an end that comes with the pod's own: nobody calls it any more.
var errPodEnded = errors.New("the pod has ended")

// Main runs the process until SIGTERM, by which its pod leaves the mesh, or SIGINT, by which the pod has ended; args is the path of its configuration. It returns the exit code.
func Main(args []string) int {
	ctx, stop := context.WithCancelCause(context.Background())
	defer stop(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		if <-signals == syscall.SIGINT {
			stop(errPodEnded)
		}
		stop(nil)
	}()
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "capture: the argument is the path of the configuration")
		return 2
	}
	cfg, err := readConfig(args[0])
	if err == nil && cfg.Ztunnel != "" {
		err = runZtunnel(ctx, cfg)
	} else if err == nil {
		err = run(ctx, cfg)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "capture:", err)
		return 1
	}
	return 0
}

func run(ctx context.Context, cfg *config) error {
	p, err := start(ctx, cfg)
	if err != nil {
		return err
	}
	defer p.mesh.Close()
	defer p.id.Close()
	server := &hbone.Server{Identity: p.id, Connect: p.connect}
	var lc net.ListenConfig
	hboneL, err := lc.Listen(ctx, "tcp4", netip.AddrPortFrom(cfg.IP, 15008).String())
	if err != nil {
		return err
	}
	serving, end := context.WithCancel(context.WithoutCancel(ctx)) // who has come is served, though nobody else is to come
	defer end()
	drainRedirected, err := p.takeRedirected(serving)
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(hboneL) }()
	go p.redecide(serving)
	if err := sayReady(); err != nil {
		return err
	}
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	drainRedirected()
	if !errors.Is(context.Cause(ctx), errPodEnded) {
		p.othersKnow(serving)
	}
	drain, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Shutdown(drain) }) // what has not ended is closed
	wg.Go(func() { p.carried.drain(drain) })
	wg.Wait()
	return p.dialer.Close()
}

// othersKnow waits until istiod says that this pod speaks HBONE no more, and a while longer, so that others have heard it, too: who calls port 15008 before that would be
// refused. It does not wait for long.
func (p *process) othersKnow(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, told)
	defer cancel()
	for {
		changed := p.mesh.Changed()
		w, err := p.mesh.Workload(ctx, p.cfg.IP)
		if err != nil || w.Tunnel != route.TunnelHBONE {
			break
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
	select {
	case <-time.After(hearing):
	case <-ctx.Done():
	}
}

// start gets the pod's identity and the first answer of istiod.
func start(ctx context.Context, cfg *config) (*process, error) {
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	td, err := spiffeid.TrustDomainFromString(cfg.TrustDomain)
	if err != nil {
		return nil, err
	}
	self, err := spiffeid.FromSegments(td, "ns", cfg.Namespace, "sa", cfg.ServiceAccount)
	if err != nil {
		return nil, err
	}
	id, err := istioca.New(ctx, istioca.Config{
		Addresses: []string{cfg.Istiod}, ServerName: cfg.ServerName, RootsFile: cfg.RootsFile, TokenFile: cfg.TokenFile,
		ClusterID: cfg.ClusterID, ID: self, DialContext: dialMarked, Logger: logger,
	})
	if err != nil {
		return nil, err
	}
	mesh, err := wds.New(wds.Config{
		Addresses: []string{cfg.Istiod}, ServerName: cfg.ServerName, RootsFile: cfg.RootsFile, TokenFile: cfg.TokenFile,
		Node:     wds.Node{IP: cfg.IP, Pod: cfg.Pod, Namespace: cfg.Namespace, ServiceAccount: cfg.ServiceAccount, ClusterID: cfg.ClusterID},
		Policies: true, Passthrough: true, DialContext: dialMarked, Logger: logger,
	})
	if err != nil {
		id.Close()
		return nil, err
	}
	if err := mesh.Ready(ctx); err != nil {
		return nil, errors.Join(err, mesh.Close(), id.Close())
	}
	authorizer := mesh.Authorizer(cfg.IP)
	authorizer.Lenient, authorizer.Wait = cfg.Lenient, cfg.Wait
	return &process{
		cfg: cfg, id: id, mesh: mesh, authz: authorizer, log: &accessLog{out: os.Stdout},
		dialer: &hbone.Dialer{Identity: id, Resolver: mesh, Plaintext: hbone.PlaintextAllow, NetDial: dialMarked,
			Baggage: "k8s.namespace.name=" + cfg.Namespace + ",k8s.pod.name=" + cfg.Pod, RetryWithin: -1}, // ztunnel tries nothing again
	}, nil
}

func sayReady() error {
	f := os.NewFile(readyFD, "ready")
	if f == nil {
		return errors.New("file descriptor 3 is not open: the node starts this process, nobody else")
	}
	if _, err := f.WriteString("ready\n"); err != nil {
		return fmt.Errorf("say that we are ready: %w", err)
	}
	return f.Close()
}

// takeRedirected listens for what the node redirects to this process. drain returns when nobody comes any more and the listeners are closed.
func (p *process) takeRedirected(ctx context.Context) (drain func(), err error) {
	if p.cfg.ServicePorts != "" {
		return p.followServices(ctx)
	}
	var lc net.ListenConfig
	outbound, err := lc.Listen(ctx, "tcp4", "127.0.0.1:15001")
	if err != nil {
		return nil, err
	}
	inbound, err := lc.Listen(ctx, "tcp4", "0.0.0.0:15006")
	if err != nil {
		outbound.Close()
		return nil, err
	}
	all := []*redirected{p.serve(ctx, outbound, originalDest, p.outbound), p.serve(ctx, inbound, originalDest, p.plaintext)}
	return func() { drainAll(all) }, nil
}

// redirected is a listener for connections that were meant to go elsewhere.
type redirected struct {
	l       *net.TCPListener
	leaving chan struct{} // closed when it is to close once nobody comes any more
	done    chan struct{} // closed when it is closed
}

// serve serves each connection of l in a goroutine of its own; dest tells where it was meant to go.
func (p *process) serve(ctx context.Context, l net.Listener, dest func(*net.TCPConn) (netip.AddrPort, error),
	carry func(context.Context, *exchange, *net.TCPConn, netip.AddrPort)) *redirected {
	r := &redirected{l: l.(*net.TCPListener), leaving: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(r.done)
		for {
			tcp, err := r.accept()
			if err != nil {
				return
			}
			dst, err := dest(tcp)
			if err != nil {
				world.Reset(tcp)
				continue
			}
			p.carried.serve(func(x *exchange) { carry(ctx, x, tcp, dst) })
		}
	}()
	return r
}

// accept is the next connection. An error is the end: the listener is closed, and nobody waits at it.
func (r *redirected) accept() (*net.TCPConn, error) {
	for missed := false; ; {
		c, err := r.l.AcceptTCP()
		if err == nil {
			return c, nil
		}
		// A deadline may pass while this process does not run: then there may be somebody yet.
		if missed || !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, errors.Join(err, r.l.Close())
		}
		select {
		case <-r.leaving:
			missed = true
		default:
		}
		if err := r.l.SetDeadline(time.Now().Add(straggling)); err != nil {
			return nil, errors.Join(err, r.l.Close())
		}
	}
}

// drainAll has listeners close when nobody comes any more, and waits for it.
func drainAll(all []*redirected) {
	for _, r := range all {
		close(r.leaving)
		_ = r.l.SetDeadline(time.Now().Add(straggling)) // closed already: done tells
	}
	for _, r := range all {
		<-r.done
	}
}
