package plan

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// concealed says whether nothing is to be told of what is in a namespace: it has not consented, and nothing of this edge is there. Whoever may read a
// status need not be allowed to read there. Who asks with rights of his own sees what these let him see.
func (m *maker) concealed(namespace string) bool {
	if m.Hearsay || namespace == m.Edge.Namespace {
		return false
	}
	is, known := m.concealing[namespace]
	if !known {
		if m.concealing == nil {
			m.concealing = map[string]bool{}
		}
		is = m.namespace(namespace) != nil && !m.consents(namespace, "", "Service") && !m.wroteIn(namespace)
		m.concealing[namespace] = is
	}
	return is
}

// wroteIn says whether something in a namespace was written for the edge.
func (m *maker) wroteIn(namespace string) bool {
	if slices.ContainsFunc(m.servicesIn(namespace), func(s *corev1.Service) bool { return m.wrote(s) }) {
		return true
	}
	for i := range m.Gateways {
		if g := &m.Gateways[i]; g.Namespace == namespace && m.madeWaypoint(g) {
			return true
		}
	}
	return slices.ContainsFunc(m.Objects, func(o *unstructured.Unstructured) bool {
		return o.GetNamespace() == namespace && (m.made(o) || m.wrote(o))
	})
}

// hide has a backend look as one that nothing was done for yet, there or not, where its namespace would have to consent first. One that needs no
// write is planned for as it is.
func (m *maker) hide(b *backend) {
	if !m.concealed(b.key.Namespace) {
		return
	}
	if b.service != nil {
		policy, name := m.waypointPolicy()
		if policy == v1alpha1.WaypointNone {
			return
		}
		is, bound := *b, true
		if is.waypoint.Namespace, is.waypoint.Name = b.key.Namespace, name; name == "" {
			bound = m.bound(&is)
		}
		wants := slices.ContainsFunc(append(m.way(&is), b.settings...), func(x setting) bool {
			state := m.state(b.service, x)
			return state == absent || state == foreign
		})
		makes := policy == v1alpha1.WaypointCreate && m.gateway(is.waypoint) == nil
		if bound && !wants && !makes {
			return
		}
	}
	b.hidden = true
	b.service = &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: b.key.Namespace, Name: b.key.Name}}
}

// conceal takes from the plan what it tells of concealed namespaces. What stands in the way there still does, and is not named.
func (m *maker) conceal() {
	namespaces, shown := map[string][]string{}, map[string]bool{}
	for _, b := range m.backends {
		if m.concealed(b.key.Namespace) {
			namespaces[b.key.Namespace] = append(namespaces[b.key.Namespace], b.String())
		}
		if !b.hidden {
			shown[b.String()], shown[object("Gateway", b.waypoint)] = true, true
		}
	}
	if len(namespaces) == 0 {
		return
	}
	for i := range m.plan.Steps {
		if s := &m.plan.Steps[i]; namespaces[namespaceOf(s.Object)] != nil && !shown[s.Object] {
			s.State, s.Reason, s.Write = v1alpha1.StepHeld, v1alpha1.FindingNoConsent+": no consent", nil
		}
	}
	for i := range m.plan.Backends {
		st := &m.plan.Backends[i]
		if ns, _, _ := strings.Cut(st.Service, "/"); namespaces[ns] != nil {
			*st = v1alpha1.BackendStatus{Service: st.Service}
		}
	}
	severities, stops := map[string]v1alpha1.Severity{}, map[string]bool{}
	m.plan.Findings = slices.DeleteFunc(m.plan.Findings, func(f v1alpha1.Finding) bool {
		ns := namespaceOf(f.Object)
		if f.Code == v1alpha1.FindingNoConsent {
			ns = strings.TrimPrefix(f.Object, "Namespace ")
		}
		if namespaces[ns] == nil {
			return false
		}
		stops[ns] = stops[ns] || f.Severity == v1alpha1.SeverityError && !m.plan.holds.apart[causeOf(&f)]
		if is := severities[ns]; f.Severity == v1alpha1.SeverityError || is == "" || f.Code == v1alpha1.FindingNoConsent && is != v1alpha1.SeverityError {
			severities[ns] = f.Severity
			if f.Code != v1alpha1.FindingNoConsent && f.Severity != v1alpha1.SeverityError {
				severities[ns] = v1alpha1.SeverityInfo
			}
		}
		return true
	})
	for _, b := range m.backends {
		ns := b.key.Namespace
		if namespaces[ns] == nil {
			continue
		}
		for _, o := range namespaces[ns] {
			delete(m.plan.holds.by, o) // it would tell what is there
		}
		var of []string
		if !stops[ns] {
			of = namespaces[ns]
		}
		m.about(of, func() { m.unconsented(ns, severities[ns], namespaces[ns]) })
		delete(namespaces, ns)
	}
}

// unconsented is the one finding for a concealed namespace.
func (m *maker) unconsented(namespace string, severity v1alpha1.Severity, services []string) {
	var what string
	kinds := "Service"
	switch severity {
	case v1alpha1.SeverityError:
		what = "nothing is written without its consent, and nothing is told of what is there"
	case v1alpha1.SeverityWarning:
		what = "that is left as it is, and nothing is told of what is there"
	default:
		severity, what = v1alpha1.SeverityInfo, "nothing has to be written there, and nothing is told of what is there"
	}
	if policy, _ := m.waypointPolicy(); policy == v1alpha1.WaypointCreate {
		kinds = groupKind{gatewayv1.GroupName, "Gateway"}.String() + " and Service"
	}
	m.found(v1alpha1.Finding{
		Code: v1alpha1.FindingNoConsent, Severity: severity, Object: "Namespace " + namespace, Field: "metadata.annotations[" + v1alpha1.AnnotationEdges + "]",
		Message: fmt.Sprintf("this namespace has not consented to AmbientEdge %s, which sends to %s there; %s", keyOf(m.Edge), listed(services), what),
		Fix:     fmt.Sprintf("%s # or a ReferenceGrant there from AmbientEdge in %s to %s", m.consentCommand(namespace), m.Edge.Namespace, kinds),
	})
}

// namespaceOf is that of an object as findings and steps name it, "Kind namespace/name", or "".
func namespaceOf(object string) string {
	_, name, _ := strings.Cut(object, " ")
	if ns, _, ok := strings.Cut(name, "/"); ok {
		return ns
	}
	return ""
}
