package run

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// Options of the controller. The zero value plans, and writes only for edges without waypoints, as it can ask none.
type Options struct {
	// Prober asks waypoints whether they answer. Nil: nobody can.
	Prober Prober
	// Able says why Prober cannot ask now, or nil. Nothing is written for waypoints while it cannot. It may block for as long as it takes to know.
	// Nil: a Prober always can.
	Able func() error
	// TrustDomain is the mesh's. Empty means cluster.local.
	TrustDomain string
	// TrustDomainAliases are the mesh's.
	TrustDomainAliases []string
	// RootNamespace is the mesh's. Empty means istio-system.
	RootNamespace string
	// ObserveOnly: nothing is written but status, whatever the AmbientEdges say.
	ObserveOnly bool
	// Denied is what Configure returned for the manager. Nil: a kind that may not be read keeps all AmbientEdges waiting.
	Denied *Denied
}

const (
	// workers is how many edges are reconciled at once.
	workers = 4
	// firstRetry and lastRetry bound the wait after an error. An API server that is back is noticed soon.
	firstRetry = 50 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// Configure sets what the controller needs of its manager. AmbientEdges are those of the namespaces; none means of all.
//
// There is no rate limit towards the API server. Its priority and fairness puts service accounts into level workload-low, which has 245 of 600
// seats by default and queues what is more, so it is that which keeps the controller from crowding out others, and which gives it what others
// leave; a limit of our own would only make it slower than the API server allows. What it may have under way is bounded all the same: workers
// times atOnce, an eighth of those seats.
//
// The cache keeps of each kind only what plans depend on, and gives it out without a copy, so nobody but the controller may use it. Pods are
// those of the whole cluster: a watch for each namespace with a backend would be a thousand of them. Nobody begins to watch a kind by reading it.
//
// Nobody waits for a kind that a cluster may lack, or that may not be read. It returns what the cache tells of those, for Options.
func Configure(cfg *rest.Config, o *ctrl.Options, namespaces ...string) *Denied {
	cfg.QPS, cfg.Burst = -1, 0
	unsafe := true
	edges := cache.ByObject{}
	for _, ns := range namespaces {
		if edges.Namespaces == nil {
			edges.Namespaces = map[string]cache.Config{}
		}
		edges.Namespaces[ns] = cache.Config{}
	}
	denied := newDenied(namespaces...)
	o.NewCache = denied.newCache
	o.Cache = cache.Options{
		DefaultTransform: strip, ByObject: map[client.Object]cache.ByObject{&v1alpha1.AmbientEdge{}: edges}, ReaderFailOnMissingInformer: true,
		DefaultWatchErrorHandler: denied.handle,
	}
	for _, kind := range kinds() {
		o.Cache.ByObject[kind] = cache.ByObject{UnsafeDisableDeepCopy: &unsafe}
	}
	o.Client.Cache = &client.CacheOptions{Unstructured: true} // the kinds of vendors' switches
	return denied
}

// kinds are those that plans depend on, besides AmbientEdges.
func kinds() []client.Object {
	return []client.Object{
		&corev1.Namespace{}, &corev1.Pod{}, &corev1.Service{}, &appsv1.Deployment{}, &appsv1.DaemonSet{}, &gatewayv1.Gateway{},
		&gatewayv1.GatewayClass{}, &gatewayv1.HTTPRoute{}, &gatewayv1beta1.ReferenceGrant{}, &securityv1.AuthorizationPolicy{}, &securityv1.PeerAuthentication{},
		&securityv1.RequestAuthentication{}, &networkingv1.Ingress{}, &networkingv1.IngressClass{},
	}
}

// Setup adds the controller to a manager, whose scheme is Scheme and whose options Configure has set. It does not block; the manager runs it.
// Check "cluster" of its /readyz is well when it has read the cluster.
func Setup(mgr ctrl.Manager, o Options) error {
	if mgr == nil {
		return errors.New("set up controller: no manager")
	}
	if err := index(context.Background(), mgr.GetFieldIndexer()); err != nil {
		return err
	}
	r := &reconciler{
		client: mgr.GetClient(), live: mgr.GetAPIReader(), events: mgr.GetEventRecorder("isthmus-controller"),
		trustDomain: o.TrustDomain, aliases: o.TrustDomainAliases, rootNamespace: o.RootNamespace, observeOnly: o.ObserveOnly, facts: facts{prober: o.Prober, able: o.Able},
	}
	server, err := discovery.NewDiscoveryClientForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("set up controller: %w", err)
	}
	r.vendors.feed = newFeed(mgr.GetCache(), server, watch{r})
	r.direct.lenient = true
	if o.Denied != nil {
		o.Denied.tell(r.vendors.feed.refused)
	}
	if err := r.metrics.register(); err != nil {
		return err
	}
	b := ctrl.NewControllerManagedBy(mgr).Named("ambientedge").WithOptions(controller.Options{
		MaxConcurrentReconciles: workers,
		RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](firstRetry, lastRetry),
	})
	for _, kind := range watched() {
		b = b.Watches(kind, watch{r})
	}
	if err := mgr.AddReadyzCheck("cluster", func(*http.Request) error { return hasRead(mgr, r.vendors.feed) }); err != nil {
		return fmt.Errorf("set up controller: %w", err)
	}
	return b.WatchesRawSource(r.vendors.feed).Complete(r)
}
