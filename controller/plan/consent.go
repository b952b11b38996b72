package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

const gatewayAPI = "gateway.networking.k8s.io/v1"

// consents says whether a namespace lets the edge write objects of a kind there: its own namespace always does, others by the
// annotation that names the edge, or by a ReferenceGrant from AmbientEdges of its namespace to that kind.
func (m *maker) consents(namespace, group, kind string) bool {
	if namespace == m.Edge.Namespace {
		return true
	}
	if ns := m.namespace(namespace); ns != nil {
		for name := range strings.SplitSeq(ns.Annotations[v1alpha1.AnnotationEdges], ",") {
			if strings.TrimSpace(name) == keyOf(m.Edge).String() {
				return true
			}
		}
	}
	for i := range m.ReferenceGrants {
		g := &m.ReferenceGrants[i]
		if g.Namespace != namespace {
			continue
		}
		from, to := false, false
		for _, f := range g.Spec.From {
			from = from || string(f.Group) == v1alpha1.GroupVersion().Group && f.Kind == "AmbientEdge" && string(f.Namespace) == m.Edge.Namespace
		}
		for _, t := range g.Spec.To {
			// A grant for one object by name is not one for all of the kind, which is what is asked here.
			to = to || string(t.Group) == group && string(t.Kind) == kind && t.Name == nil
		}
		if from && to {
			return true
		}
	}
	return false
}

// ask is consents, with a finding when the answer is no; one for a namespace is enough.
func (m *maker) ask(namespace, group, kind, what string) bool {
	if m.consents(namespace, group, kind) {
		return true
	}
	obj := "Namespace " + namespace
	if !slices.ContainsFunc(m.plan.Findings, func(f v1alpha1.Finding) bool { return f.Code == v1alpha1.FindingNoConsent && f.Object == obj }) {
		m.found(v1alpha1.Finding{
			Code: v1alpha1.FindingNoConsent, Severity: v1alpha1.SeverityError, Object: obj, Field: "metadata.annotations[" + v1alpha1.AnnotationEdges + "]",
			Message: fmt.Sprintf("this namespace has not consented to AmbientEdge %s, which wants to %s there; nothing was written", keyOf(m.Edge), what),
			Fix:     fmt.Sprintf("kubectl annotate namespace %s %s=%s, or create a ReferenceGrant there from AmbientEdge in %s to %s", namespace, v1alpha1.AnnotationEdges, keyOf(m.Edge), m.Edge.Namespace, kind),
		})
	}
	return false
}
