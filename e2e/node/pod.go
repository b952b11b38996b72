package node

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/e2e/world"
)

// retryPod is how long the node waits before it tries again what failed; a change of what the pod refers to wakes it earlier.
const retryPod = time.Second

// pod runs one pod that is bound to the node, from its network to the removal of its object. run owns what stands
// outside mu.
type pod struct {
	player *Player
	key    string // namespace/name, for people
	uid    types.UID
	spec   *corev1.PodSpec // fixed when the pod comes
	dir    string
	woken  chan struct{} // capacity 1

	init, main []*container
	vols       *volumes
	captor     *captor // nil without a capture hook, and on the host's network
	started    time.Time
	published  *podView                     // what the object's status says
	trouble    corev1.ContainerStateWaiting // why containers do not start; zero when they do
	told       string                       // the trouble that the last Event was about
	wg         sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	object *corev1.Pod
	gone   bool // the object is no more
	net    *podNet
}

func newPod(p *Player, obj *corev1.Pod) *pod {
	w := &pod{
		player: p, key: obj.Namespace + "/" + obj.Name, uid: obj.UID, spec: &obj.Spec, object: obj,
		dir:     filepath.Join(p.cfg.Dir, "pods", string(obj.UID)),
		woken:   make(chan struct{}, 1),
		started: time.Now(),
	}
	w.vols = &volumes{
		dir: filepath.Join(w.dir, "volumes"), caPEM: p.caPEM,
		tokens: &tokens{client: p.client, rotate: p.cfg.RotateTokens},
	}
	if p.cfg.Capture != nil && !obj.Spec.HostNetwork {
		w.captor = newCaptor(w)
	}
	for i := range obj.Spec.InitContainers {
		w.init = append(w.init, newContainer(w, &obj.Spec.InitContainers[i], true))
	}
	for i := range obj.Spec.Containers {
		w.main = append(w.main, newContainer(w, &obj.Spec.Containers[i], false))
	}
	return w
}

// update takes a newer object; nil means that there is none any more.
func (w *pod) update(obj *corev1.Pod) {
	w.mu.Lock()
	if obj == nil {
		w.gone = true
	} else {
		w.object = obj
	}
	w.mu.Unlock()
	w.wake()
}

// wake makes run look again.
func (w *pod) wake() {
	select {
	case w.woken <- struct{}{}:
	default:
	}
}

func (w *pod) current() (obj *corev1.Pod, gone bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.object, w.gone
}

// run is the pod's loop; it returns when the pod's processes, network and files are gone.
func (w *pod) run(ctx context.Context) {
	life, end := context.WithCancel(ctx)
	defer w.clear()
	defer end()
	for {
		obj, gone := w.current()
		switch {
		case ctx.Err() != nil || gone:
			return
		case obj.DeletionTimestamp != nil:
			w.terminate(ctx, obj)
			return
		}
		next := w.sync(life, obj)
		w.publish(ctx, obj)
		w.rest(ctx, next)
	}
}

// rest waits until something happens, at most until next unless that is zero.
func (w *pod) rest(ctx context.Context, next time.Time) {
	var due <-chan time.Time
	if !next.IsZero() {
		t := time.NewTimer(time.Until(next))
		defer t.Stop()
		due = t.C
	}
	select {
	case <-w.woken:
	case <-due:
	case <-ctx.Done():
	}
}

// sync brings the pod a step on and returns when to look again at the latest; zero means when something happens.
func (w *pod) sync(ctx context.Context, obj *corev1.Pod) time.Time {
	soon := func(reason string, err error) time.Time {
		if w.trouble.Message != err.Error() {
			w.player.log.Info("pod waits", "pod", w.key, "reason", reason, "err", err)
		} else if w.told != err.Error() { // it lasts
			w.told = err.Error()
			w.tell(ctx, "FailedMount", w.told)
		}
		w.trouble = corev1.ContainerStateWaiting{Reason: reason, Message: err.Error()}
		return time.Now().Add(retryPod)
	}
	if terminal(obj) {
		return time.Time{}
	}
	if err := w.ensureNet(); err != nil {
		return soon("CreatePodSandboxError", err)
	}
	w.publish(ctx, obj) // the mesh knows a pod by its address, before the pod can be captured
	auto := w.player.automount(obj)
	if err := w.vols.sync(ctx, w.facts(obj), auto); err != nil {
		return soon("ContainerCreating", err)
	}
	if w.captor != nil {
		w.captor.start(ctx, &w.wg)
		w.captor.want(w.player.enrolment(obj))
		if err := w.captor.settled(); err != nil && !w.anyLaunched() {
			w.trouble = corev1.ContainerStateWaiting{Reason: "ContainerCreating", Message: err.Error()}
			return w.vols.tokens.next()
		}
	}
	w.trouble = corev1.ContainerStateWaiting{}
	w.startContainers(ctx)
	return w.vols.tokens.next()
}

// anyLaunched reports whether a container has been started.
func (w *pod) anyLaunched() bool {
	return slices.ContainsFunc(slices.Concat(w.init, w.main), func(c *container) bool { return c.launched })
}

// startContainers starts the init containers one after the other, then all others.
func (w *pod) startContainers(ctx context.Context) {
	for _, c := range w.init {
		w.launch(ctx, c)
		if !c.settled() {
			return
		}
	}
	for _, c := range w.main {
		w.launch(ctx, c)
	}
}

func (w *pod) launch(ctx context.Context, c *container) {
	if c.launched {
		return
	}
	c.launched = true
	w.wg.Go(func() { c.run(ctx) })
}

// terminate stops the containers gracefully, takes everything away and then the object.
func (w *pod) terminate(ctx context.Context, obj *corev1.Pod) {
	grace := w.grace()
	if s := obj.DeletionGracePeriodSeconds; s != nil {
		grace = time.Duration(*s) * time.Second
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		w.stopAll(ctx, w.main, grace)
		w.stopAll(ctx, w.init, grace) // sidecars end last
	}()
	for waiting := true; waiting; {
		select {
		case <-stopped:
			waiting = false
		case <-w.woken:
			if now, gone := w.current(); gone {
				cancel() // removed by force
			} else {
				w.publish(ctx, now)
			}
		}
	}
	obj, gone := w.current()
	if !gone && ctx.Err() == nil {
		w.publish(ctx, obj)
	}
}

func (w *pod) stopAll(ctx context.Context, list []*container, grace time.Duration) {
	var wg sync.WaitGroup
	for _, c := range list {
		if c.launched {
			wg.Go(func() { c.stop(ctx, grace) })
		}
	}
	wg.Wait()
}

// clear ends what is left and gives back what the pod held.
func (w *pod) clear() {
	w.wg.Wait()
	w.mu.Lock()
	net, obj, gone := w.net, w.object, w.gone
	w.mu.Unlock()
	if net != nil {
		if err := net.close(); err != nil {
			w.player.log.Warn("network of pod not removed", "pod", w.key, "err", err)
		}
		w.player.ips.release(net.ip)
	}
	if err := os.RemoveAll(w.dir); err != nil {
		w.player.log.Warn("files of pod not removed", "pod", w.key, "err", err)
	}
	if !gone && obj.DeletionTimestamp != nil {
		w.player.remove(obj)
	}
}

func (w *pod) ensureNet() error {
	if w.spec.HostNetwork || w.network() != nil {
		return nil
	}
	ip, err := w.player.ips.take()
	if err != nil {
		return err
	}
	n, err := newPodNet(w.player.cfg.NS, w.player.cfg.gateway(), ip)
	if err != nil {
		w.player.ips.release(ip)
		return err
	}
	w.mu.Lock()
	w.net = n
	w.mu.Unlock()
	return nil
}

func (w *pod) network() *podNet {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.net
}

// ns is the network namespace of the pod's processes.
func (w *pod) ns() *world.NS {
	if n := w.network(); n != nil {
		return n.ns
	}
	return w.player.cfg.NS
}

// addr is the pod's address; zero before it has one.
func (w *pod) addr() netip.Addr {
	if w.spec.HostNetwork {
		return w.player.cfg.gateway()
	}
	if n := w.network(); n != nil {
		return n.ip
	}
	return netip.Addr{}
}

func (w *pod) grace() time.Duration {
	if s := w.spec.TerminationGracePeriodSeconds; s != nil {
		return time.Duration(*s) * time.Second
	}
	return 30 * time.Second
}

func terminal(obj *corev1.Pod) bool {
	return obj.Status.Phase == corev1.PodSucceeded || obj.Status.Phase == corev1.PodFailed
}
