package plan

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
)

// gateway is a gateway of the edge, as found.
type gateway struct {
	kind    string // Gateway, Deployment, DaemonSet
	key     types.NamespacedName
	vendor  edge.Vendor
	object  *gatewayv1.Gateway // of kind Gateway
	pods    []*corev1.Pod
	capture v1alpha1.Capture // never Auto
}

func (g *gateway) String() string { return object(g.kind, g.key) }

// identities are the SPIFFE ids of its pods.
func (g *gateway) identities(trustDomain string) []string {
	var ids []string
	for _, p := range g.pods {
		ids = append(ids, identity(trustDomain, p))
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

func identity(trustDomain string, p *corev1.Pod) string {
	sa := p.Spec.ServiceAccountName
	if sa == "" {
		sa = "default"
	}
	return fmt.Sprintf("spiffe://%s/ns/%s/sa/%s", trustDomain, p.Namespace, sa)
}

// findGateways resolves the references of the spec.
func (m *maker) findGateways() {
	ns := m.Edge.Namespace
	for _, ref := range m.Edge.Spec.TargetRefs {
		g := &gateway{kind: "Gateway", key: types.NamespacedName{Namespace: ns, Name: ref.Name}}
		if g.object = m.gateway(g.key); g.object == nil {
			m.noTarget(g)
			continue
		}
		g.vendor = edge.ByController(m.controllerOf(g.object.Spec.GatewayClassName))
		g.pods = m.podsWith(ns, g.vendor.Pods(ref.Name))
		m.addGateway(g)
	}
	for _, ref := range m.Edge.Spec.WorkloadRefs {
		g := &gateway{kind: ref.Kind, key: types.NamespacedName{Namespace: ns, Name: ref.Name}, vendor: edge.Custom()}
		var labels map[string]string
		switch d, ds := m.deployment(g.key), m.daemonSet(g.key); {
		case ref.Kind == "Deployment" && d != nil:
			labels = d.Spec.Selector.MatchLabels
		case ref.Kind == "DaemonSet" && ds != nil:
			labels = ds.Spec.Selector.MatchLabels
		default:
			m.noTarget(g)
			continue
		}
		g.pods = m.podsWith(ns, labels)
		m.addGateway(g)
	}
}

func (m *maker) addGateway(g *gateway) {
	switch g.capture = m.Edge.Spec.Capture; {
	case (g.capture == "" || g.capture == v1alpha1.CaptureAuto) && g.vendor.Native:
		g.capture = v1alpha1.CaptureNative
	case g.capture == "" || g.capture == v1alpha1.CaptureAuto:
		g.capture = v1alpha1.CaptureAmbient
	}
	m.gateways = append(m.gateways, g)
}

func (m *maker) noTarget(g *gateway) {
	m.found(v1alpha1.Finding{
		Code: v1alpha1.FindingNoTarget, Severity: v1alpha1.SeverityError, Object: g.String(), Field: "spec",
		Message: fmt.Sprintf("AmbientEdge %s names %s, which does not exist", keyOf(m.Edge), g), Fix: "create it, or correct the name",
	})
}

// conflicts finds older edges with the same gateways.
func (m *maker) conflicts() {
	for i := range m.Edges {
		other := &m.Edges[i]
		if keyOf(other) == keyOf(m.Edge) || other.Namespace != m.Edge.Namespace || other.DeletionTimestamp != nil || !older(other, m.Edge) {
			continue
		}
		for _, g := range m.gateways {
			if !names(other, g) {
				continue
			}
			m.found(v1alpha1.Finding{
				Code: v1alpha1.FindingConflictedEdge, Severity: v1alpha1.SeverityError, Object: "AmbientEdge " + keyOf(m.Edge).String(),
				Message: fmt.Sprintf("%s belongs to AmbientEdge %s, which is older", g, keyOf(other)), Fix: "delete one of the two",
			})
		}
	}
}

// older compares ages, which are whole seconds. Of the same age that one comes first which writes already.
func older(a, b *v1alpha1.AmbientEdge) bool {
	if !a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return a.CreationTimestamp.Before(&b.CreationTimestamp)
	}
	if writes := slices.Contains(a.Finalizers, v1alpha1.Finalizer); writes != slices.Contains(b.Finalizers, v1alpha1.Finalizer) {
		return writes
	}
	return a.Name < b.Name
}

func names(e *v1alpha1.AmbientEdge, g *gateway) bool {
	if g.kind == "Gateway" {
		return slices.ContainsFunc(e.Spec.TargetRefs, func(r v1alpha1.TargetRef) bool { return r.Name == g.key.Name })
	}
	return slices.Contains(e.Spec.WorkloadRefs, v1alpha1.WorkloadRef{Kind: g.kind, Name: g.key.Name})
}

// report fills the status of gateways and backends.
func (m *maker) report() {
	for _, g := range m.gateways {
		st := v1alpha1.GatewayStatus{Name: g.key.Name, Vendor: g.vendor.Name, Pods: int32(len(g.pods))}
		for _, p := range g.pods {
			if captured(p) {
				st.Captured++
			}
		}
		if ids := g.identities(m.trustDomain()); len(ids) == 1 {
			st.Identity = ids[0]
		}
		var switches []string
		for k, v := range g.vendor.ServiceLabels {
			switches = append(switches, k+"="+v)
		}
		slices.Sort(switches)
		st.Switch = strings.Join(switches, ",")
		m.plan.Gateways = append(m.plan.Gateways, st)
	}
	for _, b := range m.backends {
		m.plan.Backends = append(m.plan.Backends, m.backendStatus(b))
	}
}
