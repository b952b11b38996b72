package check

import (
	"cmp"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/edge"
	"github.com/isthmus-mesh/isthmus/controller/plan"
	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// crossing is a gateway that sends to a Service, and how it is seen there.
type crossing struct {
	view    *plan.View
	backend *plan.ViewBackend
	source  policy.Values[spiffeid.ID]
	ids     []spiffeid.ID
	outside bool // none of its pods has an identity
	ports   []portPair
	// straight, and byWaypoint: it may come that way.
	straight, byWaypoint bool
}

// portPair is a port of a Service, as it is addressed and at its pods, where zero is not known.
type portPair struct {
	service, pod uint16
	protocol     policy.Values[policy.Protocol]
}

// crossings are all that gateways send into the mesh.
func (w *World) crossings() []crossing {
	return w.guard().crossed.of(w.findCrossings)
}

func (w *World) findCrossings() []crossing {
	list := []crossing{}
	views := w.Views()
	for i := range views {
		v := &views[i]
		source, ids := w.seenAs(v)
		if len(v.Pods) == 0 && !w.Paper {
			continue // it sends nothing
		}
		for j := range v.Backends {
			b := &v.Backends[j]
			if b.Service == nil || !slices.ContainsFunc(b.Routes, func(r int) bool { return v.Routes[r].Why == "" }) {
				continue
			}
			c := crossing{view: v, backend: b, source: source, ids: ids, outside: !w.Paper && v.Inside == 0 && v.Late == 0, ports: w.usedPorts(v, b)}
			_, leads := w.leadsTo(b.Service)
			switch {
			case c.outside || !leads || b.Sends == plan.ToPods:
				c.straight = true
			case b.Sends == plan.ToService && (!w.Paper || w.gateways[b.Waypoint] != nil) && !layer4(v, b):
				c.byWaypoint = true
			default:
				c.straight, c.byWaypoint = true, true
			}
			list = append(list, c)
		}
	}
	return list
}

// layer4 says whether a gateway has routes of connections to a Service: some send to pods for these, whatever their switch says for requests.
func layer4(v *plan.View, b *plan.ViewBackend) bool {
	return slices.ContainsFunc(b.Routes, func(i int) bool {
		return slices.Contains([]string{"TCPRoute", "TLSRoute", "UDPRoute"}, v.Routes[i].Kind)
	})
}

// seenAs is who a gateway is to those that it calls.
func (w *World) seenAs(v *plan.View) (policy.Values[spiffeid.ID], []spiffeid.ID) {
	ids := idsOf(v.Identities)
	switch {
	case len(ids) == 0:
		if ids = w.expectedIDs(v); v.Vendor.Native == edge.NativeAlways {
			return policy.Of(ids...), ids
		}
		return policy.Of(ids...).OrAbsent(), ids
	case v.Captured():
		return policy.Of(ids...), ids
	case !w.Paper && v.Inside+v.Late == 0:
		return policy.Absent[spiffeid.ID](), ids
	case w.Paper && !slices.ContainsFunc(v.Pods, func(p *plan.Pod) bool { return !w.InMesh(p) }):
		return policy.Of(ids...), ids
	}
	return policy.Of(ids...).OrAbsent(), ids
}

// expectedIDs is who a gateway of files will be, where its vendor gives it a service account of its own.
func (w *World) expectedIDs(v *plan.View) []spiffeid.ID {
	at := &v.Vendor.Proxies
	if v.Object == nil || at.Account == "" || at.Anywhere || at.Shared || len(v.Object.Spec.Addresses) > 0 {
		return nil
	}
	account := strings.NewReplacer("{name}", v.Key.Name, "{namespace}", v.Key.Namespace, "{class}", string(v.Object.Spec.GatewayClassName)).Replace(at.Account)
	return idsOf([]string{"spiffe://" + w.trustDomain() + "/ns/" + v.Key.Namespace + "/sa/" + account})
}

// usedPorts are the ports of a backend that its routes name; all, where one does not say.
func (w *World) usedPorts(v *plan.View, b *plan.ViewBackend) []portPair {
	named := map[int64]bool{}
	all := false
	for _, i := range b.Routes {
		r := &v.Routes[i]
		ports, ok := w.portsOfRoute(r, b.Key)
		all = all || !ok
		for _, p := range ports {
			named[p] = true
		}
	}
	pairs := w.portPairs(b.Service)
	used := slices.DeleteFunc(slices.Clone(pairs), func(p portPair) bool { return !named[int64(p.service)] })
	if all || len(used) == 0 {
		return pairs
	}
	return used
}

// portsOfRoute are the ports at which a route sends to a Service.
func (w *World) portsOfRoute(r *plan.Routed, service types.NamespacedName) (ports []int64, ok bool) {
	if route := w.guard().routes[r.Key]; r.Kind == "HTTPRoute" && route != nil {
		for i := range route.Spec.Rules {
			for _, ref := range route.Spec.Rules[i].BackendRefs {
				ns := r.Key.Namespace
				if ref.Namespace != nil {
					ns = string(*ref.Namespace)
				}
				if string(ref.Name) == service.Name && ns == service.Namespace && ref.Port != nil {
					ports = append(ports, int64(*ref.Port))
				}
			}
		}
		return ports, len(ports) > 0
	}
	o := w.Other(schema.GroupKind{Group: groupGateways, Kind: r.Kind}, r.Key.Namespace, r.Key.Name)
	if o == nil {
		return nil, false
	}
	rules, _, _ := unstructured.NestedSlice(o.Object, "spec", "rules")
	for _, rule := range rules {
		tree, _ := rule.(map[string]any)
		refs, _, _ := unstructured.NestedSlice(tree, "backendRefs")
		for _, x := range refs {
			ref, _ := x.(map[string]any)
			ns, _ := ref["namespace"].(string)
			if ref["name"] != service.Name || cmp.Or(ns, r.Key.Namespace) != service.Namespace {
				continue
			}
			switch p := ref["port"].(type) {
			case int64:
				ports = append(ports, p)
			case float64:
				ports = append(ports, int64(p))
			}
		}
	}
	return ports, len(ports) > 0
}

// portPairs are the ports of a Service. One without has one that is not known.
func (w *World) portPairs(s *corev1.Service) []portPair {
	var list []portPair
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		pair := portPair{service: uint16(p.Port), pod: uint16(p.Port)}
		if is, known := spoken(p); known {
			pair.protocol = policy.Of(is)
		}
		switch {
		case p.TargetPort.StrVal != "":
			pair.pod = w.namedPort(s, p.TargetPort.StrVal)
		case p.TargetPort.IntVal != 0:
			pair.pod = uint16(p.TargetPort.IntVal)
		}
		list = append(list, pair)
	}
	if len(list) == 0 {
		list = append(list, portPair{})
	}
	return list
}

// namedPort is the port that the pods of a Service give a name to; zero, where they do not agree.
func (w *World) namedPort(s *corev1.Service, name string) uint16 {
	var port int32
	for _, p := range w.PodsOf(s) {
		for i := range p.Spec.Containers {
			for _, c := range p.Spec.Containers[i].Ports {
				if c.Name != name {
					continue
				}
				if port != 0 && port != c.ContainerPort {
					return 0
				}
				port = c.ContainerPort
			}
		}
	}
	return uint16(port)
}

// spoken is what a waypoint takes a port to speak, as far as its Service says.
func spoken(p *corev1.ServicePort) (is policy.Protocol, known bool) {
	name, _, _ := strings.Cut(p.Name, "-")
	if p.AppProtocol != nil {
		name = strings.TrimPrefix(*p.AppProtocol, "kubernetes.io/")
	}
	switch strings.ToLower(name) {
	case "http", "http2", "h2c", "grpc", "ws":
		return policy.HTTP, true
	case "tcp", "tls", "https", "mongo", "mysql", "redis":
		return policy.TCP, true
	}
	return policy.HTTP, false
}

// request is the class of all requests of a source to a port.
func (p portPair) request(source policy.Values[spiffeid.ID]) *policy.Request {
	r := &policy.Request{Source: source, Protocol: p.protocol}
	if p.service != 0 {
		r.ServicePort = policy.Of(p.service)
	}
	if p.pod != 0 {
		r.WorkloadPort = policy.Of(p.pod)
	}
	return r
}

// carriedOf are the pods of a Service before which ztunnel stands, and whether it stands before all of them. One without pods in files has what stands
// for them.
func (w *World) carriedOf(s *corev1.Service) (list []*plan.Pod, all bool) {
	pods := w.PodsOf(s)
	for _, p := range pods {
		if w.ztunnelBefore(p) {
			list = append(list, p)
		}
	}
	if len(pods) == 0 && w.Paper && len(s.Spec.Selector) > 0 && w.namespaceLabels(s.Namespace)[plan.LabelDataplaneMode] == "ambient" {
		list = append(list, &plan.Pod{})
		list[0].Namespace, list[0].Name, list[0].Labels = s.Namespace, "of-"+s.Name, s.Spec.Selector
		return list, true
	}
	return list, len(list) > 0 && len(list) == len(pods)
}

// pointsOf are the enforcement points before the pods of a Service, each once.
func (w *World) pointsOf(s *corev1.Service) (points []*policy.Point, all bool) {
	pods, all := w.carriedOf(s)
	for _, p := range pods {
		if at := w.before(p.Namespace, p.Labels); !slices.Contains(points, at) {
			points = append(points, at)
		}
	}
	return points, all
}
