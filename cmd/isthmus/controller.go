package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	controller "github.com/isthmus-mesh/isthmus/controller/run"
)

const controllerLong = `Run the controller: it brings the gateways of AmbientEdges into the mesh, wires
their waypoints, and takes it all back.

It runs in the cluster, from manifests/, or anywhere with a kubeconfig. To see
whether waypoints answer it speaks HBONE with an identity of its own, which
istiod gives it for its service account's token; --identity takes it from
elsewhere, as in isthmus dial. Until it has one it writes nothing for an
AmbientEdge with waypoints, says so in finding ISM336, and is not ready: /readyz
says why. Nor is it before it has read the cluster.

What it may not read of kinds that a cluster may lack is finding ISM349, and
stops who needs it. A missing right to read what every plan depends on ends it,
with an error that names the right.

At its start it reads trust domain, root namespace, cluster and network of the
mesh from istiod's ConfigMap (istio, or istio-REVISION, in --istio-namespace),
namespace and Deployment; flags come before that. A --trust-domain that the
ConfigMap contradicts is an error.

Logs go to standard error, as JSON with -o json.`

const controllerExample = `  # In a pod, as manifests/install/controller.yaml does
  isthmus controller --leader-elect

  # Only look: findings and plans in the status of AmbientEdges, and no more
  isthmus controller --observe-only

  # With an identity of a SPIRE agent, whose socket is mounted into the pod
  isthmus controller --leader-elect --identity spire \
    --socket /run/spire/agent.sock`

// controllerFlags are the flags of isthmus controller.
type controllerFlags struct {
	kube            kubeFlags
	mesh            meshFlags
	leaderElect     bool
	leaderNamespace string
	metrics, health string
	namespaces      []string
	observeOnly     bool
	logLevel        string
	rootNamespace   string
	aliases         []string // of the mesh's trust domain: those of flags, and what its configuration says
}

func newController(a *app) *cobra.Command {
	f := &controllerFlags{mesh: meshFlags{getenv: a.getenv}}
	cmd := &cobra.Command{
		Use:     "controller",
		Short:   "Run the controller",
		Long:    controllerLong,
		Example: controllerExample,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			level, err := f.check(cmd)
			if err != nil {
				return err
			}
			return a.controller(cmd.Context(), f, level)
		},
	}
	f.register(cmd)
	return cmd
}

func (f *controllerFlags) register(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.BoolVar(&f.leaderElect, "leader-elect", false, "work only while holding the lease isthmus-controller: needed with more than one replica")
	fs.StringVar(&f.leaderNamespace, "leader-elect-namespace", "", "`NAME` of that lease's namespace (default: the pod's own)")
	fs.StringVar(&f.metrics, "metrics-bind-address", "0", "`ADDR` to serve Prometheus metrics on; 0 for nowhere")
	fs.StringVar(&f.health, "health-probe-bind-address", "0", "`ADDR` to serve /healthz and /readyz on; 0 for nowhere")
	fs.StringSliceVar(&f.namespaces, "watch-namespaces", nil, "obey the AmbientEdges of these `NAMESPACES` only (default: of all)")
	fs.BoolVar(&f.observeOnly, "observe-only", false, "write nothing but status, whatever AmbientEdges say; the ClusterRole isthmus-observe is enough")
	fs.StringVar(&f.logLevel, "log-level", "info", "`LEVEL` from which on to log: debug, info, warn or error")
	fs.StringVar(&f.rootNamespace, "root-namespace", "", "root `NAMESPACE` of the mesh (default: what its configuration says, else istio-system)")
	for _, name := range []string{"root-namespace", "leader-elect-namespace", "watch-namespaces"} {
		_ = cmd.RegisterFlagCompletionFunc(name, completeNamespacesOf(cmd))
	}
	_ = cmd.RegisterFlagCompletionFunc("log-level", cobra.FixedCompletions([]cobra.Completion{"debug", "info", "warn", "error"}, cobra.ShellCompDirectiveNoFileComp))
	f.kube.registerCluster(cmd)
	f.mesh.register(cmd)
	for name, says := range map[string]string{
		"trust-domain": "trust `DOMAIN` of the mesh (default: what its configuration says, else cluster.local)",
		"cluster-id":   "istiod's `NAME` of our cluster (default: what istiod's Deployment says, else Kubernetes)",
		"network":      "Istio's `NAME` of our network (default: what istiod's namespace says, else the mesh's own)",
	} {
		fs.Lookup(name).Usage, fs.Lookup(name).DefValue = says, ""
	}
}

func (f *controllerFlags) check(cmd *cobra.Command) (slog.Level, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return 0, usagef(cmd.CommandPath(), "--log-level takes debug, info, warn or error, not %q", f.logLevel)
	}
	for _, a := range []struct{ flag, value string }{{"--metrics-bind-address", f.metrics}, {"--health-probe-bind-address", f.health}} {
		if _, _, err := net.SplitHostPort(a.value); err != nil && a.value != "0" {
			return 0, usagef(cmd.CommandPath(), "%s takes HOST:PORT, :PORT or 0, not %q", a.flag, a.value)
		}
	}
	if _, port, _ := net.SplitHostPort(f.metrics); f.metrics == f.health && f.metrics != "0" && port != "0" {
		return 0, usagef(cmd.CommandPath(), "--metrics-bind-address and --health-probe-bind-address cannot both be %s", f.metrics)
	}
	return level, f.mesh.check(cmd)
}

// listenable checks that the addresses are to be had, before anything is asked of the cluster.
func (f *controllerFlags) listenable(ctx context.Context) error {
	for _, addr := range []string{f.metrics, f.health} {
		if addr == "0" {
			continue
		}
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
		if err != nil {
			return explainController("the controller cannot start", addr, err)
		}
		l.Close()
	}
	return nil
}

// explainController is explainKube, for an error that may be one of the controller's own ports too.
func explainController(what, where string, err error) error {
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != "listen" {
		return explainKube(what, where, err)
	}
	f := &failure{what: what, where: where, err: err, next: "choose another address with --metrics-bind-address and --health-probe-bind-address; 0 is for nowhere"}
	if op.Addr != nil {
		f.where = op.Addr.String()
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		f.next = "another program has that port: stop it, or " + f.next
	}
	return f
}

// controller runs until ctx ends. To be stopped is no failure, however far it has come: what was under way then fails for that.
func (a *app) controller(ctx context.Context, f *controllerFlags, level slog.Level) error {
	opts := &slog.HandlerOptions{Level: level}
	var handler slog.Handler = slog.NewTextHandler(a.stderr, opts)
	if a.output == outputJSON {
		handler = slog.NewJSONHandler(a.stderr, opts)
	}
	log := slog.New(handler)
	ctrl.SetLogger(logr.FromSlogHandler(handler))
	klog.SetLogger(logr.FromSlogHandler(handler))
	cfg, _, err := f.kube.config()
	if err != nil {
		return err
	}
	mgr, denied, err := f.begin(ctx, cfg, log)
	switch {
	case ctx.Err() != nil:
		log.Info("stopped before it began")
		return nil //nolint:nilerr // to be stopped is no failure, and what was under way failed for that
	case err != nil:
		return err
	}
	v := buildVersion()
	log.Info("isthmus controller", "version", v.Version, "commit", v.Commit, "observeOnly", f.observeOnly, "namespaces", f.namespaces)
	return start(ctx, mgr, denied, cfg.Host)
}

// start runs a manager until ctx ends, or until it may not read what no plan can do without: it would wait for that in silence.
func start(ctx context.Context, mgr manager.Manager, denied *controller.Denied, host string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { denied.Guard(ctx, mgr.GetClient(), cancel) })
	err := mgr.Start(ctx)
	cancel(nil)
	wg.Wait()
	if missing, is := errors.AsType[*controller.MissingReadsError](context.Cause(ctx)); is {
		return &failure{
			what: "the controller may not read what every plan depends on", where: host, err: missing,
			next: "give its account these rights, in all namespaces; the ClusterRole isthmus-observe of this release has all that it needs: kubectl apply -k manifests",
		}
	}
	if err != nil {
		return explainController("the controller ended", host, err)
	}
	return nil
}

// begin makes the manager, when the ports are to be had and the mesh is known, and says what is told of kinds that it may not read.
func (f *controllerFlags) begin(ctx context.Context, cfg *rest.Config, log *slog.Logger) (manager.Manager, *controller.Denied, error) {
	if err := f.listenable(ctx); err != nil {
		return nil, nil, err
	}
	if err := f.learn(ctx, cfg, log); err != nil {
		return nil, nil, err
	}
	return f.manager(cfg, newLazyIdentity(&f.mesh, log), log.Handler())
}

// manager makes the manager with all that runs in it.
func (f *controllerFlags) manager(cfg *rest.Config, id *lazyIdentity, handler slog.Handler) (manager.Manager, *controller.Denied, error) {
	scheme, err := controller.Scheme()
	if err != nil {
		return nil, nil, err
	}
	grace := 20 * time.Second
	o := manager.Options{
		Scheme: scheme, Logger: logr.FromSlogHandler(handler),
		Metrics: server.Options{BindAddress: f.metrics}, HealthProbeBindAddress: f.health, GracefulShutdownTimeout: &grace,
		LeaderElection: f.leaderElect, LeaderElectionID: "isthmus-controller", LeaderElectionNamespace: f.leaderNamespace,
		LeaderElectionReleaseOnCancel: true,
	}
	denied := controller.Configure(cfg, &o, f.namespaces...)
	httpClient, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, nil, explainController("the controller cannot start", cfg.Host, err)
	}
	mapper, err := apiutil.NewDynamicRESTMapper(cfg, httpClient)
	if err != nil {
		return nil, nil, explainController("the controller cannot start", cfg.Host, err)
	}
	if err := served(mapper); meta.IsNoMatchError(err) {
		return nil, nil, explainKube("this cluster lacks what the controller works on", cfg.Host, err)
	} else if err != nil {
		return nil, nil, explainController("the controller cannot start", cfg.Host, err)
	}
	o.MapperProvider = func(*rest.Config, *http.Client) (meta.RESTMapper, error) { return mapper, nil }
	mgr, err := manager.New(cfg, o)
	if err != nil {
		return nil, nil, explainController("the controller cannot start", cfg.Host, err)
	}
	err = errors.Join(
		mgr.Add(id),
		mgr.AddHealthzCheck("ping", healthz.Ping),
		mgr.AddReadyzCheck("identity", func(*http.Request) error { return id.ready() }),
		controller.Setup(mgr, controller.Options{Prober: controller.NewProber(id), Able: id.able, TrustDomain: f.mesh.trustDomain, TrustDomainAliases: f.aliases, RootNamespace: f.rootNamespace, ObserveOnly: f.observeOnly, Denied: denied}),
	)
	return mgr, denied, err
}

// served checks that the CRDs are there, rather than let the controller wait for them in silence.
func served(mapper meta.RESTMapper) error {
	for _, gvk := range []schema.GroupVersionKind{
		v1alpha1.GroupVersion().WithKind("AmbientEdge"),
		{Group: "gateway.networking.k8s.io", Version: "v1", Kind: "Gateway"},
		{Group: "gateway.networking.k8s.io", Version: "v1", Kind: "GatewayClass"},
		{Group: "gateway.networking.k8s.io", Version: "v1", Kind: "HTTPRoute"},
		{Group: "gateway.networking.k8s.io", Version: "v1beta1", Kind: "ReferenceGrant"},
		{Group: "security.istio.io", Version: "v1", Kind: "AuthorizationPolicy"},
		{Group: "security.istio.io", Version: "v1", Kind: "PeerAuthentication"},
		{Group: "security.istio.io", Version: "v1", Kind: "RequestAuthentication"},
	} {
		if _, err := mapper.RESTMapping(gvk.GroupKind(), gvk.Version); err != nil {
			return fmt.Errorf("look up %s: %w", gvk.Kind, err)
		}
	}
	return nil
}
