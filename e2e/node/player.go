package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// Player plays a cluster's only node: scheduler, kubelet, network plugin, service proxy and DNS server. Its methods may be
// called by several goroutines at once.
type Player struct {
	cfg    Config
	log    *slog.Logger
	client kubernetes.Interface
	caPEM  []byte
	api    netip.AddrPort
	ips    *addresses

	informers  informers.SharedInformerFactory
	podLister  corelisters.PodLister
	namespaces corelisters.NamespaceLister
	services   corelisters.ServiceLister
	configMaps corelisters.ConfigMapLister
	secrets    corelisters.SecretLister
	accounts   corelisters.ServiceAccountLister
	slices     discoverylisters.EndpointSliceLister

	proxy   *proxy
	dns     *dnsServer
	kubelet *kubelet

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	once   sync.Once

	mu      sync.Mutex // guards the fields below
	closed  bool
	pods    map[types.UID]*pod
	changed chan struct{} // closed and replaced when a pod has changed
}

// Start makes the Node object, sets up the namespace and serves until Close. It returns when the node is Ready and has
// seen what is there; ctx bounds only the start. The program must have called world.Enter with Funcs.
func Start(ctx context.Context, cfg Config) (_ *Player, err error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("start node: %w", err)
	}
	p := &Player{cfg: cfg, log: cfg.logger(), ips: newAddresses(cfg.podCIDR()), pods: map[types.UID]*pod{}, changed: make(chan struct{})}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("start node: %w", err), p.Close())
		}
	}()
	if p.api, err = cfg.api(); err != nil {
		return nil, err
	}
	if p.caPEM, err = caOf(cfg.REST); err != nil {
		return nil, err
	}
	for _, dir := range []string{"logs", "pods"} {
		if err := os.MkdirAll(filepath.Join(cfg.Dir, dir), 0o755); err != nil {
			return nil, err
		}
	}
	rc := rest.CopyConfig(cfg.REST)
	rc.QPS, rc.Burst = -1, -1 // the API server is our own
	if p.client, err = kubernetes.NewForConfig(rc); err != nil {
		return nil, err
	}
	if err := cfg.NS.Do(func() error { return setUpNode(cfg.gateway(), cfg.dnsVIP(), cfg.serviceCIDR()) }); err != nil {
		return nil, fmt.Errorf("set up the node's network: %w", err)
	}
	if p.proxy, err = newProxy(&p.cfg, p.api, p.log); err != nil {
		return nil, err
	}
	if err := p.register(ctx); err != nil {
		return nil, err
	}
	if err := p.watch(ctx); err != nil {
		return nil, err
	}
	if p.dns, err = serveDNS(p); err != nil {
		return nil, err
	}
	if p.kubelet, err = serveKubelet(p); err != nil {
		return nil, err
	}
	return p, nil
}

// Rules tells how Services and capture are made: NFTables or AnyIP.
func (p *Player) Rules() Rules {
	if p.proxy.balancer != nil {
		return AnyIP
	}
	return NFTables
}

// servicePorts is CapturePod.ServicePorts.
func (p *Player) servicePorts() string {
	if p.Rules() == AnyIP {
		return p.cfg.servicesFile()
	}
	return ""
}

// caOf is the certificate bundle that verifies the API server.
func caOf(rc *rest.Config) ([]byte, error) {
	if len(rc.CAData) > 0 || rc.CAFile == "" {
		return rc.CAData, nil
	}
	return os.ReadFile(rc.CAFile)
}

// Close ends every process of every pod at once, and takes away what the player made in the namespace. Objects stay
// as they are. A second call does nothing.
func (p *Player) Close() error {
	var err error
	p.once.Do(func() {
		p.cancel()
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		if p.informers != nil {
			p.informers.Shutdown()
		}
		if p.dns != nil {
			err = errors.Join(err, p.dns.close())
		}
		if p.kubelet != nil {
			err = errors.Join(err, p.kubelet.close())
		}
		p.wg.Wait()
		if p.proxy != nil {
			err = errors.Join(err, p.proxy.close())
		}
	})
	return err
}

// watch starts the caches and what follows them, and waits until they have seen what is there.
func (p *Player) watch(ctx context.Context) error {
	p.informers = informers.NewSharedInformerFactory(p.client, 0)
	core := p.informers.Core().V1()
	p.podLister, p.namespaces, p.services = core.Pods().Lister(), core.Namespaces().Lister(), core.Services().Lister()
	p.configMaps, p.secrets, p.accounts = core.ConfigMaps().Lister(), core.Secrets().Lister(), core.ServiceAccounts().Lister()
	p.slices = p.informers.Discovery().V1().EndpointSlices().Lister()

	for _, h := range []struct {
		informer cache.SharedIndexInformer
		f        func(obj metav1.Object, deleted bool)
	}{
		{core.Pods().Informer(), p.podChanged},
		{core.Pods().Informer(), p.schedule},
		{core.Namespaces().Informer(), func(o metav1.Object, _ bool) { p.wake(o.GetName()) }},
		{core.ConfigMaps().Informer(), func(o metav1.Object, _ bool) { p.wake(o.GetNamespace()) }},
		{core.Secrets().Informer(), func(o metav1.Object, _ bool) { p.wake(o.GetNamespace()) }},
		{core.ServiceAccounts().Informer(), func(o metav1.Object, _ bool) { p.wake(o.GetNamespace()) }},
		{core.Services().Informer(), func(metav1.Object, bool) { p.proxy.wake() }},
		{p.informers.Discovery().V1().EndpointSlices().Informer(), func(metav1.Object, bool) { p.proxy.wake() }},
	} {
		if _, err := h.informer.AddEventHandler(handler(h.f)); err != nil {
			return err
		}
	}
	p.informers.StartWithContext(p.ctx)
	if res := p.informers.WaitForCacheSyncWithContext(ctx); res.Err != nil {
		return fmt.Errorf("read the cluster: %w", res.Err)
	}
	p.wg.Go(func() { p.proxy.run(p.ctx, p.services, p.slices) })
	return p.proxy.first(ctx)
}

// handler calls f for every change of an object.
func handler(f func(obj metav1.Object, deleted bool)) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { f(o.(metav1.Object), false) },
		UpdateFunc: func(_, o any) { f(o.(metav1.Object), false) },
		DeleteFunc: func(o any) {
			if d, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = d.Obj
			}
			if obj, ok := o.(metav1.Object); ok {
				f(obj, true)
			}
		},
	}
}

// notify lets those look again who wait for pods.
func (p *Player) notify() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.changed)
	p.changed = make(chan struct{})
}

// podChanged gives every pod that is bound here a loop of its own and tells it the news.
func (p *Player) podChanged(o metav1.Object, deleted bool) {
	obj := o.(*corev1.Pod)
	p.notify()
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.pods[obj.UID]
	switch {
	case w != nil && deleted:
		w.update(nil)
	case w != nil:
		w.update(obj)
	case !deleted && !p.closed && obj.Spec.NodeName == p.cfg.name():
		w = newPod(p, obj)
		p.pods[obj.UID] = w
		p.wg.Go(func() {
			w.run(p.ctx)
			p.mu.Lock()
			delete(p.pods, obj.UID)
			p.mu.Unlock()
		})
	}
}

// wake lets all pods of a namespace look again.
func (p *Player) wake(namespace string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.pods {
		if obj, _ := w.current(); obj.Namespace == namespace {
			w.wake()
		}
	}
}

// enrolment is what Istio's rules say of a pod by now.
func (p *Player) enrolment(obj *corev1.Pod) enrolment {
	ns, err := p.namespaces.Get(obj.Namespace)
	if err != nil {
		return enrolled(obj, nil)
	}
	return enrolled(obj, ns.Labels)
}

// automount reports whether the pod gets its service account's token where clients look for it.
func (p *Player) automount(obj *corev1.Pod) bool {
	if v := obj.Spec.AutomountServiceAccountToken; v != nil {
		return *v
	}
	sa, err := p.accounts.ServiceAccounts(obj.Namespace).Get(serviceAccount(obj))
	return err != nil || sa.AutomountServiceAccountToken == nil || *sa.AutomountServiceAccountToken
}

// remove takes away the object of a pod whose processes have ended.
func (p *Player) remove(obj *corev1.Pod) {
	err := p.client.CoreV1().Pods(obj.Namespace).Delete(p.ctx, obj.Name, metav1.DeleteOptions{
		GracePeriodSeconds: new(int64), Preconditions: metav1.NewUIDPreconditions(string(obj.UID)),
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) && p.ctx.Err() == nil {
		p.log.Warn("pod not removed", "pod", obj.Namespace+"/"+obj.Name, "err", err)
	}
}
