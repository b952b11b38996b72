package controllertest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"testing"

	"github.com/go-logr/logr"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/run"
	"github.com/isthmus-mesh/isthmus/e2e/capture"
	"github.com/isthmus-mesh/isthmus/e2e/envoyshim"
	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/mesh/meshtest"
	"github.com/isthmus-mesh/isthmus/e2e/story/apps"
	"github.com/isthmus-mesh/isthmus/e2e/world"
	"github.com/isthmus-mesh/isthmus/manifests"
)

func TestMain(m *testing.M) {
	world.Enter(mesh.Funcs(capture.Funcs(), envoyshim.Funcs(), world.Funcs{"orders": apps.Orders, "caller": apps.Caller}))
	ctrl.SetLogger(logr.Discard())
	// Most tests wait: for the controller, for the API server. Those that want it for themselves come first, one by one.
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	os.Exit(meshtest.Main(m, &api))
}

// api is an API server with everything installed, a player, and the controller that runs against it with the rights of its own account.
var api = meshtest.Shared{Start: start, End: func() {
	shared.stop()
	shared.player.stop()
}}

// shared is what runs beside api.
var shared struct {
	ask    *asker
	player *player
	stop   func() // ends the controller
}

// asker is the Prober: what it says is the test's to choose. Everything answers, unless it was silenced.
type asker struct {
	mu     sync.Mutex
	silent map[string]error // by the identity's namespace
	asked  map[string]int
}

func (a *asker) silence(namespace string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.silent[namespace] = err; err == nil {
		delete(a.silent, namespace)
	}
}

func (a *asker) times(namespace string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked[namespace]
}

func (a *asker) answer(peers []spiffeid.ID) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var namespace, name string
	if _, err := fmt.Sscanf(peers[0].Path(), "/ns/%s", &namespace); err != nil {
		return err
	}
	for i, r := range namespace {
		if r == '/' {
			namespace, name = namespace[:i], namespace[i:]
			break
		}
	}
	if name == "" {
		return fmt.Errorf("%s names no account", peers[0])
	}
	a.asked[namespace]++
	return a.silent[namespace]
}

func (a *asker) Answers(_ context.Context, _ netip.AddrPort, peers []spiffeid.ID, _ string) error {
	return a.answer(peers)
}

func (a *asker) Serves(_ context.Context, _ netip.AddrPort, peers []spiffeid.ID, _ string, _ []byte) error {
	return a.answer(peers)
}

func start(ctx context.Context) (*mesh.Mesh, error) {
	m, err := mesh.Start(ctx, mesh.Options{APIOnly: true, Quick: true})
	if err != nil {
		return m, err
	}
	all, err := manifests.Install()
	if err != nil {
		return m, err
	}
	vendors, err := os.ReadFile("testdata/vendor-crds.yaml")
	if err != nil {
		return m, err
	}
	if err := m.Apply(ctx, string(vendors)+"---\n"+string(all)+"---\n"+classes); err != nil {
		return m, err
	}
	shared.ask = &asker{silent: map[string]error{}, asked: map[string]int{}}
	if shared.player, err = newPlayer(ctx, m.Config, m.Client()); err != nil {
		return m, err
	}
	shared.stop, err = runController(m, account, run.Options{Prober: shared.ask}, leaveOwn)
	return m, err
}

// labelOwn is on AmbientEdges that the controller of shared does not see, so that a test may run controllers of its own for them.
const labelOwn = "test/own"

// leaveOwn is a change for newManager.
func leaveOwn(_ *rest.Config, mo *ctrl.Options) {
	notOwn, err := labels.Parse("!" + labelOwn)
	if err != nil {
		panic(err)
	}
	for kind, by := range mo.Cache.ByObject {
		if _, ok := kind.(*v1alpha1.AmbientEdge); ok {
			by.Label = notOwn
			mo.Cache.ByObject[kind] = by
		}
	}
}

// account is the controller's.
const account = "system:serviceaccount:" + manifests.Namespace + ":" + manifests.Controller

// runController runs a controller with the rights of an account, as newManager makes it, until the function that it returns is called.
func runController(m *mesh.Mesh, account string, o run.Options, change func(*rest.Config, *ctrl.Options), namespaces ...string) (stop func(), err error) {
	mgr, err := newManager(m, account, o, change, namespaces...)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	stop = func() {
		cancel()
		if err := <-ended; err != nil {
			fmt.Println("the controller ended:", err)
		}
	}
	if !mgr.GetCache().WaitForCacheSync(ctx) {
		stop()
		return nil, errors.New("the controller's cache does not fill")
	}
	return stop, nil
}

// newManager is a controller of an account that does not run yet, for the AmbientEdges of namespaces; none are all. change is what a test wants otherwise,
// or nil.
func newManager(m *mesh.Mesh, account string, o run.Options, change func(*rest.Config, *ctrl.Options), namespaces ...string) (ctrl.Manager, error) {
	cfg, err := m.UserConfig(account, "system:serviceaccounts", "system:authenticated")
	if err != nil {
		return nil, err
	}
	scheme, err := run.Scheme()
	if err != nil {
		return nil, err
	}
	skip := true // the name of the controller is one of metrics; tests run several
	mo := ctrl.Options{Scheme: scheme, Metrics: server.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: &skip}}
	o.Denied = run.Configure(cfg, &mo, namespaces...)
	if change != nil {
		change(cfg, &mo)
	}
	mgr, err := ctrl.NewManager(cfg, mo)
	if err != nil {
		return nil, err
	}
	return mgr, run.Setup(mgr, o)
}

const classes = `
{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: istio-waypoint}, spec: {controllerName: istio.io/mesh-controller}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: kgateway}, spec: {controllerName: kgateway.dev/kgateway}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: istio}, spec: {controllerName: istio.io/gateway-controller}}
`
