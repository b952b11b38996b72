package plan

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
)

// gateway is a gateway of the edge, as found.
type gateway struct {
	kind   string // Gateway, Deployment, DaemonSet
	key    types.NamespacedName
	vendor edge.Vendor
	object *gatewayv1.Gateway // of kind Gateway
	pods   []*Pod
	// workloads run the pods, and are people's to label. Empty: the vendor's controller makes them.
	workloads []*workload
	merged    *unstructured.Unstructured // the parameters of its class by which its pods serve all Gateways of that; nil: they do not
	capture   v1alpha1.Capture           // never Auto
	parents   []parent                   // see maker.parents
	dns       *string                    // see maker.forwardsDNS
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

func identity(trustDomain string, p *Pod) string {
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
		if !m.classIsThere(g) && m.Edge.DeletionTimestamp == nil {
			continue // for undo it is enough to know its pods
		}
		g.vendor = edge.ByController(m.controllerOf(g.object.Spec.GatewayClassName))
		m.proxies(g)
		m.addGateway(g)
	}
	for _, ref := range m.Edge.Spec.WorkloadRefs {
		g := &gateway{kind: ref.Kind, key: types.NamespacedName{Namespace: ns, Name: ref.Name}, vendor: edge.Custom()}
		w := m.workload(ref.Kind, g.key)
		if w == nil {
			m.noTarget(g)
			continue
		}
		g.vendor = edge.ByWorkload(w.template.Labels, w.images())
		if of, is := edge.ByControllerWorkload(w.template.Labels, w.images()); is && g.vendor.Name == edge.Custom().Name {
			m.found(v1alpha1.Finding{
				Code: v1alpha1.FindingController, Severity: v1alpha1.SeverityError, Object: g.String(), Field: "spec.template",
				Message: fmt.Sprintf("this is the controller of %s, which the API server and its proxies call: it stays out of the mesh", of.Name),
				Fix:     "name the gateway itself: its Gateway in targetRefs, or the workload of its proxies",
			})
		}
		g.workloads = []*workload{w}
		g.pods = m.podsWith(ns, w.selector)
		m.addGateway(g)
	}
}

// proxies finds the pods of a Gateway, and the workloads that run them where these are not the vendor's to make.
func (m *maker) proxies(g *gateway) {
	ns, at := g.key.Namespace, &g.vendor.Proxies
	of := func(labels map[string]string) map[string]string {
		return edge.Of(labels, ns, g.key.Name, string(g.object.Spec.GatewayClassName))
	}
	switch {
	case at.Shared:
		near := false
		all := m.workloads(func(w *workload) bool {
			fits := w.fits(&g.vendor.Workload)
			near = near || fits && w.key.Namespace == ns
			return fits
		})
		for _, w := range all {
			if near && w.key.Namespace != ns {
				continue
			}
			g.workloads = append(g.workloads, w)
			g.pods = append(g.pods, m.podsWith(w.key.Namespace, w.selector)...)
		}
	case len(at.Service) > 0:
		for _, s := range m.servicesIn(ns) {
			if hasLabels(s.Labels, of(at.Service)) {
				g.pods = append(g.pods, m.podsWith(ns, s.Spec.Selector)...)
			}
		}
		g.workloads = m.runs(g)
	case at.Anywhere:
		labels := at.Labels
		if g.merged = m.merged(g); g.merged != nil {
			labels = at.Merge.Labels
		}
		g.pods = m.podsAnywhere(g, of(labels))
	default:
		g.pods = m.podsWith(ns, of(at.Labels))
	}
}

func (m *maker) addGateway(g *gateway) {
	switch g.capture = m.Edge.Spec.Capture; {
	case (g.capture == "" || g.capture == v1alpha1.CaptureAuto) && g.native():
		g.capture = v1alpha1.CaptureNative
	case g.capture == "" || g.capture == v1alpha1.CaptureAuto:
		g.capture = v1alpha1.CaptureAmbient
	}
	m.gateways = append(m.gateways, g)
}

// native says whether its pods speak HBONE themselves, as its vendor says.
func (g *gateway) native() bool {
	switch g.vendor.Native {
	case edge.NativeAlways:
		return true
	case edge.NativeByMode:
		return len(g.pods) > 0 && !slices.ContainsFunc(g.pods, func(p *Pod) bool { return p.Labels[LabelDataplaneMode] != modeNone })
	}
	return false
}

func (m *maker) noTarget(g *gateway) {
	m.found(v1alpha1.Finding{
		Code: v1alpha1.FindingNoTarget, Severity: v1alpha1.SeverityError, Object: g.String(), Field: "spec",
		Message: fmt.Sprintf("AmbientEdge %s names %s, which does not exist", keyOf(m.Edge), g), Fix: "create it, or correct the name",
	})
}

// classIsThere says whether the class of a Gateway is there, which alone tells what kind of gateway it is. One of Istio's is not to be taken for
// another while istiod has not made its class yet.
func (m *maker) classIsThere(g *gateway) bool {
	name := g.object.Spec.GatewayClassName
	if find(m.Classes, func(c *gatewayv1.GatewayClass) bool { return c.Name == string(name) }) != nil {
		return true
	}
	m.found(v1alpha1.Finding{
		Code: v1alpha1.FindingNoClass, Severity: v1alpha1.SeverityError, Object: g.String(), Field: "spec.gatewayClassName",
		Message: fmt.Sprintf("GatewayClass %s is not there, so that nobody can tell what kind of gateway this is; nothing is done", name),
		Fix:     "install the gateway's controller, which makes its class, or correct the name",
	})
	return false
}

// conflicts finds edges with the same gateways that come first. One that only observes stands in nobody's way: it takes no rights to make.
func (m *maker) conflicts() {
	for i := range m.Edges {
		other := &m.Edges[i]
		if keyOf(other) == keyOf(m.Edge) || other.Namespace != m.Edge.Namespace || other.DeletionTimestamp != nil || !manages(other) || !first(other, m.Edge) {
			continue
		}
		for _, g := range m.gateways {
			if !names(other, g) {
				continue
			}
			why := "is older"
			if !older(other, m.Edge) {
				why = "manages it already"
			}
			m.found(v1alpha1.Finding{
				Code: v1alpha1.FindingConflictedEdge, Severity: v1alpha1.SeverityError, Object: "AmbientEdge " + keyOf(m.Edge).String(),
				Message: fmt.Sprintf("%s belongs to AmbientEdge %s, which %s", g, keyOf(other), why), Fix: "delete one of the two",
			})
		}
	}
}

// manages says whether an edge writes, or has written.
func manages(e *v1alpha1.AmbientEdge) bool {
	return e.Spec.Mode == v1alpha1.ModeManage || slices.Contains(e.Finalizers, v1alpha1.Finalizer)
}

// first says whether a comes before b: the one that writes already, if the other only has observed until now, else the older.
func first(a, b *v1alpha1.AmbientEdge) bool {
	if writes := slices.Contains(a.Finalizers, v1alpha1.Finalizer); writes != slices.Contains(b.Finalizers, v1alpha1.Finalizer) {
		return writes
	}
	return older(a, b)
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
		if s := m.chosen(g); s != nil {
			st.Switch = s.String()
		}
		m.plan.Gateways = append(m.plan.Gateways, st)
	}
	for _, b := range m.backends {
		m.plan.Backends = append(m.plan.Backends, m.backendStatus(b))
	}
	for _, key := range m.missing {
		m.plan.Backends = append(m.plan.Backends, v1alpha1.BackendStatus{Service: key.String()})
	}
	slices.SortStableFunc(m.plan.Backends, func(a, b v1alpha1.BackendStatus) int {
		x, y := strings.SplitN(a.Service, "/", 2), strings.SplitN(b.Service, "/", 2)
		return slices.Compare(x, y)
	})
}
