package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	controller "github.com/isthmus-mesh/isthmus/controller/run"
)

const controllerLong = `Run the controller: it brings the gateways of AmbientEdges into the mesh, wires their waypoints, and takes it all back.

It runs in the cluster, from manifests/, or anywhere with a kubeconfig. To see whether waypoints answer it speaks HBONE
with an identity of its own, which istiod gives it for its service account's token; without one it plans, and wires nothing.`

const controllerExample = `  # In a pod, as manifests/controller.yaml does
  isthmus controller --leader-elect

  # Only look: findings and plans in the status of AmbientEdges, nothing else is written
  isthmus controller --observe-only`

// controllerFlags are the flags of isthmus controller.
type controllerFlags struct {
	kube            kubeFlags
	mesh            meshFlags
	leaderElect     bool
	leaderNamespace string
	metrics, health string
	observeOnly     bool
	logJSON         bool
}

func newController(a *app) *cobra.Command {
	f := &controllerFlags{mesh: meshFlags{getenv: a.getenv}}
	cmd := &cobra.Command{
		Use:     "controller",
		Short:   "Run the controller",
		Long:    controllerLong,
		Example: controllerExample,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.mesh.check(cmd); err != nil {
				return err
			}
			return a.controller(cmd.Context(), f)
		},
	}
	f.kube.register(cmd.Flags())
	f.mesh.register(cmd.Flags())
	f.mesh.registerFiles(cmd.Flags())
	cmd.Flags().BoolVar(&f.leaderElect, "leader-elect", false, "work only while holding the lease isthmus-controller: needed with more than one replica")
	cmd.Flags().StringVar(&f.leaderNamespace, "leader-elect-namespace", "", "`NAMESPACE` of that lease (default: the pod's own)")
	cmd.Flags().StringVar(&f.metrics, "metrics-bind-address", "0", "`ADDRESS` to serve Prometheus metrics on; 0 for nowhere")
	cmd.Flags().StringVar(&f.health, "health-probe-bind-address", "0", "`ADDRESS` to serve /healthz and /readyz on; 0 for nowhere")
	cmd.Flags().BoolVar(&f.observeOnly, "observe-only", false, "write nothing but status, whatever AmbientEdges say; the ClusterRole isthmus-observe is enough")
	cmd.Flags().BoolVar(&f.logJSON, "log-json", false, "log lines of JSON instead of text")
	return cmd
}

func (a *app) controller(ctx context.Context, f *controllerFlags) error {
	var handler slog.Handler = slog.NewTextHandler(a.stderr, nil)
	if f.logJSON {
		handler = slog.NewJSONHandler(a.stderr, nil)
	}
	ctrl.SetLogger(logr.FromSlogHandler(handler))
	cfg, _, err := f.kube.config()
	if err != nil {
		return err
	}
	scheme, err := controller.Scheme()
	if err != nil {
		return err
	}
	mgr, err := ctrl.NewManager(cfg, manager.Options{
		Scheme: scheme, Metrics: server.Options{BindAddress: f.metrics}, HealthProbeBindAddress: f.health,
		LeaderElection: f.leaderElect, LeaderElectionID: "isthmus-controller", LeaderElectionNamespace: f.leaderNamespace,
		LeaderElectionReleaseOnCancel: true,
	})
	if err != nil {
		return explainKube("the controller cannot start", cfg.Host, err)
	}
	id := newLazyIdentity(&f.mesh, slog.New(handler))
	if err := mgr.Add(id); err != nil {
		return err
	}
	if err := controller.Setup(mgr, controller.Options{Prober: controller.NewProber(id), TrustDomain: f.mesh.trustDomain, ObserveOnly: f.observeOnly}); err != nil {
		return err
	}
	if err := errors.Join(mgr.AddHealthzCheck("ping", healthz.Ping), mgr.AddReadyzCheck("ping", healthz.Ping)); err != nil {
		return err
	}
	if err := mgr.Start(ctx); err != nil {
		return explainKube("the controller ended", cfg.Host, err)
	}
	return nil
}
