package plan

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// byNamespace chooses between the label of a namespace and that of pod templates. What has been chosen stays: pods come and go, and to go from one to the
// other rolls the gateway, and takes it out of the mesh in between.
func (m *maker) byNamespace(ns *corev1.Namespace, workloads []*workload, others []string) bool {
	path := labelled(LabelDataplaneMode, "", "spec", "template", "metadata").managed()
	if slices.ContainsFunc(workloads, func(w *workload) bool { return holds(w.object, m.Edge.FieldOwner(), path...) }) {
		return false
	}
	return len(others) == 0 || holds(ns, m.Edge.FieldOwner(), labelled(LabelDataplaneMode, "").managed()...)
}

// others are the pods that the label of a gateway's namespace would bring in beside the gateways': without a label of their own, and fit for it.
func (m *maker) others(g *gateway) []string {
	own := map[types.NamespacedName]bool{}
	m.ownPods(own)
	for i := range m.Edges {
		e := &m.Edges[i]
		if e.Namespace != m.Edge.Namespace || e.Name == m.Edge.Name || e.Spec.Mode != v1alpha1.ModeManage || e.DeletionTimestamp != nil {
			continue
		}
		look := *m.Snapshot
		look.Edge = e
		other := &maker{Snapshot: &look}
		other.findGateways()
		other.ownPods(own)
	}
	var names []string
	for i := range m.Pods {
		p := &m.Pods[i]
		if p.Namespace != g.key.Namespace || own[keyOf(p)] || !alive(p) {
			continue
		}
		if code, _ := cannot(p); code == "" && p.Labels[LabelDataplaneMode] == "" {
			names = append(names, p.Name)
		}
	}
	slices.Sort(names)
	return names
}

// ownPods adds the pods of gateways that are to be captured, and need nothing else for it.
func (m *maker) ownPods(own map[types.NamespacedName]bool) {
	for _, g := range m.gateways {
		if g.capture != v1alpha1.CaptureAmbient || m.refusesOutside(g) != "" {
			continue
		}
		for _, p := range g.pods {
			own[keyOf(p)] = true
		}
	}
}

// broughtIn finds pods that have come into a namespace after we had labelled it.
func (m *maker) broughtIn(ns *corev1.Namespace, others []string) {
	obj := object("Namespace", keyOf(ns))
	if slices.ContainsFunc(m.plan.Findings, func(f v1alpha1.Finding) bool { return f.Code == v1alpha1.FindingBroughtIn && f.Object == obj }) {
		return // of another gateway of the edge
	}
	m.found(v1alpha1.Finding{
		Code: v1alpha1.FindingBroughtIn, Severity: v1alpha1.SeverityWarning, Object: obj, Field: "metadata.labels[" + LabelDataplaneMode + "]",
		Message: "the label by which the gateway is in the mesh has brought in others that came later: " + listed(others),
		Fix:     "label those that should stay outside " + LabelDataplaneMode + "=" + modeNone + ", in their pod templates",
	})
}
