package plan

import (
	"fmt"
	"slices"
	"strings"

	securityapi "istio.io/api/security/v1beta1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

// forwards is something else by which a waypoint sends requests to the pods of a backend, and by whose policies it answers them: a route that belongs to
// another Service, a Service whose endpoints somebody writes by hand, or a ServiceEntry with their addresses. Nil: there is none that can be seen.
func (m *maker) forwards(b *backend, pods []*Pod) *obstacle {
	field := "metadata.labels[" + LabelUseWaypoint + "]"
	why := func(what string) *obstacle {
		return &obstacle{field: field, why: fmt.Sprintf("would have its pods admit waypoint %s, which sends them requests for %s too: who calls that would be admitted with it", b.waypoint, what),
			opens: true, fix: "have that lead to another waypoint, or this by another name in spec.waypoint.name"}
	}
	for _, r := range m.sideRoutes() {
		if what := m.routesTo(b, r, pods); what != "" {
			return why(what)
		}
	}
	for _, o := range m.byHand() {
		if keyOf(o) != b.key && m.ledBeside(b, keyOf(o), o.Labels) && !m.onlyShows(o) {
			return why(object("Service", keyOf(o)) + ", which has no selector")
		}
	}
	for _, o := range m.ServiceEntries {
		if m.ledBeside(b, keyOf(o), o.GetLabels()) && m.reachesPods(b, o, pods) {
			return why(object("ServiceEntry", keyOf(o)))
		}
	}
	return nil
}

// byHand are the Services whose endpoints somebody writes by hand, wherever they are; found once.
func (m *maker) byHand() []*corev1.Service {
	if m.known.byHand == nil {
		m.known.byHand = []*corev1.Service{}
		for i := range m.Services {
			if o := &m.Services[i]; len(o.Spec.Selector) == 0 && o.Spec.Type != corev1.ServiceTypeExternalName {
				m.known.byHand = append(m.known.byHand, o)
			}
		}
	}
	return m.known.byHand
}

// onlyShows says whether a Service is a witness, behind whose policy nothing is to be had.
func (m *maker) onlyShows(o *corev1.Service) bool {
	if m.made(o) && isWitness(o) {
		return true
	}
	p := m.policyAt(keyOf(o))
	return isWitness(o) && p != nil && isWitness(p) && p.Spec.GetAction() == securityapi.AuthorizationPolicy_DENY && len(pathsOf(p)) == 1 && targets(p, &p.Spec, keyOf(o), "Service")
}

// ledBeside says whether something leads to the waypoint of a backend, or to the one that this leads to still, by its labels or its namespace's.
func (m *maker) ledBeside(b *backend, key types.NamespacedName, labels map[string]string) bool {
	is := m.present(&backend{key: key, service: &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, Labels: labels}}})
	return is.Name != "" && (is == b.waypoint || is == m.present(b))
}

// sideRoute is a route that waypoints obey: what it belongs to, and where it sends, copies of requests too.
type sideRoute struct {
	name    string
	parents []parent
	to      []types.NamespacedName
}

// sideRoutes are those of Services and ServiceEntries, and of Gateways, which may be waypoints; found once.
func (m *maker) sideRoutes() []sideRoute {
	if m.known.routes != nil {
		return m.known.routes
	}
	m.known.routes = []sideRoute{}
	add := func(o metav1.Object, kind string) {
		r := sideRoute{name: object(kind, keyOf(o))}
		for _, p := range ParentRefs(o) {
			of := parent{kind: "Gateway", key: types.NamespacedName{Namespace: o.GetNamespace(), Name: string(p.Name)}}
			if p.Namespace != nil {
				of.key.Namespace = string(*p.Namespace)
			}
			if p.Kind != nil {
				of.kind = string(*p.Kind)
			}
			if g := m.gateway(of.key); of.kind != "Gateway" || g != nil && m.controllerOf(g.Spec.GatewayClassName) == WaypointController {
				r.parents = append(r.parents, of)
			}
		}
		if len(r.parents) == 0 {
			return
		}
		looked := (&route{key: keyOf(o), object: o}).look()
		for i := range looked.sends {
			if ref := looked.sends[i].ref; isService(ref) {
				r.to = append(r.to, looked.refers(ref))
			}
		}
		m.known.routes = append(m.known.routes, r)
	}
	for i := range m.HTTPRoutes {
		add(&m.HTTPRoutes[i], "HTTPRoute")
	}
	for _, o := range m.OtherRoutes {
		add(o, o.GetKind())
	}
	return m.known.routes
}

// routesTo is the parent of a route, other than a backend itself, by which its waypoint sends to the backend's pods, or "".
func (m *maker) routesTo(b *backend, r sideRoute, pods []*Pod) string {
	if !slices.ContainsFunc(r.to, func(key types.NamespacedName) bool { return key == b.key || m.samePodsAs(key, b, pods) }) {
		return ""
	}
	for _, p := range r.parents {
		if p.kind == "Gateway" && p.key == b.waypoint || p.kind == "Service" && p.key != b.key && m.serviceLedBeside(b, p.key) ||
			p.kind == "ServiceEntry" && m.entryLedBeside(b, p.key) {
			return fmt.Sprintf("%s by %s", object(p.kind, p.key), r.name)
		}
	}
	return ""
}

// samePodsAs says whether a Service has pods of a backend.
func (m *maker) samePodsAs(key types.NamespacedName, b *backend, pods []*Pod) bool {
	o := m.service(key)
	return o != nil && key.Namespace == b.key.Namespace && slices.ContainsFunc(pods, func(p *Pod) bool { return hasLabels(p.Labels, o.Spec.Selector) })
}

// serviceLedBeside: one that is not known is taken for one.
func (m *maker) serviceLedBeside(b *backend, key types.NamespacedName) bool {
	o := m.service(key)
	return o == nil || m.ledBeside(b, key, o.Labels)
}

func (m *maker) entryLedBeside(b *backend, key types.NamespacedName) bool {
	return slices.ContainsFunc(m.ServiceEntries, func(o *unstructured.Unstructured) bool { return keyOf(o) == key && m.ledBeside(b, key, o.GetLabels()) })
}

// reachesPods says whether a ServiceEntry leads to pods of a backend: by their labels, by an address of theirs or of a Service of theirs, or by a name within the cluster.
func (m *maker) reachesPods(b *backend, o *unstructured.Unstructured, pods []*Pod) bool {
	labels, _, _ := unstructured.NestedStringMap(o.Object, "spec", "workloadSelector", "labels")
	if o.GetNamespace() == b.key.Namespace && slices.ContainsFunc(pods, func(p *Pod) bool { return hasLabels(p.Labels, labels) }) {
		return true
	}
	var to []string
	for _, e := range items(o.Object, []string{"spec", "endpoints"}) {
		if address, is := e["address"].(string); is {
			to = append(to, address)
		}
	}
	resolution, _, _ := unstructured.NestedString(o.Object, "spec", "resolution")
	if len(to) == 0 && strings.HasPrefix(resolution, "DNS") {
		to, _, _ = unstructured.NestedStringSlice(o.Object, "spec", "hosts")
	}
	return slices.ContainsFunc(to, func(address string) bool {
		return address == b.key.Name || address == b.key.Name+"."+b.key.Namespace || strings.Contains(address+".", ".svc.") || m.addressesPods(b, address, pods)
	})
}

// addressesPods says whether an address is that of pods of a backend, or of a Service of theirs, or may be: one of IPv6 may be written in many ways, and of pods
// without an address of IPv4, and of load balancers, it is not known which they have.
func (m *maker) addressesPods(b *backend, address string, pods []*Pod) bool {
	if strings.Contains(address, ":") {
		return len(pods) > 0
	}
	if address == "" || strings.Trim(address, "0123456789.") != "" { // a name has letters
		return false
	}
	return slices.ContainsFunc(pods, func(p *Pod) bool {
		return p.Status.PodIP == address || p.Status.PodIP == "" || strings.Contains(p.Status.PodIP, ":")
	}) || slices.ContainsFunc(m.servicesIn(b.key.Namespace), func(o *corev1.Service) bool {
		if keyOf(o) != b.key && !m.samePodsAs(keyOf(o), b, pods) {
			return false
		}
		return o.Spec.Type == corev1.ServiceTypeLoadBalancer || address == o.Spec.ClusterIP || slices.Contains(o.Spec.ClusterIPs, address) || slices.Contains(o.Spec.ExternalIPs, address)
	})
}
