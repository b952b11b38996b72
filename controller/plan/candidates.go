package plan

import (
	"cmp"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/controller/edge"
)

// Candidate is a gateway of the cluster, and the AmbientEdge that has it, or would fit it.
type Candidate struct {
	// Kind is Gateway, or that of the workload of an Ingress controller.
	Kind string
	Key  types.NamespacedName
	Edge *v1alpha1.AmbientEdge
	// Exists: the AmbientEdge is in the cluster.
	Exists bool
}

// Candidates are all Gateways of a cluster that are no waypoints, and all known Ingress controllers. The snapshot's Edge is not looked at.
func Candidates(s *Snapshot) []Candidate {
	var list []Candidate
	for i := range s.Gateways {
		g := &s.Gateways[i]
		if c := s.controllerOf(g.Spec.GatewayClassName); !inside(c, g) {
			list = append(list, Candidate{Kind: "Gateway", Key: keyOf(g)})
		}
	}
	m := &maker{Snapshot: s}
	for _, w := range m.workloads(func(w *workload) bool {
		return len(edge.ByWorkload(w.template.Labels, w.images()).IngressControllers) > 0
	}) {
		v := edge.ByWorkload(w.template.Labels, w.images())
		if find(s.IngressClasses, func(c *networkingv1.IngressClass) bool { return v.Obeys(c.Spec.Controller) }) != nil {
			list = append(list, Candidate{Kind: w.kind, Key: w.key})
		}
	}
	AtOnce(len(list), func(i int) { list[i] = s.candidate(list[i].Kind, list[i].Key) })
	slices.SortStableFunc(list, func(a, b Candidate) int { return cmp.Or(compareKeys(a.Key, b.Key), cmp.Compare(a.Kind, b.Kind)) })
	return list
}

// inside says whether a Gateway serves the mesh itself: waypoints, and gateways between networks.
func inside(controller string, g *gatewayv1.Gateway) bool {
	return slices.Contains([]string{WaypointController, "istio.io/eastwest-controller", "istio.io/agentgateway-waypoint-controller"}, controller) ||
		controller == "" && g.Spec.GatewayClassName == WaypointClass
}

// candidate is a gateway with its AmbientEdge.
func (s *Snapshot) candidate(kind string, key types.NamespacedName) Candidate {
	c := Candidate{Kind: kind, Key: key}
	for i := range s.Edges {
		if e := &s.Edges[i]; e.Namespace == key.Namespace && names(e, &gateway{kind: kind, key: key}) && (c.Edge == nil || older(e, c.Edge)) {
			c.Edge, c.Exists = e, true
		}
	}
	if c.Exists {
		return c
	}
	c.Edge = &v1alpha1.AmbientEdge{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion().String(), Kind: "AmbientEdge"},
		ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: s.edgeName(key)},
		Spec:       v1alpha1.AmbientEdgeSpec{Mode: v1alpha1.ModeManage},
	}
	if kind == "Gateway" {
		c.Edge.Spec.TargetRefs = []v1alpha1.TargetRef{{Name: key.Name}}
	} else {
		c.Edge.Spec.WorkloadRefs = []v1alpha1.WorkloadRef{{Kind: kind, Name: key.Name}}
		c.Edge.Spec.Backends = &v1alpha1.Backends{From: v1alpha1.FromIngresses}
	}
	c.Edge.Spec.Waypoint = s.waypointFor(c.Edge)
	return c
}

// edgeName is a name for a new AmbientEdge that no other has.
func (s *Snapshot) edgeName(key types.NamespacedName) string {
	taken := func(name string) bool {
		return find(s.Edges, func(e *v1alpha1.AmbientEdge) bool { return e.Namespace == key.Namespace && e.Name == name }) != nil
	}
	name := key.Name
	for taken(name) {
		name += "-edge"
	}
	return name
}

// Needs are the settings of a candidate's controller that are not, or may not be, as its vendor's switch needs them: whatever its routes are.
func (c *Candidate) Needs(s *Snapshot) []v1alpha1.Finding {
	look := *s
	look.Edge = c.Edge
	m := &maker{Snapshot: &look}
	m.findGateways()
	m.plan.Findings = nil // those of the plan are in the plan
	for _, g := range m.gateways {
		if g.kind != c.Kind || g.key != c.Key {
			continue
		}
		for i := range g.vendor.Needs {
			m.need(g, &g.vendor.Needs[i])
		}
	}
	return m.plan.Findings
}

// waypointFor uses the waypoints that are there, and creates one where a backend has none, or where no backend is known yet.
func (s *Snapshot) waypointFor(e *v1alpha1.AmbientEdge) *v1alpha1.Waypoint {
	look := *s
	look.Edge = e
	m := &maker{Snapshot: &look}
	m.findGateways()
	m.findBackends()
	if len(m.backends) == 0 || slices.ContainsFunc(m.backends, func(b *backend) bool { return !m.bound(b) }) {
		return &v1alpha1.Waypoint{Policy: v1alpha1.WaypointCreate, Name: "waypoint"}
	}
	return &v1alpha1.Waypoint{Policy: v1alpha1.WaypointUse}
}
