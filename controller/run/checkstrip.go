package run

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/util/intstr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// handmade are EndpointSlices that no controller of Kubernetes makes.
func handmade() labels.Selector {
	r, err := labels.NewRequirement(discoveryv1.LabelManagedBy, selection.NotIn, []string{"endpointslice-controller.k8s.io"})
	if err != nil {
		return labels.Everything()
	}
	return labels.NewSelector().Add(*r)
}

// keeper takes from objects what no check looks at, and has equal texts and labels once. It is not safe for concurrent use.
type keeper struct {
	texts      map[string]string
	labels     map[string]map[string]string
	containers map[string][]corev1.Container
	owners     map[string][]metav1.OwnerReference
	ports      map[string][]corev1.ServicePort
	conditions map[string][]metav1.Condition
	ready      [2][]corev1.PodCondition

	key  []byte   // of the one that is looked for
	keys []string // of the labels that are looked for
}

func newKeeper() *keeper {
	k := &keeper{
		texts: map[string]string{}, labels: map[string]map[string]string{}, containers: map[string][]corev1.Container{}, owners: map[string][]metav1.OwnerReference{},
		ports: map[string][]corev1.ServicePort{}, conditions: map[string][]metav1.Condition{},
	}
	for i, s := range []corev1.ConditionStatus{corev1.ConditionFalse, corev1.ConditionTrue} {
		k.ready[i] = []corev1.PodCondition{{Type: corev1.PodReady, Status: s}}
	}
	return k
}

// text is a text that others have too.
func (k *keeper) text(s string) string {
	if have, is := k.texts[s]; is {
		return have
	}
	s = strings.Clone(s)
	k.texts[s] = s
	return s
}

// shared are labels that are not to be changed.
func (k *keeper) shared(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	k.keys = k.keys[:0]
	for key := range m {
		k.keys = append(k.keys, key)
	}
	slices.Sort(k.keys)
	k.key = k.key[:0]
	for _, key := range k.keys {
		k.key = append(append(append(append(k.key, key...), 0), m[key]...), 0)
	}
	if have, is := k.labels[string(k.key)]; is {
		return have
	}
	own := make(map[string]string, len(m))
	for key, v := range m {
		own[k.text(key)] = k.text(v)
	}
	k.labels[string(k.key)] = own
	return own
}

// ours says whether an annotation is Istio's or ours.
func ours(key string) bool {
	return strings.Contains(key, "istio.io/") || strings.Contains(key, "isthmus.dev/")
}

func (k *keeper) annotations(m map[string]string, keeps func(key string) bool) map[string]string {
	maps.DeleteFunc(m, func(key, _ string) bool { return !keeps(key) })
	return k.shared(m)
}

// meta keeps what names an object, its labels, its annotations, and who owns it.
func (k *keeper) meta(o metav1.Object) {
	o.SetManagedFields(nil)
	o.SetFinalizers(nil)
	o.SetNamespace(k.text(o.GetNamespace()))
	o.SetLabels(k.shared(o.GetLabels()))
	o.SetAnnotations(k.annotations(o.GetAnnotations(), func(key string) bool { return key != corev1.LastAppliedConfigAnnotation }))
}

// strip changes o.
func (k *keeper) strip(o metav1.Object) {
	if p, is := o.(*corev1.Pod); is {
		k.pod(p)
		return
	}
	k.meta(o)
	switch o := o.(type) {
	case *corev1.Service:
		o.UID, o.ResourceVersion, o.OwnerReferences = "", "", nil
		o.Spec.Selector, o.Status.LoadBalancer = k.shared(o.Spec.Selector), corev1.LoadBalancerStatus{}
		o.Spec.Ports, o.Status.Conditions, o.Spec.Type = k.portsOf(o.Spec.Ports), k.conditionsOf(o.Status.Conditions), corev1.ServiceType(k.text(string(o.Spec.Type)))
	case *gatewayv1.HTTPRoute:
		for i := range o.Status.Parents {
			o.Status.Parents[i].Conditions = k.conditionsOf(o.Status.Parents[i].Conditions)
		}
	case *appsv1.Deployment:
		k.template(&o.Spec.Template)
		o.Status.Conditions = nil
	case *appsv1.DaemonSet:
		k.template(&o.Spec.Template)
		o.Status.Conditions = nil
	case *networkingv1.Ingress:
		o.Status = networkingv1.IngressStatus{}
	case *gatewayv1.GatewayClass:
		o.Status = gatewayv1.GatewayClassStatus{}
	case *securityv1.RequestAuthentication:
		for _, r := range o.Spec.JwtRules {
			r.Jwks = "" // keys tell nothing of who may call, and are long
		}
	}
}

// stripAny changes o, of a kind without a type.
func (k *keeper) stripAny(o *unstructured.Unstructured) {
	if slices.ContainsFunc(callers(), func(f family) bool { return f[0].Kind == o.GetKind() }) {
		stripAny(o) // certificates are long
	}
	o.SetManagedFields(nil)
	stripAnnotations(o, func(key string) bool { return key != corev1.LastAppliedConfigAnnotation })
}

// pod keeps what stripPod does, and of all its containers what listens; when they began and since when it is captured, only where it was captured later:
// that is what matters of it.
func (k *keeper) pod(o *corev1.Pod) {
	first, beside, ip := k.listening(o.Spec.InitContainers), k.listening(o.Spec.Containers), o.Status.PodIP
	stripPod(o)
	o.Spec.InitContainers, o.Spec.Containers, o.Status.PodIP, o.Status.StartTime = first, beside, ip, nil
	if !capturedLater(o) {
		o.ManagedFields, o.Status.ContainerStatuses = nil, nil
	}
	o.ObjectMeta = metav1.ObjectMeta{
		Namespace: k.text(o.Namespace), Name: o.Name, Labels: k.shared(o.Labels), Annotations: k.shared(o.Annotations), OwnerReferences: k.owned(o.OwnerReferences),
		ManagedFields: o.ManagedFields, DeletionTimestamp: o.DeletionTimestamp, CreationTimestamp: o.CreationTimestamp,
	}
	o.Spec.ServiceAccountName, o.Status.Phase = k.text(o.Spec.ServiceAccountName), corev1.PodPhase(k.text(string(o.Status.Phase)))
	for i, c := range o.Status.Conditions {
		if c.Status == corev1.ConditionTrue {
			o.Status.Conditions = k.ready[1]
		} else if i == 0 {
			o.Status.Conditions = k.ready[0]
		}
	}
}

// portsOf are ports of Services. Equal ones are there once.
func (k *keeper) portsOf(ports []corev1.ServicePort) []corev1.ServicePort {
	k.key = k.key[:0]
	for i := range ports {
		p := &ports[i]
		app := "-" // is none
		if p.AppProtocol != nil {
			app = "+" + *p.AppProtocol
		}
		for _, text := range []string{p.Name, string(p.Protocol), app, p.TargetPort.StrVal} {
			k.key = append(append(k.key, text...), 0)
		}
		for _, n := range []int32{p.Port, int32(p.TargetPort.Type), p.TargetPort.IntVal, p.NodePort} {
			k.key = append(strconv.AppendInt(k.key, int64(n), 10), 0)
		}
	}
	if have, is := k.ports[string(k.key)]; is {
		return have
	}
	k.ports[string(k.key)] = ports
	return ports
}

// conditionsOf are conditions without when they came about. Equal ones are there once: all Services of a waypoint have the same.
func (k *keeper) conditionsOf(conditions []metav1.Condition) []metav1.Condition {
	k.key = k.key[:0]
	for i := range conditions {
		c := &conditions[i]
		c.LastTransitionTime = metav1.Time{}
		for _, text := range []string{c.Type, string(c.Status), c.Reason, c.Message} {
			k.key = append(append(k.key, text...), 0)
		}
		k.key = append(strconv.AppendInt(k.key, c.ObservedGeneration, 10), 0)
	}
	if have, is := k.conditions[string(k.key)]; is {
		return have
	}
	k.conditions[string(k.key)] = conditions
	return conditions
}

// owned says that there is an owner, and of which kind.
func (k *keeper) owned(list []metav1.OwnerReference) []metav1.OwnerReference {
	if len(list) == 0 {
		return nil
	}
	kind := list[0].Kind
	if k.owners[kind] == nil {
		k.owners[kind] = []metav1.OwnerReference{{Kind: kind}}
	}
	return k.owners[kind]
}

// listening are containers with their names, and what of them others connect to. Equal ones are there once.
func (k *keeper) listening(containers []corev1.Container) []corev1.Container {
	if len(containers) == 0 {
		return nil
	}
	k.key = k.key[:0]
	for i := range containers {
		k.key = appendListening(k.key, &containers[i])
	}
	if have, is := k.containers[string(k.key)]; is {
		return have
	}
	list := make([]corev1.Container, len(containers))
	for i := range containers {
		list[i] = listens(&containers[i])
	}
	k.containers[string(k.key)] = list
	return list
}

// appendListening appends what tells containers apart, of what listens keeps.
func appendListening(key []byte, c *corev1.Container) []byte {
	text := func(s string) { key = append(append(key, s...), 0) }
	number := func(n int32) { key = append(strconv.AppendInt(key, int64(n), 10), 0) }
	text(c.Name)
	text(c.Image)
	for _, arg := range keptArgs(c) {
		text(arg)
	}
	text("")
	if c.RestartPolicy != nil {
		text(string(*c.RestartPolicy))
	}
	text("")
	for _, p := range c.Ports {
		text(p.Name)
		number(p.ContainerPort)
		text(string(p.Protocol))
	}
	for i, p := range []*corev1.Probe{c.ReadinessProbe, c.LivenessProbe, c.StartupProbe} {
		number(int32(i))
		if p == nil {
			continue
		}
		port := func(kind, host string, port intstr.IntOrString) {
			text(kind)
			text(host)
			number(int32(port.Type))
			number(port.IntVal)
			text(port.StrVal)
		}
		switch h := &p.ProbeHandler; {
		case h.HTTPGet != nil:
			port("http", h.HTTPGet.Host, h.HTTPGet.Port)
		case h.TCPSocket != nil:
			port("tcp", h.TCPSocket.Host, h.TCPSocket.Port)
		case h.GRPC != nil:
			text("grpc")
			number(h.GRPC.Port)
		case h.Exec != nil:
			text("exec")
		default:
			text("none")
		}
	}
	return append(key, 0)
}

// listens is a container with little more than its name, its image, its ports, and probes of them. One that changes DNS is known by its arguments.
func listens(c *corev1.Container) corev1.Container {
	out := corev1.Container{
		Name: c.Name, Image: c.Image, RestartPolicy: c.RestartPolicy,
		ReadinessProbe: probe(c.ReadinessProbe), LivenessProbe: probe(c.LivenessProbe), StartupProbe: probe(c.StartupProbe),
	}
	for _, p := range c.Ports {
		out.Ports = append(out.Ports, corev1.ContainerPort{Name: p.Name, ContainerPort: p.ContainerPort, Protocol: p.Protocol})
	}
	out.Args = keptArgs(c)
	return out
}

func keptArgs(c *corev1.Container) []string {
	if strings.Contains(c.Image, "external-dns") {
		return c.Args
	}
	return nil
}

func probe(p *corev1.Probe) *corev1.Probe {
	if p == nil {
		return nil
	}
	out := &corev1.Probe{}
	switch h := &p.ProbeHandler; {
	case h.HTTPGet != nil:
		out.HTTPGet = &corev1.HTTPGetAction{Port: h.HTTPGet.Port, Host: h.HTTPGet.Host}
	case h.TCPSocket != nil:
		out.TCPSocket = &corev1.TCPSocketAction{Port: h.TCPSocket.Port, Host: h.TCPSocket.Host}
	case h.GRPC != nil:
		out.GRPC = &corev1.GRPCAction{Port: h.GRPC.Port}
	case h.Exec != nil:
		out.Exec = &corev1.ExecAction{}
	}
	return out
}

// template keeps what stripTemplate does, and ports and probes.
func (k *keeper) template(t *corev1.PodTemplateSpec) {
	first, beside := k.listening(t.Spec.InitContainers), k.listening(t.Spec.Containers)
	stripTemplate(t)
	t.Spec.InitContainers = first
	for i := range t.Spec.Containers {
		c, kept := &t.Spec.Containers[i], &beside[i]
		c.Ports, c.ReadinessProbe, c.LivenessProbe, c.StartupProbe = kept.Ports, kept.ReadinessProbe, kept.LivenessProbe, kept.StartupProbe
	}
}

// capturedLater says whether a container of a pod runs since before the pod was captured.
func capturedLater(o *corev1.Pod) bool {
	for _, e := range o.ManagedFields {
		for i := range o.Status.ContainerStatuses {
			if r := o.Status.ContainerStatuses[i].State.Running; e.Time != nil && r != nil && r.StartedAt.Before(e.Time) {
				return true
			}
		}
	}
	return false
}
