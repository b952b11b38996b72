package plan

import (
	"fmt"
	"slices"

	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
)

// backend is a Service that the gateways send to.
type backend struct {
	key      types.NamespacedName
	service  *corev1.Service
	settings []setting // of the Service itself: its gateways' switches
	waypoint types.NamespacedName
	wanted   bool // a waypoint is asked for
	refused  bool // and its namespace does not consent, so that it stays as it is
	hidden   bool // its namespace does not consent, and of what is there nothing is told: service is empty
}

func (b *backend) String() string { return object("Service", b.key) }

// itself is what a finding about it holds back.
func (b *backend) itself() []string { return []string{b.String()} }

// findBackends resolves the Services of the spec, or of the routes.
func (m *maker) findBackends() {
	var settings []setting
	for _, g := range m.gateways {
		if sw := m.chosen(g); sw != nil && sw.On == edge.OnService {
			x := setting{sw.Path, sw.Value}
			if !slices.ContainsFunc(settings, func(o setting) bool { return o.field() == x.field() }) {
				settings = append(settings, x)
			}
		}
	}
	var keys []types.NamespacedName
	if b := m.Edge.Spec.Backends; b != nil && len(b.Services) > 0 {
		for _, ref := range b.Services {
			keys = append(keys, types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name})
		}
	} else {
		keys = m.routedServices()
		keys = append(keys, m.ingressServices()...)
		m.udpRoutes()
		m.unfollowed(len(keys))
		m.unveil(len(keys))
		m.nothingRouted(len(keys))
	}
	slices.SortFunc(keys, compareKeys)
	for _, key := range slices.Compact(keys) {
		b := &backend{key: key, service: m.service(key), settings: settings}
		m.hide(b)
		if b.service == nil {
			f := v1alpha1.Finding{
				Code: v1alpha1.FindingNoBackend, Severity: v1alpha1.SeverityError, Object: b.String(),
				Message: fmt.Sprintf("AmbientEdge %s sends to this Service, which does not exist", keyOf(m.Edge)), Fix: "create it, or correct the name",
			}
			if m.namespace(key.Namespace) == nil {
				f.Message = fmt.Sprintf("AmbientEdge %s sends to this Service, and its namespace %s does not exist", keyOf(m.Edge), key.Namespace)
				f.Fix = "correct the namespace, or create it and the Service"
			}
			m.missing = append(m.missing, key)
			m.about([]string{f.Object}, func() { m.found(f) })
			continue
		}
		m.backends = append(m.backends, b)
		m.outside(b)
	}
}

// outside finds backends whose pods the mesh does not carry: behind a waypoint they are reached in plaintext.
func (m *maker) outside(b *backend) {
	m.unselected(b)
	out := 0
	pods := m.podsWith(b.key.Namespace, b.service.Spec.Selector)
	for _, p := range pods {
		if !captured(p) && (!m.assumed(p) || !m.labelledIn(p)) {
			out++
		}
	}
	if out == 0 {
		return
	}
	m.found(v1alpha1.Finding{
		Code: v1alpha1.FindingBackendOutside, Severity: v1alpha1.SeverityWarning, Object: b.String(),
		Message: fmt.Sprintf("%d of %d pods of this Service are not in the mesh: the last hop to them is plaintext, and no policy is enforced there", out, len(pods)),
		Fix:     fmt.Sprintf("kubectl label namespace %s %s=%s", b.key.Namespace, LabelDataplaneMode, modeAmbient),
	})
}

// unselected finds a Service that selects no pods, and may have some all the same: by EndpointSlices, which nobody reads.
func (m *maker) unselected(b *backend) {
	if b.hidden || len(b.service.Spec.Selector) > 0 || b.service.Spec.Type == corev1.ServiceTypeExternalName {
		return
	}
	m.found(v1alpha1.Finding{
		Code: v1alpha1.FindingNoSelector, Severity: v1alpha1.SeverityWarning, Object: b.String(), Field: "spec.selector",
		Message: "this Service has no selector, and EndpointSlices are not read: which pods serve it is not known, nor whether they are in the mesh, nor whether a policy at them tells callers apart, which sees a waypoint in their place",
		Fix:     "give it a selector; or see to what its EndpointSlices name: kubectl get endpointslices -n " + b.key.Namespace + " -l kubernetes.io/service-name=" + b.key.Name,
	})
}

func (m *maker) backendStatus(b *backend) v1alpha1.BackendStatus {
	st := v1alpha1.BackendStatus{Service: b.key.String()}
	st.Path = m.path(b)
	if b.wanted || m.bound(b) {
		st.Waypoint = b.waypoint.String()
		if is := m.present(b); is != b.waypoint && b.service.Labels[LabelUseWaypoint] != "" && is.Name != "" && !m.wrote(b.service) {
			st.Waypoint = is.String() // somebody leads it there, and it is not overwritten
		}
	}
	pods := m.podsWith(b.key.Namespace, b.service.Spec.Selector)
	for _, p := range m.policiesIn(b.key.Namespace, b.waypoint.Namespace, m.Root()) {
		if m.concerns(p, b, pods) && len(st.Policies) < 32 {
			st.Policies = append(st.Policies, keyOf(p).String())
		}
	}
	slices.Sort(st.Policies)
	return st
}

// concerns says whether a policy is for a backend, which has these pods: by its targetRefs, for its waypoint, or by its selector.
func (m *maker) concerns(p *securityv1.AuthorizationPolicy, b *backend, pods []*Pod) bool {
	if targets(p, &p.Spec, b.key, "Service") || b.waypoint.Name != "" && (targets(p, &p.Spec, b.waypoint, "Gateway") || m.targetsClass(p, &p.Spec)) {
		return true
	}
	if hasTargets(p) || p.Namespace != b.key.Namespace {
		return false
	}
	if p.Spec.GetSelector() == nil {
		return true
	}
	for _, pod := range pods {
		if hasLabels(pod.Labels, p.Spec.GetSelector().GetMatchLabels()) {
			return true
		}
	}
	return false
}

func hasTargets(p *securityv1.AuthorizationPolicy) bool {
	return len(p.Spec.GetTargetRefs()) > 0 || p.Spec.GetTargetRef() != nil
}
