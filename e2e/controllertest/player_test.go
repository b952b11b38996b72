package controllertest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// annotationIdle on a Namespace lets the player leave it alone.
const annotationIdle = "test/idle"

// player plays istiod, the node agent and the vendor's controller, on nothing but labels: it programs waypoints and makes what
// belongs to them, binds Services, captures pods, and runs them.
type player struct {
	client client.Client
	seen   client.Reader // what was watched; its objects are not to be changed
	woken  chan struct{} // something has changed
	cancel context.CancelFunc
	wg     sync.WaitGroup

	controllers map[string]string // of classes; the player's own goroutine
}

// Pauses of the player: what changes at once is one round, and what a round could not write is tried again.
const (
	playerGathers = 10 * time.Millisecond
	playerRetries = 500 * time.Millisecond
)

// newPlayer plays until stop. It watches, as what it plays does: to list all that tests leave behind, again and again, would take more processor time than
// the tests.
func newPlayer(ctx context.Context, cfg *rest.Config, c client.Client) (*player, error) {
	seen, err := cache.New(cfg, cache.Options{Scheme: c.Scheme()})
	if err != nil {
		return nil, err
	}
	p := &player{client: c, seen: seen, woken: make(chan struct{}, 1), controllers: map[string]string{}}
	kinds := []client.Object{&corev1.Namespace{}, &gatewayv1.Gateway{}, &corev1.Service{}, &corev1.Pod{}}
	for _, u := range madeKinds() {
		o := &unstructured.Unstructured{}
		o.SetGroupVersionKind(u)
		kinds = append(kinds, o)
	}
	var inside context.Context
	inside, p.cancel = context.WithCancel(context.Background())
	p.wg.Go(func() { _ = seen.Start(inside) }) // it ends with inside
	for _, o := range kinds {
		i, err := seen.GetInformer(ctx, o)
		if err == nil {
			_, err = i.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
				AddFunc: func(any) { p.wake() }, UpdateFunc: func(any, any) { p.wake() }, DeleteFunc: func(any) { p.wake() },
			})
		}
		if err != nil {
			p.stop()
			return nil, fmt.Errorf("watch %T: %w", o, err)
		}
	}
	p.wg.Go(func() { p.play(inside) })
	return p, nil
}

func (p *player) wake() {
	select {
	case p.woken <- struct{}{}:
	default:
	}
}

func (p *player) play(ctx context.Context) {
	retry := time.NewTicker(playerRetries)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.woken:
			time.Sleep(playerGathers)
		case <-retry.C:
		}
		p.round(ctx) // an error is a conflict, or an object that went: the next round sees
	}
}

func (p *player) stop() {
	p.cancel()
	p.wg.Wait()
}

// madeKinds are those of the policies that we make for vendors.
func madeKinds() (kinds []schema.GroupVersionKind) {
	for _, u := range edge.Uses() {
		if u.Make {
			kinds = append(kinds, schema.GroupVersionKind{Group: u.Group, Version: u.Version, Kind: u.Kind.Kind})
		}
	}
	return kinds
}

func (p *player) round(ctx context.Context) {
	var namespaces corev1.NamespaceList
	var gateways gatewayv1.GatewayList
	var services corev1.ServiceList
	var pods corev1.PodList
	for _, l := range []client.ObjectList{&namespaces, &gateways, &services, &pods} {
		if err := p.seen.List(ctx, l, client.UnsafeDisableDeepCopy); err != nil {
			return
		}
	}
	spaces := map[string]*corev1.Namespace{}
	for i := range namespaces.Items {
		if n := &namespaces.Items[i]; n.Annotations[annotationIdle] == "" && n.DeletionTimestamp == nil {
			spaces[n.Name] = n
		}
	}
	there := map[string]client.Object{} // of a waypoint
	for i := range services.Items {
		there["Service "+services.Items[i].Namespace+"/"+services.Items[i].Name] = &services.Items[i]
	}
	for i := range pods.Items {
		there["Pod "+pods.Items[i].Namespace+"/"+pods.Items[i].Name] = &pods.Items[i]
	}
	var proxies []proxy
	makes := false
	waypoints := map[string]bool{}
	for i := range gateways.Items {
		g := &gateways.Items[i]
		if spaces[g.Namespace] == nil || g.DeletionTimestamp != nil {
			continue
		}
		if g.Spec.GatewayClassName == plan.WaypointClass {
			waypoints[g.Namespace+"/"+g.Name] = p.waypoint(ctx, g, there)
		} else if v := edge.ByController(p.controller(ctx, g)); len(v.Proxies.Labels) > 0 {
			makes = makes || slices.ContainsFunc(v.Switches, func(s edge.Switch) bool { return s.Target[1] != "" })
			x := proxy{labels: edge.Of(v.Proxies.Labels, g.Namespace, g.Name, string(g.Spec.GatewayClassName))}
			if !v.Proxies.Anywhere {
				x.namespace = g.Namespace
			}
			if i := g.Spec.Infrastructure; i != nil && v.Infrastructure {
				x.mode = string(i.Labels[plan.LabelDataplaneMode])
			}
			proxies = append(proxies, x)
		}
	}
	for i := range services.Items {
		if s := &services.Items[i]; spaces[s.Namespace] != nil {
			p.bind(ctx, s, waypoints)
		}
	}
	for i := range pods.Items {
		o := &pods.Items[i]
		if spaces[o.Namespace] == nil || o.DeletionTimestamp != nil {
			continue
		}
		p.run(ctx, o)
		for _, x := range proxies {
			if x.has(o) {
				p.label(ctx, o, x.mode)
			}
		}
		p.capture(ctx, o, spaces[o.Namespace])
	}
	if makes {
		p.accept(ctx)
	}
}

// controller is the controllerName of a Gateway's class, which never changes.
func (p *player) controller(ctx context.Context, g *gatewayv1.Gateway) string {
	name := string(g.Spec.GatewayClassName)
	if p.controllers[name] == "" {
		var c gatewayv1.GatewayClass
		if err := p.client.Get(ctx, client.ObjectKey{Name: name}, &c); err != nil {
			return ""
		}
		p.controllers[name] = string(c.Spec.ControllerName)
	}
	return p.controllers[name]
}

// proxy says which pods a Gateway has, and the label that its infrastructure gives them.
type proxy struct {
	namespace string // empty: any
	labels    map[string]string
	mode      string
}

func (x *proxy) has(o *corev1.Pod) bool {
	for k, v := range x.labels {
		if o.Labels[k] != v {
			return false
		}
	}
	return x.namespace == "" || x.namespace == o.Namespace
}

// accept says for vendors that policies which we make are accepted.
func (p *player) accept(ctx context.Context) {
	for _, kind := range madeKinds() {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(kind.GroupVersion().WithKind(kind.Kind + "List"))
		if err := p.seen.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			continue
		}
		for i := range list.Items {
			o := &list.Items[i]
			if _, said, _ := unstructured.NestedFieldNoCopy(o.Object, "status", "ancestors"); said {
				continue
			}
			o = o.DeepCopy()
			accepted := map[string]any{"type": "Accepted", "status": "True", "reason": "Accepted", "observedGeneration": o.GetGeneration()}
			o.Object["status"] = map[string]any{"ancestors": []any{map[string]any{"controllerName": "x.io/y", "conditions": []any{accepted}}}}
			_ = p.client.Status().Update(ctx, o) // the next round sees
		}
	}
}

// waypoint makes a waypoint's Service and pod, and programs it.
func (p *player) waypoint(ctx context.Context, g *gatewayv1.Gateway, there map[string]client.Object) bool {
	m := metav1.ObjectMeta{
		Namespace: g.Namespace, Name: g.Name, Labels: map[string]string{edge.LabelGatewayName: g.Name},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "gateway.networking.k8s.io/v1", Kind: "Gateway", Name: g.Name, UID: g.UID}},
	}
	s := &corev1.Service{ObjectMeta: m, Spec: corev1.ServiceSpec{
		Selector: m.Labels, Ports: []corev1.ServicePort{{Name: "hbone", Port: 15008, TargetPort: intstr.FromInt32(15008)}},
	}}
	if old, ok := there["Service "+g.Namespace+"/"+g.Name].(*corev1.Service); ok {
		// One of a Gateway of this name that is gone goes too, when the garbage collector comes by.
		if s = old; len(s.OwnerReferences) == 0 || s.OwnerReferences[0].UID != g.UID {
			return false
		}
	} else if err := p.client.Create(ctx, s); err != nil {
		return false
	}
	if there["Pod "+g.Namespace+"/"+g.Name] == nil {
		pod := &corev1.Pod{ObjectMeta: *m.DeepCopy(), Spec: corev1.PodSpec{
			ServiceAccountName: g.Name, Containers: []corev1.Container{{Name: "istio-proxy", Image: "nothing"}},
		}}
		_ = p.client.Create(ctx, pod) // the next round sees
	}
	if plan.Programmed(g) {
		return true
	}
	g = g.DeepCopy()
	address := gatewayv1.IPAddressType
	g.Status.Addresses = []gatewayv1.GatewayStatusAddress{{Type: &address, Value: s.Spec.ClusterIP}}
	meta.SetStatusCondition(&g.Status.Conditions, metav1.Condition{
		Type: "Programmed", Status: metav1.ConditionTrue, Reason: "Programmed", ObservedGeneration: g.Generation,
	})
	return p.client.Status().Update(ctx, g) == nil
}

// bind says of a Service that it leads to a waypoint which is there.
func (p *player) bind(ctx context.Context, s *corev1.Service, waypoints map[string]bool) {
	ns := s.Labels[plan.LabelUseWaypointNamespace]
	if ns == "" {
		ns = s.Namespace
	}
	name := s.Labels[plan.LabelUseWaypoint]
	bound := meta.IsStatusConditionTrue(s.Status.Conditions, plan.ConditionWaypointBound)
	want := name != "" && waypoints[ns+"/"+name]
	if want == bound {
		return
	}
	s = s.DeepCopy()
	if want {
		meta.SetStatusCondition(&s.Status.Conditions, metav1.Condition{Type: plan.ConditionWaypointBound, Status: metav1.ConditionTrue, Reason: "WaypointAccepted"})
	} else {
		meta.RemoveStatusCondition(&s.Status.Conditions, plan.ConditionWaypointBound)
	}
	_ = p.client.Status().Update(ctx, s)
}

func (p *player) run(ctx context.Context, o *corev1.Pod) {
	if o.Status.Phase == corev1.PodRunning {
		return
	}
	now := metav1.Now()
	o = o.DeepCopy()
	o.Status.Phase, o.Status.PodIP, o.Status.StartTime = corev1.PodRunning, "10.244.7.7", &now
	o.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: now}}
	_ = p.client.Status().Update(ctx, o)
}

// label gives a gateway's pod the label of its Gateway's infrastructure, as a vendor does by a rollout. One that speaks HBONE itself has none
// from its vendor's controller, and keeps it.
func (p *player) label(ctx context.Context, o *corev1.Pod, mode string) {
	if is := o.Labels[plan.LabelDataplaneMode]; is != mode && (mode != "" || is != "none") {
		p.merge(ctx, o, "labels", plan.LabelDataplaneMode, mode)
	}
}

func (p *player) capture(ctx context.Context, o *corev1.Pod, ns *corev1.Namespace) {
	mode := o.Labels[plan.LabelDataplaneMode]
	if mode == "" {
		mode = ns.Labels[plan.LabelDataplaneMode]
	}
	want := ""
	if mode == "ambient" && !o.Spec.HostNetwork {
		want = "enabled"
	}
	if o.Annotations[plan.AnnotationRedirection] != want {
		p.merge(ctx, o, "annotations", plan.AnnotationRedirection, want)
	}
}

// merge sets a label or annotation; an empty value removes it.
func (p *player) merge(ctx context.Context, o *corev1.Pod, what, key, value string) {
	v := "null"
	if value != "" {
		v = fmt.Sprintf("%q", value)
	}
	_ = p.client.Patch(ctx, o.DeepCopy(), client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"metadata":{%q:{%q:%s}}}`, what, key, v)))
}
