package explain

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// target is where requests are sent.
type target struct {
	name    string
	service *corev1.Service     // nil: a pod
	port    *corev1.ServicePort // of the Service
	number  uint16              // as it is addressed; zero is unknown
	pods    []*plan.Pod
	groups  []group
	notes   []string
}

// group is pods of a target that are under the same policies, at the same port.
type group struct {
	standing  standing
	namespace string
	labels    map[string]string
	pods      []*plan.Pod
	port      uint16 // zero: not known
	elsewhere bool   // addresses that are of no pod; it stands outside
}

// target finds the target of a question.
func (x *Explainer) target(t Target) (*target, error) {
	if t.Kind == "Pod" {
		return x.pod(t)
	}
	s := x.w.Service(t.Key)
	if s == nil {
		var known []string
		for i := range x.w.Services {
			known = append(known, keyOf(&x.w.Services[i]).String())
		}
		return nil, notFound("Service "+t.Key.String(), t.Key, known)
	}
	port, err := portOf(s, t.Port)
	if err != nil {
		return nil, err
	}
	return x.service(s, port), nil
}

// portOf is the port of a Service that a text names. Nil, without an error: it has none.
func portOf(s *corev1.Service, text string) (*corev1.ServicePort, error) {
	var tcp []*corev1.ServicePort
	var known []string
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		if p.Protocol != corev1.ProtocolTCP && p.Protocol != "" {
			continue
		}
		if text == strconv.Itoa(int(p.Port)) || text != "" && text == p.Name {
			return p, nil
		}
		tcp = append(tcp, p)
		known = append(known, fmt.Sprintf("%s:%d", keyOf(s), p.Port))
	}
	switch {
	case text == "" && len(tcp) == 1:
		return tcp[0], nil
	case text == "" && len(tcp) == 0:
		return nil, nil
	case text == "":
		err := notFound(fmt.Sprintf("Service %s has %d TCP ports, and which one is meant is not said", keyOf(s), len(tcp)), keyOf(s), known)
		err.several = true
		return nil, err
	}
	return nil, notFound(fmt.Sprintf("TCP port %s of Service %s", text, keyOf(s)), keyOf(s), known)
}

// service is a Service at one of its ports; nil is one without ports.
func (x *Explainer) service(s *corev1.Service, port *corev1.ServicePort) *target {
	t := &target{name: "Service " + keyOf(s).String(), service: s, port: port, pods: x.w.PodsOf(s)}
	if port != nil {
		t.number = uint16(port.Port)
	}
	if len(s.Spec.Selector) == 0 {
		t.pods = nil
		x.endpoints(t)
	}
	x.group(t)
	if len(t.groups) == 0 {
		t.groups = []group{x.nobody(t)}
	}
	return t
}

// nobody stands for the pods that a Service would have.
func (x *Explainer) nobody(t *target) group {
	s := t.service
	if s.Spec.Type == corev1.ServiceTypeExternalName || len(s.Spec.Selector) == 0 {
		return group{namespace: s.Namespace, elsewhere: true}
	}
	t.notes = append(t.notes, t.name+" has no pods here: nobody answers. What would be is told for pods that have the labels of its selector")
	return group{standing: x.ofNamespace(s.Namespace), namespace: s.Namespace, labels: s.Spec.Selector, port: targetPort(t.port, nil)}
}

// endpoints are the pods that EndpointSlices of a Service without selector name.
func (x *Explainer) endpoints(t *target) {
	named, others := map[types.NamespacedName]bool{}, 0
	for _, slice := range x.slicesOf(keyOf(t.service)) {
		for i := range slice.Endpoints {
			if ref := slice.Endpoints[i].TargetRef; ref != nil && ref.Kind == "Pod" {
				named[types.NamespacedName{Namespace: cmp.Or(ref.Namespace, slice.Namespace), Name: ref.Name}] = true
			} else {
				others += len(slice.Endpoints[i].Addresses)
			}
		}
	}
	for _, p := range x.w.PodsIn(t.service.Namespace) {
		if named[keyOf(p)] {
			t.pods = append(t.pods, p)
		}
	}
	if others > 0 {
		t.groups = append(t.groups, group{namespace: t.service.Namespace, elsewhere: true})
	}
}

func (x *Explainer) pod(t Target) (*target, error) {
	for _, p := range x.w.PodsIn(t.Key.Namespace) {
		if p.Name != t.Key.Name {
			continue
		}
		to := &target{name: "Pod " + t.Key.String(), pods: []*plan.Pod{p}}
		if t.Port != "" {
			n, err := strconv.ParseUint(t.Port, 10, 16)
			if err != nil || n == 0 {
				n = uint64(named(p, t.Port))
			}
			if n == 0 {
				return nil, notFound(fmt.Sprintf("port %s of pod %s", t.Port, t.Key), t.Key, nil)
			}
			to.number = uint16(n)
		}
		x.group(to)
		return to, nil
	}
	return nil, notFound("pod "+t.Key.String(), t.Key, podNames(x.w, t.Key.Namespace))
}

// group parts the pods of a target by what decides about them.
func (x *Explainer) group(t *target) {
	at := map[string]int{}
	for _, p := range t.pods {
		port := t.number
		if t.service != nil {
			port = targetPort(t.port, p)
		}
		is := x.standing(p)
		waypoint, _ := x.podLabel(p)
		key := fmt.Sprint(is, port, waypoint, p.Namespace, "\n", x.points.labelsKey(p.Namespace, p.Labels))
		i, there := at[key]
		if !there {
			i = len(t.groups)
			at[key] = i
			t.groups = append(t.groups, group{standing: is, namespace: p.Namespace, labels: p.Labels, port: port})
		}
		t.groups[i].pods = append(t.groups[i].pods, p)
	}
	for _, g := range t.groups {
		slices.SortFunc(g.pods, func(a, b *plan.Pod) int { return cmp.Compare(a.Name, b.Name) })
	}
}

// targetPort is the port of a pod behind one of its Service; zero where that is not known.
func targetPort(port *corev1.ServicePort, p *plan.Pod) uint16 {
	switch {
	case port == nil:
		return 0
	case port.TargetPort.Type == intstr.String && port.TargetPort.StrVal != "":
		if p == nil {
			return 0
		}
		return named(p, port.TargetPort.StrVal)
	case port.TargetPort.IntVal != 0:
		return uint16(port.TargetPort.IntVal)
	}
	return uint16(port.Port)
}

// named is the port of a pod by name, or zero.
func named(p *plan.Pod, name string) uint16 {
	for i := range p.Spec.Containers {
		for _, c := range p.Spec.Containers[i].Ports {
			if c.Name == name && (c.Protocol == corev1.ProtocolTCP || c.Protocol == "") {
				return uint16(c.ContainerPort)
			}
		}
	}
	return 0
}

// protocol is how a waypoint reads a Service's port: by its appProtocol, or the first part of its name. Where neither says, it looks at what comes.
func protocol(port *corev1.ServicePort) policy.Values[policy.Protocol] {
	if port == nil {
		return policy.Values[policy.Protocol]{}
	}
	if tcp(port) {
		return policy.Of(policy.TCP)
	}
	switch spoken(port) {
	case "http", "http2", "grpc", "grpc-web", "kubernetes.io/h2c", "kubernetes.io/ws":
		return policy.Of(policy.HTTP)
	}
	return policy.Values[policy.Protocol]{}
}

// tcp says whether a port is said to speak something that a waypoint does not read.
func tcp(port *corev1.ServicePort) bool {
	return port != nil && slices.Contains([]string{"tcp", "tls", "https", "mongo", "mysql", "redis", "kubernetes.io/wss"}, spoken(port))
}

// spoken is the protocol that a port names.
func spoken(port *corev1.ServicePort) string {
	name, _, _ := strings.Cut(port.Name, "-")
	if port.AppProtocol != nil {
		name = *port.AppProtocol
	}
	return strings.ToLower(name)
}

// vips are the addresses of a Service.
func vips(s *corev1.Service) (list []netip.Addr) {
	for _, text := range append(slices.Clip(s.Spec.ClusterIPs), s.Spec.ClusterIP) {
		if a, err := netip.ParseAddr(text); err == nil && !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	return list
}
