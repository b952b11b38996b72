package scale

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/isthmus-mesh/isthmus/controller/run"
	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/world"
)

var (
	edges      = flag.Int("edges", 5, "number of AmbientEdges")
	namespaces = flag.Int("namespaces", 20, "number of namespaces with a waypoint, shared out among the edges")
	services   = flag.Int("services", 100, "number of Services, each with a pod and a route, shared out among the namespaces")
	churn      = flag.Duration("churn", 15*time.Second, "how long 100 objects a second change while some changes are measured")
)

func TestMain(m *testing.M) {
	world.Enter(mesh.Funcs(world.Funcs{"controller": controller}))
	ctrl.SetLogger(logr.Discard())
	os.Exit(m.Run())
}

// metricsAddress is in the mesh's namespace.
const metricsAddress = "127.0.0.1:18080"

// controller is the process under test: the controller as isthmus controller runs it, but for waypoints, which all answer. args is its
// kubeconfig.
func controller(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	handler := slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})
	ctrl.SetLogger(logr.FromSlogHandler(handler))
	if err := control(ctx, args[0]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func control(ctx context.Context, kubeconfig string) error {
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	scheme, err := run.Scheme()
	if err != nil {
		return err
	}
	o := ctrl.Options{Scheme: scheme, Metrics: server.Options{BindAddress: metricsAddress}}
	denied := run.Configure(cfg, &o)
	mgr, err := ctrl.NewManager(cfg, o)
	if err != nil {
		return err
	}
	if err := run.Setup(mgr, run.Options{Prober: everybody{}, Denied: denied}); err != nil {
		return err
	}
	return mgr.Start(ctx)
}

// everybody answers.
type everybody struct{}

func (everybody) Answers(context.Context, netip.AddrPort, []spiffeid.ID, string) error { return nil }

func (everybody) Serves(context.Context, netip.AddrPort, []spiffeid.ID, string, []byte) error {
	return nil
}

var _ run.Prober = everybody{}
