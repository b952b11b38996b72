package plan

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	securityapi "istio.io/api/security/v1beta1"
	typev1beta1 "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// admission is the policy at the pods of a backend that admits its waypoint, and the one that it leads to still, beside whom the lists there admit.
func (m *maker) admission(b *backend, lists []*securityv1.AuthorizationPolicy) (*securityv1.AuthorizationPolicy, *obstacle) {
	selector := b.service.Spec.Selector
	pods := m.podsWith(b.key.Namespace, selector)
	numbers, named := portsOf(b.service, pods)
	switch {
	case b.key.Namespace == m.Root():
		return nil, &obstacle{field: "metadata.namespace", why: "is in the root namespace of the mesh, where a policy that admits the waypoint would be for pods of all namespaces with such labels", fix: "have it in a namespace of its own"}
	case len(selector) == 0:
		return nil, &obstacle{field: "spec.selector", why: "selects no pods", fix: "give it a selector"}
	case named != "":
		return nil, &obstacle{field: "spec.ports", why: fmt.Sprintf("leads to port %s, and none of its pods says which that is", named), fix: "name the port in the pods' containers, or give the Service its number"}
	}
	if other := m.ledThere(b, pods, numbers); other != "" {
		return nil, &obstacle{field: "spec.selector", why: fmt.Sprintf("has pods that %s serves too, and whose callers may come by waypoint %s: they would be admitted with it", other, b.waypoint),
			fix: "have this AmbientEdge send to that too, or give it ports of its own"}
	}
	if o := m.forwards(b, pods); o != nil {
		return nil, o
	}
	principals, o := m.comingBy(b, m.policyAt(m.pairKey(b, pairAdmit)), func(p *securityv1.AuthorizationPolicy) []string {
		return p.Spec.GetRules()[0].GetFrom()[0].GetSource().GetPrincipals()
	})
	if o != nil {
		return nil, o
	}
	p := m.planned(b, pairAdmit)
	p.Spec.Selector = &typev1beta1.WorkloadSelector{MatchLabels: admittedAt(selector, lists)}
	p.Spec.Rules = []*securityapi.Rule{{
		From: []*securityapi.Rule_From{{Source: &securityapi.Source{Principals: principals}}},
		To:   []*securityapi.Rule_To{{Operation: &securityapi.Operation{Ports: numbers}}},
	}}
	return p, nil
}

// comingBy are the principals of the waypoint of a backend, of the one that it leads to still, and of those that a policy at its pods has, which stands, for as
// long as they may be on the way; or why the pods cannot tell these from others.
func (m *maker) comingBy(b *backend, stands *securityv1.AuthorizationPolicy, has func(*securityv1.AuthorizationPolicy) []string) ([]string, *obstacle) {
	at := []types.NamespacedName{b.waypoint}
	if is := m.present(b); is.Name != "" && is != b.waypoint && holds(b.service, m.Edge.FieldOwner(), labelled(LabelUseWaypoint, "").managed()...) {
		at = append(at, is)
	}
	var principals []string
	for _, waypoint := range at {
		field := "metadata.labels[" + LabelUseWaypoint + "]"
		if p := m.poser(waypoint); p != nil {
			return nil, &obstacle{field: field, fix: "take that name from the pod's labels, or give it the waypoint's service account",
				why: fmt.Sprintf("would lead to waypoint %s, by whose name %s goes, which has another service account than the waypoint's Deployment: it would get requests, and the pods would not admit it", waypoint, object("Pod", keyOf(p)))}
		}
		if p := m.sameAccount(waypoint); p != nil {
			return nil, &obstacle{field: field, fix: "give that pod a service account of its own",
				why: fmt.Sprintf("would have its pods admit %s, which has the service account of waypoint %s", object("Pod", keyOf(p)), waypoint)}
		}
		for _, id := range m.ownIDs(waypoint) {
			principals = append(principals, short(id))
		}
	}
	former := m.former(b, principals, stands, has)
	m.plan.leaves = m.plan.leaves || len(at) > 1 || len(former) > 0
	return unique(append(principals, former...)), nil
}

// former are the principals of waypoints that a policy at a backend's pods has beside those given, for as long as its waypoint is not seen to serve it: ztunnels that
// have not heard of that send to the one of before.
func (m *maker) former(b *backend, given []string, p *securityv1.AuthorizationPolicy, has func(*securityv1.AuthorizationPolicy) []string) (list []string) {
	if _, leads := m.leads(b); p == nil || !m.made(p) || len(p.Spec.GetRules()) != 1 || len(p.Spec.GetRules()[0].GetFrom()) != 1 || leads && m.Served[b.key].Answers {
		return nil
	}
	for _, principal := range has(p) {
		if !slices.Contains(given, principal) && m.ofWaypoint(principal) {
			list = append(list, principal)
		}
	}
	return list
}

// ofWaypoint says whether a principal is that of a waypoint that is there.
func (m *maker) ofWaypoint(principal string) bool {
	for i := range m.Gateways {
		if g := &m.Gateways[i]; m.controllerOf(g.Spec.GatewayClassName) == WaypointController &&
			slices.ContainsFunc(m.ownIDs(keyOf(g)), func(id spiffeid.ID) bool { return short(id) == principal }) {
			return true
		}
	}
	return false
}

// admittedAt are the labels of the pods that a waypoint is admitted at: of those that a Service selects the ones that have a list. Others, which may come later,
// have none, and what is admitted there would shut out everybody else.
func admittedAt(selector map[string]string, lists []*securityv1.AuthorizationPolicy) map[string]string {
	labels := maps.Clone(selector)
	if slices.ContainsFunc(lists, func(p *securityv1.AuthorizationPolicy) bool { return len(p.Spec.GetSelector().GetMatchLabels()) == 0 }) {
		return labels
	}
	for _, p := range lists {
		if !hasLabels(selector, p.Spec.GetSelector().GetMatchLabels()) {
			continue
		}
		return labels // which all of them have
	}
	if len(lists) > 0 {
		maps.Copy(labels, lists[0].Spec.GetSelector().GetMatchLabels())
	}
	return labels
}

// ledThere is another Service or ServiceEntry of the same pods and ports that leads to a backend's waypoint and gets no pairing, or "".
func (m *maker) ledThere(b *backend, pods []*Pod, numbers []string) string {
	for _, service := range m.servicesIn(b.key.Namespace) {
		o := &backend{key: keyOf(service), service: service}
		ours := slices.ContainsFunc(m.backends, func(x *backend) bool { return x.wanted && x.key == o.key && (m.present(x).Name == "" || m.paired(x)) }) || m.pairedByOther(o.key)
		if o.key != b.key && !ours && m.present(o) == b.waypoint && len(alsoAt(service, pods, numbers)) > 0 {
			return object("Service", o.key)
		}
	}
	return m.alsoEntered(b, pods, numbers)
}

// alsoAt are the ports of a Service that lead to some pods' ports, or may: its own, as policies write them.
func alsoAt(s *corev1.Service, pods []*Pod, numbers []string) (list []string) {
	var both []*Pod
	for _, p := range pods {
		if hasLabels(p.Labels, s.Spec.Selector) {
			both = append(both, p)
		}
	}
	for i := range s.Spec.Ports {
		one := corev1.Service{Spec: corev1.ServiceSpec{Ports: s.Spec.Ports[i : i+1]}}
		theirs, unknown := portsOf(&one, both)
		if len(both) > 0 && (unknown != "" || slices.ContainsFunc(theirs, func(n string) bool { return slices.Contains(numbers, n) })) {
			list = append(list, strconv.Itoa(int(s.Spec.Ports[i].Port)))
		}
	}
	return unique(list)
}

// guards deny at a waypoint, where the pods of a backend admit it, what comes to these by another Service that somebody else leads there: without our admission
// they would refuse it, whoever calls.
func (m *maker) guards(b *backend) (list []*securityv1.AuthorizationPolicy) {
	admit := m.policyAt(m.pairKey(b, pairAdmit))
	if admit == nil || !m.created(admit) {
		return nil
	}
	for _, service := range m.servicesIn(b.key.Namespace) {
		o := &backend{key: keyOf(service), service: service}
		ours := slices.ContainsFunc(m.backends, func(x *backend) bool { return x.wanted && x.key == o.key }) || m.pairedByOther(o.key)
		if ports := m.admittedBy(admit, service); o.key != b.key && !ours && m.present(o) == b.waypoint && len(ports) > 0 {
			list = append(list, m.atService(o, pairGuard, securityapi.AuthorizationPolicy_DENY, []*securityapi.Rule{
				{To: []*securityapi.Rule_To{{Operation: &securityapi.Operation{Ports: ports}}}},
			}))
		}
	}
	return list
}

// pairedByOther says whether a Service has twins of another AmbientEdge, which keeps them up.
func (m *maker) pairedByOther(service types.NamespacedName) bool {
	return slices.ContainsFunc(m.policiesIn(service.Namespace), func(p *securityv1.AuthorizationPolicy) bool {
		of, role := pairedFor(p)
		return of == service && (role == pairDeny || role == pairAllow) && m.pairsFor(p)
	})
}

// admittedBy are the ports of a Service that lead to where an admission admits a waypoint.
func (m *maker) admittedBy(admit *securityv1.AuthorizationPolicy, s *corev1.Service) (list []string) {
	pods := m.podsWith(admit.Namespace, admit.Spec.GetSelector().GetMatchLabels())
	for _, r := range admit.Spec.GetRules() {
		for _, to := range r.GetTo() {
			list = append(list, alsoAt(s, pods, to.GetOperation().GetPorts())...)
		}
	}
	return unique(list)
}
